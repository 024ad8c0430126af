//! What moderators, and the application behind the API, do to a room.

use wire::room::Body;
use wire::room::model::{Clear, Del, Mode, Set, Stream};
use wire::room::relay::{FromHome, Sanction, Whom};

use super::{Core, Now, Output};
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

/// What a moderator does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Takes items back.
    Delete(Vec<String>),
    /// Takes back everything a user said.
    Clear(String),
    /// Silences or bans, until a time or for ever.
    Sanction(Sanction),
    /// Lifts what was put on somebody.
    Pardon(Whom),
    /// Ends a user's connections.
    Kick(Whom),
    /// Sets who may say what.
    Mode(Mode),
    /// Sets a key of the state.
    Set(String, String),
}

impl Core {
    /// Does it. Returns what is wrong with it, if it cannot be done.
    pub(crate) fn act(
        &mut self,
        now: Now,
        by: &str,
        act: Act,
        out: &mut Vec<Output>,
    ) -> Result<(), &'static str> {
        let (action, target) = match act {
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
            Act::Sanction(sanction) => {
                let target = target(&sanction.whom);
                let action = if sanction.ban { "ban" } else { "mute" };
                if sanction.ban {
                    out.push(Output::All(FromHome::Remove(vec![sanction.whom.clone()])));
                }
                self.sanction(sanction);
                out.push(Output::All(FromHome::State(self.state.clone())));
                (action, target)
            }
            Act::Pardon(whom) => {
                self.state.sanctions.retain(|sanction| sanction.whom != whom);
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
        };
        let kind = EventKind::Moderation { by: by.to_owned(), action: action.to_owned(), target };
        out.push(Output::Note(by.to_owned(), kind));
        Ok(())
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
