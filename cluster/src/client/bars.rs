//! The client's side of what takes things back: bars, and publish keys with terms.

use std::net::IpAddr;
use std::sync::Arc;

use wire::RoomId;
use wire::control::{Answer, Ask, Bar, Barred, KeyId, KeyInFull, KeyTerms, KeyVerdict};

use super::link::To;
use super::{Client, NewKey, keys};
use crate::Error;
use crate::access::Bars;

impl Client {
    /// What is barred, kept up to date.
    #[must_use]
    pub fn bars(&self) -> Arc<Bars> {
        Arc::clone(&self.shared.bars)
    }

    /// Bars something, or, without a bar, lets it in again. Every node hears of it by its watch.
    ///
    /// # Errors
    /// [`Error::Refused`] if it names nothing or the table is full; [`Error::TimedOut`].
    pub async fn set_bar(&self, on: &Barred, bar: Option<Bar>) -> Result<(), Error> {
        self.ask_done(Ask::SetBar { on: on.clone(), bar }, "set bar").await
    }

    /// Up to `limit` bars on what comes after `after`. Fewer than asked for means no more.
    ///
    /// # Errors
    /// [`Error::TimedOut`] if no control node answers.
    pub async fn list_bars(
        &self,
        after: Option<&Barred>,
        limit: u16,
    ) -> Result<Vec<(Barred, Bar)>, Error> {
        let ask = Ask::Bars { after: after.cloned(), limit };
        match self.shared.line.ask(ask, To::Any).await? {
            Answer::Bars(bars) => Ok(bars),
            _ => Err(Error::Unexpected { asked: "bars" }),
        }
    }

    /// Makes a publish key that opens on `terms`, in place of another one if `replaces` names it, which
    /// then opens for so many seconds more. The secret exists only in what this returns.
    ///
    /// # Errors
    /// [`Error::Refused`] if the terms make no sense, the other key is unknown or the room has too many;
    /// [`Error::TimedOut`].
    pub async fn store_key(
        &self,
        room: &RoomId,
        terms: KeyTerms,
        replaces: Option<(KeyId, u32)>,
    ) -> Result<NewKey, Error> {
        let key = NewKey::random()?;
        let (id, room, hash) = (key.id, room.clone(), keys::hash(&key.key));
        let ask = match (terms == KeyTerms::default(), replaces) {
            // What every build knows.
            (true, None) => Ask::CreateKey { id, room, hash },
            _ => Ask::StoreKey { id, room, hash, terms, replaces },
        };
        self.ask_done(ask, "store key").await?;
        Ok(key)
    }

    /// Up to `limit` publish keys after `after`, with their terms, of one room or of all.
    ///
    /// # Errors
    /// [`Error::TimedOut`].
    pub async fn keys_in_full(
        &self,
        room: Option<&RoomId>,
        after: Option<KeyId>,
        limit: u16,
    ) -> Result<Vec<KeyInFull>, Error> {
        let ask = Ask::KeysInFull { room: room.cloned(), after, limit };
        match self.shared.line.ask(ask, To::Leader).await? {
            Answer::KeysInFull(keys) => Ok(keys),
            _ => Err(Error::Unexpected { asked: "keys" }),
        }
    }

    /// What `key` does for the push `push` to the room from `from`; a key for one push is used up by it.
    /// Only its hash leaves this process, and it is compared in constant time.
    ///
    /// # Errors
    /// [`Error::TimedOut`] while there is no leader: a key is never taken for good on old news.
    pub async fn use_key(
        &self,
        room: &RoomId,
        key: &str,
        from: IpAddr,
        push: u64,
    ) -> Result<KeyVerdict, Error> {
        let ask = Ask::UseKey { room: room.clone(), hash: keys::hash(key), from, push };
        match self.shared.line.ask(ask, To::Leader).await? {
            Answer::Key(verdict) => Ok(verdict),
            _ => Err(Error::Unexpected { asked: "use key" }),
        }
    }
}
