//! What moderators, and the application behind the API, do to a room.

use bytes::Bytes;
use prost::Message as _;
use wire::events::Whence;
use wire::room::model::{Clear, Del, Set, Stream};
use wire::room::relay::{Act, FromHome, Sanction, Verdict, Whom};
use wire::room::{Body, Code, User};

use super::{Core, Count, Now, Output, refused};
use crate::sequencer::ledger::EventKind;

/// Sanctions of one room; beyond, the one that ends first is dropped.
const MAX_SANCTIONS: usize = 10_000;
/// Keys of a room's state.
const MAX_KEYS: usize = 64;
/// The longest key and value, in bytes.
const MAX_KEY_BYTES: usize = 64;
/// See [`MAX_KEY_BYTES`].
const MAX_VALUE_BYTES: usize = 4096;
/// Items taken back at once.
const MAX_IDS: usize = 100;

/// Acts of moderators in one room in a second; more are refused for a moment.
const MAX_ACTS_PER_SECOND: u32 = 50;

/// Why a moderator's act is not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Undone {
    /// It makes no sense, for the reason given.
    Wrong(&'static str),
    /// Not now: the room finds its past, or moderators do too much.
    Later,
}

impl Core {
    /// Does what a member asks for who may.
    pub(super) fn act_of(
        &mut self,
        now: Now,
        user: &Bytes,
        act: Act,
        out: &mut Vec<Output>,
    ) -> Verdict {
        let Ok(user) = User::decode(&**user) else { return refused(Code::BadRequest, None) };
        let code = match self.act(now, &user.id, act, out) {
            Ok(()) => return Verdict::Done,
            Err(Undone::Wrong(_)) => Code::BadRequest,
            Err(Undone::Later) => Code::RateLimited,
        };
        out.push(Output::Count(Count::Refused(code)));
        refused(code, (code == Code::RateLimited).then_some(1000))
    }

    /// Does it.
    ///
    /// # Errors
    /// [`Undone`].
    pub(crate) fn act(
        &mut self,
        now: Now,
        by: &str,
        act: Act,
        out: &mut Vec<Output>,
    ) -> Result<(), Undone> {
        let second = now.ms / 1000;
        if self.acts.0 != second {
            self.acts = (second, 0);
        }
        // Before its past is found the room's order does not go on.
        if self.settling.is_some() || self.acts.1 >= MAX_ACTS_PER_SECOND {
            return Err(Undone::Later);
        }
        let (action, target) = self.do_it(now, act, out).map_err(Undone::Wrong)?;
        self.acts.1 += 1;
        let kind = EventKind::Moderation { by: by.to_owned(), action: action.to_owned(), target };
        out.push(Output::Note(by.to_owned(), Whence::default(), kind));
        Ok(())
    }

    /// Does it. Returns what was done and upon whom, or what is wrong with it.
    fn do_it(
        &mut self,
        now: Now,
        act: Act,
        out: &mut Vec<Output>,
    ) -> Result<(&'static str, String), &'static str> {
        Ok(match act {
            Act::Delete(ids) if ids.is_empty() || ids.len() > MAX_IDS => {
                return Err("name 1 to 100 ids");
            }
            Act::Delete(ids) => {
                let target = ids.join(" ");
                self.place(now, None, Body::Del(Del { ids }), out);
                ("delete", target)
            }
            Act::Clear(uid) => {
                self.place(now, None, Body::Clear(Clear { uid: uid.clone() }), out);
                ("clear", uid)
            }
            Act::Sanction(sanction) => self.punish(vec![sanction], out),
            Act::SanctionWithAddress(sanction) => {
                let address = self
                    .address_of(&sanction.whom)
                    .map(|whom| Sanction { whom, ..sanction.clone() });
                self.punish(std::iter::once(sanction).chain(address).collect(), out)
            }
            Act::Pardon(whom) => {
                let address = self.address_of(&whom);
                let meant = |known: &Whom| *known == whom || Some(known) == address.as_ref();
                self.state.sanctions.retain(|sanction| !meant(&sanction.whom));
                out.push(Output::All(FromHome::State(self.state.clone())));
                ("pardon", target(&whom))
            }
            Act::Kick(whom) => {
                let target = target(&whom);
                out.push(Output::All(FromHome::Remove(vec![whom])));
                ("kick", target)
            }
            Act::Mode(mode) => {
                let text = serde_json::to_string(&mode).unwrap_or_default();
                self.set(now, "mode", text.clone(), out)?;
                ("mode", text)
            }
            Act::Set(key, value) => {
                self.set(now, &key, value, out)?;
                ("set", key)
            }
            Act::Approve(_) | Act::Reject(_) => return Err("no message is held in this room"),
        })
    }

    /// Puts these on one user.
    fn punish(
        &mut self,
        sanctions: Vec<Sanction>,
        out: &mut Vec<Output>,
    ) -> (&'static str, String) {
        let banned: Vec<Whom> =
            sanctions.iter().filter(|s| s.ban).map(|s| s.whom.clone()).collect();
        let action = if banned.is_empty() { "mute" } else { "ban" };
        let targets: Vec<String> = sanctions.iter().map(|s| target(&s.whom)).collect();
        if !banned.is_empty() {
            out.push(Output::All(FromHome::Remove(banned)));
        }
        sanctions.into_iter().for_each(|sanction| self.sanction(sanction));
        out.push(Output::All(FromHome::State(self.state.clone())));
        (action, targets.join(" "))
    }

    /// The address a user spoke from last.
    fn address_of(&self, whom: &Whom) -> Option<Whom> {
        match whom {
            Whom::User(uid) => self.addresses.get(uid).copied().map(Whom::Address),
            Whom::Address(_) => None,
        }
    }

    /// The stream is `live`, in a `gap`, or `ended`.
    pub(crate) fn stream(&mut self, now: Now, word: &'static str, out: &mut Vec<Output>) {
        self.state.live = word != "ended";
        out.push(Output::All(FromHome::State(self.state.clone())));
        if self.settling.is_none() {
            self.place(now, None, Body::Stream(Stream { s: word.to_owned() }), out);
        }
    }

    fn set(
        &mut self,
        now: Now,
        key: &str,
        value: String,
        out: &mut Vec<Output>,
    ) -> Result<(), &'static str> {
        if key.is_empty() || key.len() > MAX_KEY_BYTES || value.len() > MAX_VALUE_BYTES {
            return Err("a key has 1 to 64 bytes, a value up to 4096");
        }
        let known = self.state.keys.iter().find(|(known, ..)| known == key);
        if known.is_none() && self.state.keys.len() >= MAX_KEYS {
            return Err("the room has 64 keys already");
        }
        let ver = known.map_or(1, |(_, _, ver)| ver + 1);
        let set = Set { k: key.to_owned(), v: value, ver };
        self.state.set(&set);
        out.push(Output::All(FromHome::State(self.state.clone())));
        self.place(now, None, Body::Set(set), out);
        Ok(())
    }

    fn sanction(&mut self, sanction: Sanction) {
        let sanctions = &mut self.state.sanctions;
        sanctions.retain(|known| known.whom != sanction.whom);
        if sanctions.len() >= MAX_SANCTIONS {
            let first = sanctions
                .iter()
                .enumerate()
                .min_by_key(|(_, s)| s.until_unix_ms.unwrap_or(u64::MAX));
            if let Some((at, _)) = first {
                sanctions.swap_remove(at);
            }
        }
        sanctions.push(sanction);
    }
}

fn target(whom: &Whom) -> String {
    match whom {
        Whom::User(uid) => uid.clone(),
        Whom::Address(address) => address.to_string(),
    }
}
