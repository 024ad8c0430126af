//! Signals: when to stop, when to stop at once, when to read the configuration again.
//!
//! In: SIGTERM, SIGINT, SIGHUP. Out: a token that ends accepting and begins draining, and a count of
//! reloads. The first stop signal drains, the second ends the process there and then. What draining
//! means is each role's own business; how long it may take is [`drained`]'s caller's.

use std::{future::Future, time::Duration};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// The exit code of a stop that was forced by a second signal.
pub const FORCED_EXIT_CODE: i32 = 1;
/// Stop signals this soon after the first are the same one: `timeout` and terminals signal both the
/// process and its group.
pub const SAME_SIGNAL: Duration = Duration::from_secs(1);

/// What the operator has asked for so far.
#[derive(Clone)]
pub struct Signals {
    /// Cancelled by the first SIGTERM or SIGINT.
    pub stop: CancellationToken,
    /// Counts SIGHUPs.
    pub reloads: watch::Receiver<u64>,
}

impl Signals {
    /// Starts listening for signals; from here on they no longer end the process by themselves.
    ///
    /// # Errors
    /// If the operating system does not let us.
    pub fn listen() -> std::io::Result<Self> {
        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        let mut hup = signal(SignalKind::hangup())?;
        let stop = CancellationToken::new();
        let (count, reloads) = watch::channel(0);
        let token = stop.clone();
        // Lives as long as the process: it is what ends it.
        tokio::spawn(async move {
            let mut first = None;
            loop {
                tokio::select! {
                    name = either(&mut term, &mut int) => match Asked::by_signal(&mut first, Instant::now()) {
                        Asked::Stop => {
                            tracing::info!(signal = name, "stopping: accepting nothing new, finishing what is in flight");
                            token.cancel();
                        }
                        Asked::Nothing => {}
                        Asked::StopNow => {
                            tracing::warn!(signal = name, "second stop signal: leaving without waiting for what is in flight");
                            std::process::exit(FORCED_EXIT_CODE);
                        }
                    },
                    Some(()) = hup.recv() => count.send_modify(|n| *n += 1),
                }
            }
        });
        Ok(Self { stop, reloads })
    }
}

/// Waits for `drain` for at most `grace`; whether it ended by itself.
pub async fn drained(grace: Duration, drain: impl Future<Output = ()>) -> bool {
    tokio::time::timeout(grace, drain).await.is_ok()
}

async fn either(term: &mut Signal, int: &mut Signal) -> &'static str {
    tokio::select! {
        _ = term.recv() => "SIGTERM",
        _ = int.recv() => "SIGINT",
    }
}

/// What a stop signal asks for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Stop,
    Nothing,
    StopNow,
}

impl Asked {
    fn by_signal(first: &mut Option<Instant>, now: Instant) -> Self {
        match first {
            None => {
                *first = Some(now);
                Self::Stop
            }
            Some(at) if now.duration_since(*at) < SAME_SIGNAL => Self::Nothing,
            Some(_) => Self::StopNow,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_signal_forces_but_an_echo_does_not() {
        let (mut first, start) = (None, Instant::now());
        assert_eq!(Asked::by_signal(&mut first, start), Asked::Stop);
        assert_eq!(Asked::by_signal(&mut first, start + SAME_SIGNAL / 2), Asked::Nothing);
        assert_eq!(Asked::by_signal(&mut first, start + SAME_SIGNAL), Asked::StopNow);
    }

    #[tokio::test(start_paused = true)]
    async fn draining_is_bounded() {
        let grace = Duration::from_secs(10);
        assert!(drained(grace, tokio::time::sleep(Duration::from_secs(9))).await);
        assert!(!drained(grace, std::future::pending()).await);
    }
}
