//! An accepted publish: the way of its messages from the connection to the room, and of a kick back.
//!
//! In, at the connection: [`Publication`]. Out, at the room: [`Intake`]. Between them a queue bounded
//! in messages and bytes; when it is full the connection stops reading, and TCP slows the encoder
//! down. Dropping either end ends the publish.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::{
    OwnedSemaphorePermit, Semaphore,
    mpsc::{self, error::TrySendError},
    watch,
};

use super::Refusal;

/// How many messages may wait for the room: about 4 s of 60 fps video with its audio. When full the
/// connection waits.
pub const QUEUE_MESSAGES: usize = 512;
/// How many bytes may wait for the room: two messages of the largest size. When full the connection
/// waits.
pub const QUEUE_BYTES: usize = 16 * 1024 * 1024;

/// What a publisher sends, as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IngestMessage {
    /// A video message.
    Video {
        /// Milliseconds modulo 2^32 on the encoder's clock.
        timestamp_ms: u32,
        /// The body of an FLV video tag, legacy or enhanced RTMP.
        payload: Bytes,
    },
    /// An audio message.
    Audio {
        /// Milliseconds modulo 2^32 on the encoder's clock.
        timestamp_ms: u32,
        /// The body of an FLV audio tag, legacy or enhanced RTMP.
        payload: Bytes,
    },
    /// `onMetaData`.
    Metadata {
        /// Milliseconds modulo 2^32 on the encoder's clock.
        timestamp_ms: u32,
        /// The body of an FLV script tag: the name `onMetaData` and its value, readable by
        /// [`media::amf0::read_all`].
        payload: Bytes,
    },
    /// Not the encoder's: the message after this one has this number among those of its push. Those
    /// before the first such word only repeat what must be known of earlier ones.
    Numbered {
        /// The number.
        next: u64,
    },
}

impl IngestMessage {
    /// Bytes of the payload.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        match self {
            Self::Video { payload, .. }
            | Self::Audio { payload, .. }
            | Self::Metadata { payload, .. } => payload.len(),
            Self::Numbered { .. } => 0,
        }
    }
}

/// How a publish ended, as the connection saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The encoder said so (`deleteStream`, `FCUnpublish`, `closeStream`).
    Unpublished,
    /// The connection was closed or broke.
    Disconnected,
    /// The encoder sent no media for too long.
    Silent,
    /// The encoder broke the protocol or a limit.
    BadInput,
    /// The room took no message in time.
    RoomStalled,
    /// The room kicked it, or dropped its intake.
    Kicked,
    /// The node is shutting down.
    ShuttingDown,
}

/// The connection's end.
#[derive(Debug)]
pub struct Publication {
    messages: mpsc::Sender<Queued>,
    bytes: Arc<Semaphore>,
    kick: watch::Receiver<Option<Refusal>>,
    end: Arc<OnceLock<End>>,
}

/// The room's end.
#[derive(Debug)]
pub struct Intake {
    messages: mpsc::Receiver<Queued>,
    kicker: Kicker,
    end: Arc<OnceLock<End>>,
}

/// Ends a publish from anywhere in the home.
#[derive(Debug, Clone)]
pub struct Kicker(watch::Sender<Option<Refusal>>);

/// Why a message did not reach the room.
#[derive(Debug, PartialEq, Eq)]
pub enum Undelivered {
    /// The room wants the publish to end.
    Kicked(Refusal),
    /// The queue stayed full.
    TimedOut,
}

type Queued = (IngestMessage, OwnedSemaphorePermit);

impl Publication {
    /// Both ends of a new publication.
    #[must_use]
    pub fn new() -> (Self, Intake) {
        let (sender, receiver) = mpsc::channel(QUEUE_MESSAGES);
        let (kick_sender, kick) = watch::channel(None);
        let end = Arc::new(OnceLock::new());
        let bytes = Arc::new(Semaphore::new(QUEUE_BYTES));
        let publication = Self { messages: sender, bytes, kick, end: Arc::clone(&end) };
        let intake = Intake { messages: receiver, kicker: Kicker(kick_sender), end };
        (publication, intake)
    }

    /// Queues a message, waiting at most `within` for room in the queue.
    ///
    /// # Errors
    /// [`Undelivered`] if the room wants the publish to end, or takes nothing.
    pub async fn send(
        &mut self,
        message: IngestMessage,
        within: Duration,
    ) -> Result<(), Undelivered> {
        let bytes = u32::try_from(message.payload_bytes().min(QUEUE_BYTES)).unwrap_or(u32::MAX);
        let Self { messages, bytes: budget, kick, .. } = self;
        // Almost always there is room, and nothing is to be waited for.
        let permit = match Arc::clone(budget).try_acquire_many_owned(bytes) {
            Ok(permit) => match messages.try_send((message, permit)) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full(queued)) => Err(queued),
                Err(TrySendError::Closed(_)) => {
                    return Err(Undelivered::Kicked(kicked(kick, messages).await));
                }
            },
            Err(_) => Ok(message),
        };
        let queued = async {
            let queued = match permit {
                Err(queued) => queued,
                // The semaphore is never closed; were it, the queue would be too.
                Ok(message) => match Arc::clone(budget).acquire_many_owned(bytes).await {
                    Ok(permit) => (message, permit),
                    Err(_) => return false,
                },
            };
            messages.send(queued).await.is_ok()
        };
        tokio::select! {
            biased;
            refusal = kicked(kick, messages) => Err(Undelivered::Kicked(refusal)),
            true = queued => Ok(()),
            () = tokio::time::sleep(within) => Err(Undelivered::TimedOut),
        }
    }

    /// Waits until the room wants the publish to end, or its intake is gone.
    pub async fn kicked(&mut self) -> Refusal {
        kicked(&mut self.kick, &self.messages).await
    }

    /// Tells the room how the publish ended.
    pub fn end(self, end: End) {
        // The first word counts.
        let _ = self.end.set(end);
    }
}

