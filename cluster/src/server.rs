//! What a control node answers over QUIC: questions, watches, Raft.
//!
//! In: streams of other nodes. Out: answers. Questions that need no leader are answered from the
//! view; all others go to the driver, which refuses with a hint when it does not lead. A stream
//! carries one question at a time; a client with more to ask opens more streams.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use tokio::sync::oneshot;
use wire::control::{
    Answer, Ask, MAX_ASK_BYTES, MAX_PAGE, Refusal, Request, Response, WatchAsk, WatchEvent,
};
use wire::service::Serving;
use wire::{NodeId, Peer, Service, Stream, StreamKind};

use crate::runtime::Call;
use crate::transport::Transport;
use crate::view::View;

/// The answering side of a control node, for clients in the same process and behind streams.
#[derive(Clone)]
pub(crate) struct Core {
    pub(crate) view: Arc<View>,
    pub(crate) calls: SyncSender<Call>,
}

impl Core {
    /// Answers a question of `peer`.
    pub(crate) async fn answer(&self, peer: &NodeId, ask: Ask) -> Result<Answer, Refusal> {
        match ask {
            Ask::Locate { .. } | Ask::Rooms { .. } | Ask::Bars { .. } if !self.view.is_ready() => {
                Err(Refusal::Unavailable("this control node knows nothing yet".to_owned()))
            }
            Ask::Locate { room } => Ok(Answer::Location(self.view.locate(&room))),
            Ask::Rooms { after, limit } => {
                let limit = usize::from(limit.min(MAX_PAGE));
                let (revision, rooms) = self.view.rooms(after.as_ref(), limit);
                Ok(Answer::Rooms { revision, rooms })
            }
            Ask::Bars { after, limit } => {
                let limit = usize::from(limit.min(MAX_PAGE));
                Ok(Answer::Bars(self.view.bars(after.as_ref(), limit)))
            }
            ask => {
                let (reply, answer) = oneshot::channel();
                let call = Call::Ask { peer: peer.clone(), ask, reply };
                self.calls
                    .try_send(call)
                    .map_err(|_| Refusal::Overloaded("the control node's queue".to_owned()))?;
                answer
                    .await
                    .map_err(|_| Refusal::Unavailable("the control node restarts".to_owned()))?
            }
        }
    }
}

/// The service of control, watch and raft streams.
pub(crate) struct ControlService {
    pub(crate) core: Core,
    pub(crate) transport: Arc<Transport>,
}

impl Service for ControlService {
    fn kinds(&self) -> &'static [StreamKind] {
        &[StreamKind::Control, StreamKind::Watch, StreamKind::Raft]
    }

    fn serve(self: Arc<Self>, peer: Arc<Peer>, stream: Stream) -> Serving {
        Box::pin(async move {
            let served = match stream.kind {
                StreamKind::Control => self.serve_questions(&peer, stream).await,
                StreamKind::Watch => self.serve_watch(stream).await,
                StreamKind::Raft => {
                    self.transport.receive(&peer, stream.receiver).await;
                    Ok(())
                }
                _ => Ok(()),
            };
            if let Err(error) = served {
                tracing::debug!(node = %peer.node(), %error, "control stream ended");
            }
        })
    }
}

impl ControlService {
    async fn serve_questions(&self, peer: &Peer, stream: Stream) -> Result<(), wire::Error> {
        let (mut sender, mut receiver) = stream.both()?;
        while let Some(request) = receiver.read_message::<Request>(MAX_ASK_BYTES).await? {
            let Request { id, ask } = request;
            let answer = self.core.answer(peer.node(), ask).await;
            sender.write_message(&Response { id, answer }).await?;
        }
        sender.finish();
        Ok(())
    }

    async fn serve_watch(&self, stream: Stream) -> Result<(), wire::Error> {
        let (mut sender, mut receiver) = stream.both()?;
        if !self.core.view.is_ready() {
            // Nothing to watch here; the end of the stream sends the watcher elsewhere.
            sender.finish();
            return Ok(());
        }
        let watcher = self.core.view.watch();
        loop {
            tokio::select! {
                ask = receiver.read_message::<WatchAsk>(MAX_ASK_BYTES) => match ask? {
                    None => return Ok(()),
                    Some(WatchAsk::Unsubscribe { room }) => watcher.unsubscribe(&room),
                    Some(WatchAsk::Subscribe { room }) => {
                        if !watcher.subscribe(room.clone()) {
                            sender.write_message(&WatchEvent::Refused { room }).await?;
                        }
                    }
                },
                events = watcher.next() => {
                    for event in events {
                        sender.write_message(&event).await?;
                    }
                }
            }
        }
    }
}
