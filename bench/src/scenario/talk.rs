//! What room members do besides reading: talk, like, give, lose their connection.
//!
//! In: options. Out: a checked [`Talk`]. The rates are a room's; which member is next is in turn, so that
//! no member says more than the rooms' limits allow one user.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::Options;

/// Messages a second one user may say for long: five in ten seconds.
const CHATS_PER_USER: f64 = 0.5;
/// Frames of likes a second one user may send.
const LIKES_PER_USER: f64 = 1.0;
/// Gifts a second one user may give.
const GIFTS_PER_USER: f64 = 10.0;
/// Text of a message where nothing is said: with what the protocol puts around it, 200 bytes.
const CHAT_BYTES: usize = 60;
/// The shortest text: it carries a time and a number.
const MIN_CHAT_BYTES: usize = 40;
/// The longest text that rooms take, in ASCII.
const MAX_CHAT_BYTES: usize = 200;
/// The longest message to servers of other makes.
const MAX_PLAIN_BYTES: usize = 4096;
/// A client's first pause before it connects again, all of it jitter.
const STORM_SPREAD: f64 = 0.5;

/// How members speak.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// `tidewater.v1.json`.
    #[default]
    Json,
    /// `tidewater.v1.pb`.
    Pb,
    /// Bare messages without a hello, which a server repeats to all: for servers of other makes.
    Plain,
}

/// What members do.
#[derive(Debug, Clone, PartialEq)]
pub struct Talk {
    /// How they speak.
    pub form: Form,
    /// Path of the WebSocket.
    pub path: String,
    /// Messages a second in a room.
    pub chat_rate: f64,
    /// Messages on their way at a time in a room; 0 where the rate decides.
    pub chat_window: u32,
    /// Bytes of a message's text.
    pub chat_bytes: usize,
    /// Frames of likes a second in a room.
    pub like_rate: f64,
    /// Gifts a second in a room.
    pub gift_rate: f64,
    /// How long a connection holds.
    pub resume_every: Option<Duration>,
    /// When in the measurement all connections end, and over how long members come back.
    pub storm: Option<(Duration, Duration)>,
}

impl Talk {
    /// Checks what members are to do in `rooms` rooms.
    ///
    /// # Errors
    /// Which option does not go with which.
    pub fn new(options: &Options, rooms: u32) -> Result<Self> {
        let form = options.form.unwrap_or_default();
        let members = f64::from(options.members.unwrap_or(0) / rooms.max(1));
        let rate = |name: &str, rate: Option<f64>, each: f64| {
            let rate = rate.unwrap_or(0.0);
            ensure!(rate >= 0.0 && rate.is_finite(), "--{name} {rate}");
            let needed = if form == Form::Plain { rate.min(1.0) } else { rate / each };
            ensure!(
                needed <= members,
                "--{name} {rate}: it takes {needed:.0} members a room to stay within what one \
                 may send; raise --members or lower the rate"
            );
            Ok(rate)
        };
        let chat_bytes = options.chat_bytes.unwrap_or(CHAT_BYTES);
        let longest = if form == Form::Plain { MAX_PLAIN_BYTES } else { MAX_CHAT_BYTES };
        ensure!(
            (MIN_CHAT_BYTES..=longest).contains(&chat_bytes),
            "--chat-bytes {chat_bytes}: {MIN_CHAT_BYTES} to {longest}"
        );
        let chat_window = options.chat_window.unwrap_or(0);
        let chat_rate = rate("chat-rate", options.chat_rate, CHATS_PER_USER)?;
        ensure!(
            chat_window == 0 || chat_rate == 0.0,
            "--chat-window and --chat-rate: one of them says when the next message is sent"
        );
        ensure!(
            f64::from(chat_window) <= members,
            "--chat-window {chat_window}: there are not so many members in a room"
        );
        let seconds = |name: &str, value: Option<f64>| {
            let span = |v| Duration::try_from_secs_f64(v).with_context(|| format!("--{name} {v}"));
            value.map(span).transpose()
        };
        let spread = seconds("storm-spread", Some(options.storm_spread.unwrap_or(STORM_SPREAD)))?;
        Ok(Self {
            form,
            path: options.ws_path.clone().unwrap_or_else(|| "/ws".to_owned()),
            chat_rate,
            chat_window,
            chat_bytes,
            like_rate: rate("like-rate", options.like_rate, LIKES_PER_USER)?,
            gift_rate: rate("gift-rate", options.gift_rate, GIFTS_PER_USER)?,
            resume_every: seconds("resume-every", options.resume_every)?.filter(|s| !s.is_zero()),
            storm: seconds("storm-after", options.storm_after)?.zip(spread),
        })
    }

    /// Whether somebody says something that can be timed.
    #[must_use]
    pub fn chats(&self) -> bool {
        self.chat_rate > 0.0 || self.chat_window > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn talk(text: &str) -> Result<Talk> {
        Talk::new(&toml::from_str(text)?, 1)
    }

    #[test]
    fn what_no_member_may_do_is_refused() {
        let refused = |text: &str| talk(text).unwrap_err().to_string();
        assert!(refused("members = 30\nchat_rate = 20").contains("40 members"));
        assert!(refused("members = 9\nchat_rate = 1\nchat_window = 1").contains("--chat-window"));
        assert!(refused("members = 9\nchat_window = 10").contains("--chat-window 10"));
        assert!(refused("members = 9\nchat_bytes = 201").contains("40 to 200"));
        assert!(refused("members = 9\nlike_rate = -1").contains("--like-rate"));
        assert!(refused("members = 9\nresume_every = -1").contains("--resume-every"));
    }

    #[test]
    fn nothing_said_is_nothing_done() {
        let quiet = talk("members = 9\nresume_every = 0").unwrap();
        assert!(!quiet.chats() && quiet.storm.is_none() && quiet.resume_every.is_none());
        let storm = talk("members = 9\nstorm_after = 2").unwrap().storm.unwrap();
        assert_eq!(storm, (Duration::from_secs(2), Duration::from_millis(500)));
        assert!(talk("members = 1\nform = 'plain'\nchat_rate = 500").unwrap().chats());
    }
}
