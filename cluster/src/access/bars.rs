//! What is barred, as this node has heard: the table behind every check, and the pass that a running
//! session keeps to find out that it no longer may run.
//!
//! In: bars from the watch on the control plane. Out: whether a push or a token is barred now. Clones of
//! what is handed out share the table; its lock is held for a lookup only.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::RwLock;
use tokio::sync::watch;
use wire::RoomId;
use wire::control::{Bar, Barred};

use super::{Access, Claims};

/// The bars that stand, by what they are on.
#[derive(Debug, Default)]
pub struct Bars {
    table: RwLock<Table>,
    /// Counts changes; read without waiting.
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Table {
    bars: HashMap<Barred, Bar>,
    /// How many of them are on tokens: most clusters have none, and a check then costs nothing.
    on_tokens: usize,
    /// The log index up to which they are known.
    revision: u64,
}

impl Table {
    fn set(&mut self, on: Barred, bar: Option<Bar>) {
        let is_on_tokens = usize::from(!matches!(on, Barred::Push(_)));
        let had = match bar {
            Some(bar) => {
                self.on_tokens += is_on_tokens;
                self.bars.insert(on, bar)
            }
            None => self.bars.remove(&on),
        };
        if had.is_some() {
            self.on_tokens -= is_on_tokens;
        }
    }

    fn holds(&self, on: &Barred, now_s: u64) -> Option<&Bar> {
        self.bars.get(on).filter(|bar| now_s <= bar.until_unix_s)
    }
}

impl Bars {
    /// Takes over one change, as known at `revision`.
    pub(crate) fn set(&self, revision: u64, on: Barred, bar: Option<Bar>) {
        let mut table = self.table.write();
        table.revision = table.revision.max(revision);
        table.set(on, bar);
        drop(table);
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Takes over all bars that stood at `revision`; others are gone. Left out if more is known already:
    /// what was barred since would be open again.
    pub(crate) fn replace(&self, revision: u64, bars: Vec<(Barred, Bar)>) {
        let mut known = self.table.write();
        if revision < known.revision {
            return;
        }
        let mut table = Table { revision, ..Table::default() };
        bars.into_iter().for_each(|(on, bar)| table.set(on, Some(bar)));
        *known = table;
        drop(known);
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.read().bars.len()
    }

    /// Whether nothing is barred.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Wakes when something is barred, or no longer; the value only counts.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The bar on pushes to `room` at `now_s`, in seconds since 1970.
    #[must_use]
    pub fn push(&self, room: &RoomId, now_s: u64) -> Option<Bar> {
        let table = self.table.read();
        if table.bars.len() == table.on_tokens {
            return None;
        }
        table.holds(&Barred::Push(room.clone()), now_s).cloned()
    }

    /// Whether a token that says `claims` has been taken back for `room`. One that does not say when it was
    /// issued counts as issued before all bars. URLs signed by txSecret have no name and are not among
    /// what can be taken back.
    #[must_use]
    pub fn revokes(&self, claims: &Claims, room: &RoomId, now_s: u64) -> bool {
        let table = self.table.read();
        if table.on_tokens == 0 || claims.is_signed_url {
            return false;
        }
        if let Some(id) = &claims.id
            && table.holds(&Barred::Token(id.clone()), now_s).is_some()
        {
            return true;
        }
        let issued_s = claims.issued_s.unwrap_or(0);
        let is_older =
            |on: Barred| table.holds(&on, now_s).is_some_and(|bar| issued_s < bar.before_unix_s);
        let app = format!("{}/*", room.app());
        if let Some(user) = &claims.user {
            let of_user =
                |rooms: &str| Barred::User { user: user.clone(), rooms: rooms.to_owned() };
            if [room.as_str(), &app, "*"].into_iter().any(|rooms| is_older(of_user(rooms))) {
                return true;
            }
        }
        is_older(Barred::Rooms(room.to_string())) || is_older(Barred::Rooms(app))
    }

    /// Whether the token of this id has been taken back.
    #[must_use]
    pub fn revokes_id(&self, id: &str, now_s: u64) -> bool {
        let table = self.table.read();
        table.on_tokens > 0 && table.holds(&Barred::Token(id.to_owned()), now_s).is_some()
    }

    fn version(&self) -> u64 {
        *self.changed.borrow()
    }
}

/// What a running session was let in by. Cheap to ask again and again whether it still may run: as long
/// as nothing has been barred since, that is a comparison of two numbers.
#[derive(Debug)]
pub struct Pass {
    access: Arc<Access>,
    claims: Claims,
    room: RoomId,
    /// The version of the bars at the last look.
    seen: AtomicU64,
}

impl Pass {
    /// For a session in `room` that brought a token saying `claims`.
    #[must_use]
    pub fn new(access: &Arc<Access>, claims: Claims, room: RoomId) -> Self {
        // Wrong by one on purpose: the first look is a real one.
        let seen = AtomicU64::new(access.bars.version().wrapping_sub(1));
        Self { access: Arc::clone(access), claims, room, seen }
    }

