//! How much one user may say through this edge. Pure.

use std::hash::{DefaultHasher, Hash, Hasher};

/// Milliseconds between two messages.
pub(crate) const CHAT_MS: u32 = 1_000;
/// Messages in [`RATE_MS`].
pub(crate) const CHAT_RATE: u32 = 5;
/// See [`CHAT_RATE`].
const RATE_MS: u64 = 10_000;
/// How long the same text is not taken again.
const SAME_MS: u64 = 30_000;
/// Gifts a second.
const GIFTS_PER_SECOND: u32 = 10;
/// Likes in one frame; those beyond count nothing.
pub(crate) const MAX_LIKES: u32 = 50;
/// Milliseconds between two frames of likes; those that come sooner count nothing.
const LIKES_MS: u64 = 900;
/// Acts of one moderator in a second.
const ACTS_PER_SECOND: u32 = 10;
/// Milliseconds between two questions who is here.
const WHO_MS: u64 = 2_000;
/// What a moderator may say more.
const TRUSTED_FACTOR: u64 = 10;

/// What one user has said lately.
#[derive(Debug, Clone, Default)]
pub(crate) struct Allowance {
    /// When the last messages were taken; 0 where there were fewer.
    chats_ms: [u64; CHAT_RATE as usize],
    /// Text, client id and time of the last message.
    last: Option<(u64, u64, u64)>,
    gifts: (u64, u32),
    acts: (u64, u32),
    likes_ms: u64,
    who_ms: u64,
}

/// Why a message is not taken now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    /// Too many; again after so many milliseconds.
    TooMany(u32),
    /// The same text; again after so many milliseconds.
    Same(u32),
}

impl Allowance {
    /// Takes a message. One with the client id of the last is a repetition, which the home knows.
    pub(crate) fn chat(
        &mut self,
        now_ms: u64,
        trusted: bool,
        cid: &str,
        text: &str,
    ) -> Result<(), Denied> {
        // Time begins above zero, which stands for never.
        let now_ms = now_ms + RATE_MS;
        let (cid, text) = (hash(cid), hash(text));
        if self.last.is_some_and(|(_, last, _)| last == cid) {
            return Ok(());
        }
        let factor = if trusted { TRUSTED_FACTOR } else { 1 };
        let newest = self.chats_ms[self.chats_ms.len() - 1];
        let floor = newest + u64::from(CHAT_MS) / factor;
        let rate = self.chats_ms[0] + RATE_MS / factor;
        let free = floor.max(rate);
        if newest > 0 && now_ms < free {
            return Err(Denied::TooMany(u32::try_from(free - now_ms).unwrap_or(u32::MAX)));
        }
        if let Some((same, _, at)) = self.last
            && same == text
            && !trusted
            && now_ms < at + SAME_MS
        {
            return Err(Denied::Same(u32::try_from(at + SAME_MS - now_ms).unwrap_or(u32::MAX)));
        }
        self.chats_ms.rotate_left(1);
        self.chats_ms[CHAT_RATE as usize - 1] = now_ms;
        self.last = Some((text, cid, now_ms));
        Ok(())
    }

    /// Takes a gift.
    pub(crate) fn gift(&mut self, now_ms: u64) -> Result<(), Denied> {
        in_second(&mut self.gifts, GIFTS_PER_SECOND, now_ms)
    }

    /// Takes an act of a moderator.
    pub(crate) fn act(&mut self, now_ms: u64) -> Result<(), Denied> {
        in_second(&mut self.acts, ACTS_PER_SECOND, now_ms)
    }

    /// Takes a question who is here.
    pub(crate) fn who(&mut self, now_ms: u64) -> Result<(), Denied> {
        let now_ms = now_ms + WHO_MS;
        let left_ms = (self.who_ms + WHO_MS).saturating_sub(now_ms);
        if left_ms > 0 {
            return Err(Denied::TooMany(u32::try_from(left_ms).unwrap_or(u32::MAX)));
        }
        self.who_ms = now_ms;
        Ok(())
    }

    /// How many of these likes count.
    pub(crate) fn likes(&mut self, now_ms: u64, n: u32) -> u32 {
        let now_ms = now_ms + LIKES_MS;
        if now_ms < self.likes_ms + LIKES_MS {
            return 0;
        }
        self.likes_ms = now_ms;
        n.min(MAX_LIKES)
    }
}

/// Takes one of so many in a second.
fn in_second((second, count): &mut (u64, u32), limit: u32, now_ms: u64) -> Result<(), Denied> {
    if *second != now_ms / 1000 {
        (*second, *count) = (now_ms / 1000, 0);
    }
    if *count >= limit {
        return Err(Denied::TooMany(1000));
    }
    *count += 1;
    Ok(())
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_says_five_things_in_ten_seconds_one_a_second() {
        let mut user = Allowance::default();
        let mut said = 0;
        for ms in (0..20_000).step_by(100) {
            said += u32::from(user.chat(ms, false, &format!("c{ms}"), &format!("t{ms}")).is_ok());
        }
        assert_eq!(said, 10);
        let mut user = Allowance::default();
        assert_eq!(user.chat(0, false, "a", "x"), Ok(()));
        assert_eq!(user.chat(300, false, "b", "y"), Err(Denied::TooMany(700)));
        assert_eq!(user.chat(300, false, "a", "x"), Ok(()), "a repetition is the home's to answer");
        assert_eq!(user.chat(2_000, false, "c", "x"), Err(Denied::Same(28_000)));
        assert_eq!(user.chat(30_000, false, "c", "x"), Ok(()));
        assert_eq!(user.chat(30_100, true, "d", "x"), Ok(()), "moderators may more");
    }

    #[test]
    fn likes_beyond_the_limit_count_nothing() {
        let mut user = Allowance::default();
        assert_eq!((user.likes(0, 17), user.likes(500, 9), user.likes(1_000, 70)), (17, 0, 50));
    }

    #[test]
    fn gifts_are_ten_a_second() {
        let mut user = Allowance::default();
        assert_eq!((0..20).filter(|_| user.gift(5_000).is_ok()).count(), 10);
        assert!(user.gift(6_000).is_ok());
        assert_eq!((0..20).filter(|_| user.act(5_000).is_ok()).count(), 10);
        assert_eq!((user.who(0), user.who(500)), (Ok(()), Err(Denied::TooMany(1_500))));
        assert!(user.who(2_000).is_ok());
    }
}