/// A kick, or the end of the intake, which is one too.
async fn kicked(
    kick: &mut watch::Receiver<Option<Refusal>>,
    messages: &mpsc::Sender<Queued>,
) -> Refusal {
    let kicked = async {
        match kick.wait_for(Option::is_some).await {
            Ok(refusal) => refusal.clone(),
            // All kickers are gone, and so is the intake, which held one.
            Err(_) => None,
        }
    };
    let refusal = tokio::select! {
        biased;
        refusal = kicked => refusal,
        () = messages.closed() => None,
    };
    refusal.unwrap_or_else(|| Refusal::unavailable("the room was closed; connect again"))
}

impl Intake {
    /// The next message; `None` when the publish is over, see [`Intake::end`].
    pub async fn recv(&mut self) -> Option<IngestMessage> {
        self.messages.recv().await.map(|(message, _)| message)
    }

    /// The next message if one is there.
    pub fn try_recv(&mut self) -> Option<IngestMessage> {
        self.messages.try_recv().ok().map(|(message, _)| message)
    }

    /// How the publish ended, once [`Intake::recv`] gave `None`.
    #[must_use]
    pub fn end(&self) -> End {
        self.end.get().copied().unwrap_or(End::Disconnected)
    }

    /// Ends the publish: the encoder is told why and disconnected. The first kick counts.
    pub fn kick(&self, refusal: Refusal) {
        self.kicker.kick(refusal);
    }

    /// A handle that can end the publish, to be kept elsewhere.
    #[must_use]
    pub fn kicker(&self) -> Kicker {
        self.kicker.clone()
    }
}

impl Kicker {
    /// Waits until the publish is over at the connection.
    pub async fn released(&self) {
        self.0.closed().await;
    }

    /// As [`Intake::kick`].
    pub fn kick(&self, refusal: Refusal) {
        self.0.send_if_modified(|kick| {
            let first = kick.is_none();
            kick.get_or_insert(refusal);
            first
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn video(bytes: usize) -> IngestMessage {
        IngestMessage::Video { timestamp_ms: 1, payload: Bytes::from(vec![0; bytes]) }
    }

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn messages_come_in_order_and_the_end_after_them() {
        let (mut publication, mut intake) = Publication::new();
        for bytes in 0..3 {
            assert_eq!(publication.send(video(bytes), LONG).await, Ok(()));
        }
        publication.end(End::Unpublished);
        for bytes in 0..3 {
            assert_eq!(intake.recv().await, Some(video(bytes)));
        }
        assert_eq!((intake.recv().await, intake.end()), (None, End::Unpublished));
    }

    #[tokio::test]
    async fn a_dropped_connection_is_a_disconnect() {
        let (publication, mut intake) = Publication::new();
        drop(publication);
        assert_eq!((intake.recv().await, intake.end()), (None, End::Disconnected));
    }

    #[tokio::test(start_paused = true)]
    async fn the_queue_is_bounded_in_messages_and_bytes() {
        for (bytes, expected) in [(0, QUEUE_MESSAGES), (QUEUE_BYTES / 2, 2)] {
            let (mut publication, mut intake) = Publication::new();
            let mut sent = 0;
            while publication.send(video(bytes), LONG).await == Ok(()) {
                sent += 1;
            }
            assert_eq!(sent, expected);
            assert_eq!(publication.send(video(bytes), LONG).await, Err(Undelivered::TimedOut));
            // What is taken makes room, also for one who waits already.
            let waiting = publication.send(video(bytes), LONG);
            let (queued, taken) = tokio::join!(waiting, intake.recv());
            assert_eq!((queued, taken), (Ok(()), Some(video(bytes))));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_kick_ends_the_wait_for_a_full_queue() {
        let (mut publication, intake) = Publication::new();
        while publication.send(video(0), LONG).await == Ok(()) {}
        intake.kick(Refusal::kicked("enough"));
        let expected = Err(Undelivered::Kicked(Refusal::kicked("enough")));
        assert_eq!(publication.send(video(0), LONG).await, expected);
    }

    #[tokio::test]
    async fn the_first_kick_counts_and_a_dropped_intake_is_one() {
        let (mut publication, intake) = Publication::new();
        let kicker = intake.kicker();
        kicker.kick(Refusal::kicked("first"));
        intake.kick(Refusal::kicked("second"));
        drop((intake, kicker));
        assert_eq!(publication.kicked().await, Refusal::kicked("first"));

        let (mut publication, intake) = Publication::new();
        let kicker = intake.kicker();
        drop(intake);
        assert_eq!(publication.kicked().await.reason, "unavailable", "though a kicker is left");
        drop(kicker);
        assert_eq!(publication.kicked().await.reason, "unavailable");
        let sent = publication.send(video(1), LONG).await;
        assert!(matches!(sent, Err(Undelivered::Kicked(_))), "{sent:?}");
    }
}