    /// What the token said.
    #[must_use]
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// Whether the token has been taken back since. Once it has, this stays so for the bar's time.
    #[must_use]
    pub fn is_void(&self) -> bool {
        let version = self.access.bars.version();
        if self.seen.load(Ordering::Relaxed) == version {
            return false;
        }
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let is_void = self.access.bars.revokes(&self.claims, &self.room, now_s);
        if !is_void {
            self.seen.store(version, Ordering::Relaxed);
        }
        is_void
    }

    /// Waits until the token is taken back; for ever if it never is.
    pub async fn voided(&self) {
        let mut changes = self.access.bars.changes();
        while !self.is_void() {
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Capability, Role, Scope};
    use super::*;

    const NOW_S: u64 = 1_795_000_000;

    fn room(text: &str) -> RoomId {
        RoomId::parse(text).unwrap()
    }

    fn bar(before_unix_s: u64) -> Option<Bar> {
        let until_unix_s = NOW_S + 100;
        Some(Bar { before_unix_s, until_unix_s, set_unix_s: NOW_S, reason: String::new() })
    }

    fn claims(issued_s: Option<u64>) -> Claims {
        Claims {
            scope: Scope::App("live".to_owned()),
            role: Role::Member,
            is_signed_url: false,
            user: Some("u7".to_owned()),
            id: Some("j1".to_owned()),
            issued_s,
            ..Claims::of_signed_url(&room("live/c"), Capability::Watch, NOW_S + 50)
        }
    }

    #[test]
    fn tokens_are_taken_back_one_by_one_by_user_and_by_room_for_a_time() {
        let of_user = |rooms: &str| Barred::User { user: "u7".into(), rooms: rooms.into() };
        for (on, before, hits_c, hits_d) in [
            (Barred::Token("j1".into()), 0, true, true),
            (Barred::Token("j2".into()), 0, false, false),
            (of_user("live/c"), NOW_S, true, false),
            (of_user("live/*"), NOW_S, true, true),
            (of_user("*"), NOW_S, true, true),
            (of_user("*"), NOW_S - 10, false, false),
            (Barred::Rooms("live/c".into()), NOW_S, true, false),
            (Barred::Rooms("live/*".into()), NOW_S, true, true),
            (Barred::Rooms("other/*".into()), NOW_S, false, false),
            (Barred::Push(room("live/c")), NOW_S, false, false),
        ] {
            let bars = Bars::default();
            bars.set(1, on.clone(), bar(before));
            let issued = claims(Some(NOW_S - 10));
            assert_eq!(bars.revokes(&issued, &room("live/c"), NOW_S), hits_c, "{on:?}");
            assert_eq!(bars.revokes(&issued, &room("live/d"), NOW_S), hits_d, "{on:?}");
            assert!(!bars.revokes(&issued, &room("live/c"), NOW_S + 101), "{on:?} is over");
            if before > 0 && hits_c {
                assert!(bars.revokes(&claims(None), &room("live/c"), NOW_S), "of unknown age");
                assert!(!bars.revokes(&claims(Some(NOW_S)), &room("live/c"), NOW_S), "newer");
            }
            bars.set(2, on, None);
            assert!(!bars.revokes(&issued, &room("live/c"), NOW_S) && bars.is_empty());
        }
    }

    #[test]
    fn pushes_are_barred_by_room_for_a_time() {
        let bars = Bars::default();
        bars.replace(5, vec![(Barred::Push(room("live/c")), bar(0).unwrap())]);
        assert!(bars.push(&room("live/c"), NOW_S).is_some());
        assert!(bars.push(&room("live/d"), NOW_S).is_none());
        assert!(bars.push(&room("live/c"), NOW_S + 101).is_none());
        bars.replace(4, Vec::new());
        assert!(bars.push(&room("live/c"), NOW_S).is_some(), "news of before");
        bars.replace(6, Vec::new());
        assert!(bars.push(&room("live/c"), NOW_S).is_none());
    }

    #[tokio::test]
    async fn a_pass_is_void_as_soon_as_its_token_is_taken_back() {
        let access = Arc::new(Access::default());
        let pass = Pass::new(&access, claims(Some(0)), room("live/c"));
        assert!(!pass.is_void() && !pass.is_void());
        let far = Bar { until_unix_s: u64::MAX, ..bar(u64::MAX).unwrap() };
        access.bars.set(1, Barred::Token("j2".into()), Some(far.clone()));
        assert!(!pass.is_void(), "another one");
        let told = tokio::join!(pass.voided(), async {
            access.bars.set(2, Barred::Token("j1".into()), Some(far.clone()));
        });
        assert_eq!(told, ((), ()));
        assert!(pass.is_void() && pass.is_void(), "and stays so");
    }
}
