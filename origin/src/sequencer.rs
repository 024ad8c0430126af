//! A room's interaction at its home: orders what is said, and keeps what must not be lost.
//!
//! ```text
//!  edges ─▶ streams ─▶ task ─▶ core ─▶ task ─▶ streams ─▶ edges
//!                              order, rules, counts
//!                       └────▶ ledger ─────┘ gifts, events
//! ```
//!
//! [`core`] is pure: what may be said, in which order, and who is told. [`task`] runs one room; this file
//! takes the streams of edges and the calls of the API to it. [`filter`] knows the words that may not be
//! said, [`list`] the file they stand in. [`ledger`] is what this needs of the place where gifts and
//! events are kept.

mod core;
pub mod filter;
pub mod ledger;
mod list;
mod metrics;
mod task;

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use prost::Message as _;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::{Instrument, debug, debug_span};
use wire::endpoint::Peer;
use wire::room::relay::{
    Act, Enter, FromHome, MAX_ENTER_BYTES, MAX_MESSAGE_BYTES, SILENCE_MS, Say, Saying, ToHome,
    Verdict,
};
use wire::room::{Role, User};
use wire::service::{Service, Serving, Stream, StreamKind};
use wire::stream::{Receiver, Sender};
use wire::{NodeId, RoomId};

pub use self::core::Figures;
use self::core::{Rules, Undone};
pub(crate) use self::metrics::Metrics;
use self::task::{EDGE_QUEUE, INBOX, Input, Task};
use crate::error::Error;
use crate::registry::{Place, Registry};
use crate::room::Room;

/// How long an edge may take to say which room it wants.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the API waits for a room's answer: a gift is on its way to a disk.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// What an operator may set about rooms.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Whether gifts need no order of a shop.
    pub open_gifts: bool,
    /// Who checks the orders of a shop, where there is one.
    pub shop: Option<Arc<dyn ledger::Shop>>,
    /// The file with the words that may not be said.
    pub filter: Option<PathBuf>,
    /// Where gifts and events are kept.
    pub ledger: Option<ledger::Handle>,
}

/// Why a call about a room's interaction has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unheard {
    /// The room's home is another node.
    #[error("the room's home is {0}")]
    Elsewhere(NodeId),
    /// The room cannot be opened now.
    #[error("the room cannot be opened now; try again in a moment")]
    Unavailable,
    /// It cannot be done, for the reason given.
    #[error("{0}")]
    Refused(&'static str),
}

/// All rooms ordered at this node.
#[derive(Debug)]
pub(crate) struct Sequencers {
    registry: Arc<Registry>,
    rooms: DashMap<RoomId, mpsc::Sender<Input>>,
    ledger: Option<ledger::Handle>,
    rules: watch::Sender<Rules>,
    metrics: Arc<Metrics>,
    next_edge: AtomicU64,
    tasks: TaskTracker,
    _list: Option<AbortOnDropHandle<()>>,
}

impl Sequencers {
    pub(crate) fn new(config: Config, registry: Arc<Registry>, metrics: Metrics) -> Arc<Self> {
        let metrics = Arc::new(metrics);
        let rules = Rules { open_gifts: config.open_gifts, shop: config.shop, ..Rules::default() };
        let rules = watch::Sender::new(rules);
        let follow = |file| list::follow(file, rules.clone(), Arc::clone(&metrics));
        let list = config.filter.map(|file| AbortOnDropHandle::new(tokio::spawn(follow(file))));
        Arc::new(Self {
            registry,
            rooms: DashMap::new(),
            ledger: config.ledger,
            rules,
            metrics,
            next_edge: AtomicU64::new(core::API + 1),
            tasks: TaskTracker::new(),
            _list: list,
        })
    }

    /// Says something in a room in the name of the application. The same `cid` again is the same.
    pub(crate) async fn post(
        self: &Arc<Self>,
        room: &RoomId,
        cid: String,
        user: User,
        what: Saying,
    ) -> Result<Verdict, Unheard> {
        let address = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let user = user.encode_to_vec().into();
        let say = Say { request: 0, user, address, cid, what };
        self.ask(room, |answer| Input::Post(Box::new(say), answer)).await
    }

    /// Moderates a room.
    pub(crate) async fn act(
        self: &Arc<Self>,
        room: &RoomId,
        by: &str,
        act: Act,
    ) -> Result<(), Unheard> {
        let by = by.to_owned();
        let done = self.ask(room, |answer| Input::Act(by, act, answer)).await?;
        done.map_err(|undone| match undone {
            Undone::Wrong(why) => Unheard::Refused(why),
            Undone::Later => Unheard::Unavailable,
        })
    }

    /// What goes on in a room; none unless its interaction is ordered here.
    pub(crate) async fn figures(&self, room: &RoomId) -> Option<Figures> {
        let (answer, figures) = oneshot::channel();
        self.inbox(room)?.send(Input::Figures(answer)).await.ok()?;
        tokio::time::timeout(ANSWER_TIMEOUT, figures).await.ok()?.ok()
    }

    async fn ask<T>(
        self: &Arc<Self>,
        room: &RoomId,
        input: impl FnOnce(oneshot::Sender<T>) -> Input,
    ) -> Result<T, Unheard> {
        let inbox = match self.open(room, true).await {
            Ok(inbox) => inbox,
            Err(FromHome::NotHome { hint: Some(home) }) => return Err(Unheard::Elsewhere(home)),
            Err(_) => return Err(Unheard::Unavailable),
        };
        let (answer, answered) = oneshot::channel();
        inbox.send(input(answer)).await.map_err(|_| Unheard::Unavailable)?;
        match tokio::time::timeout(ANSWER_TIMEOUT, answered).await {
            Ok(Ok(answer)) => Ok(answer),
            _ => Err(Unheard::Unavailable),
        }
    }

    fn inbox(&self, room: &RoomId) -> Option<mpsc::Sender<Input>> {
        self.rooms.get(room).map(|inbox| inbox.clone()).filter(|inbox| !inbox.is_closed())
    }

    /// The room's task, begun if it does not run; or what to answer instead.
    async fn open(
        self: &Arc<Self>,
        id: &RoomId,
        may_open: bool,
    ) -> Result<mpsc::Sender<Input>, FromHome> {
        if let Some(inbox) = self.inbox(id) {
            return Ok(inbox);
        }
        let room = match self.registry.get(id) {
            Some(room) => room,
            None => match self.registry.open(id, may_open).await {
                Ok(Some(Place::Here(room))) => room,
                Ok(Some(Place::There(grant))) => {
                    return Err(FromHome::NotHome { hint: Some(grant.home) });
                }
                Ok(None) => return Err(FromHome::NoRoom),
                Err(_) => return Err(FromHome::Busy),
            },
        };
        Ok(self.begin(room))
    }

    fn begin(self: &Arc<Self>, room: Arc<Room>) -> mpsc::Sender<Input> {
        let (inbox, taken) = mpsc::channel(INBOX);
        match self.rooms.entry(room.id().clone()) {
            Entry::Occupied(known) if !known.get().is_closed() => return known.get().clone(),
            Entry::Occupied(mut over) => drop(over.insert(inbox.clone())),
            Entry::Vacant(free) => drop(free.insert(inbox.clone())),
        }
        self.metrics.rooms.inc();
        self.tasks.spawn(Task::new(self, room, taken).run());
        inbox
    }

    /// The task of the room is over.
    fn forget(&self, room: &RoomId, inbox: &mut mpsc::Receiver<Input>) {
        self.metrics.rooms.dec();
        // Closed before, it would have a successor, whose channel is open.
        inbox.close();
        self.rooms.remove_if(room, |_, known| known.is_closed());
    }

    /// Serves one edge in one room until either side ends it.
    async fn carry(
        self: Arc<Self>,
        mut sender: Sender,
        mut receiver: Receiver,
    ) -> Result<(), Error> {
        let enter: Enter = receiver.read_answer(MAX_ENTER_BYTES, REQUEST_TIMEOUT).await?;
        let inbox = match self.open(&enter.room, enter.open).await {
            Ok(inbox) => inbox,
            Err(answer) => {
                sender.write_message(&answer).await?;
                sender.finish();
                return Ok(());
            }
        };
        let edge = self.next_edge.fetch_add(1, Ordering::Relaxed);
        let (queue, mut queued) = mpsc::channel(EDGE_QUEUE);
        if inbox.send(Input::Enter(edge, enter, queue)).await.is_err() {
            sender.write_message(&FromHome::Busy).await?;
            sender.finish();
            return Ok(());
        }
        let silence = Duration::from_millis(SILENCE_MS);
        let mut heard = Instant::now();
        let ended = loop {
            tokio::select! {
                said = receiver.read_message::<ToHome>(MAX_MESSAGE_BYTES) => match said {
                    Ok(Some(said)) => {
                        heard = Instant::now();
                        if inbox.send(Input::Hear(edge, said)).await.is_err() {
                            break Ok(());
                        }
                    }
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error.into()),
                },
                bytes = queued.recv() => match bytes {
                    Some(bytes) => if let Err(error) = sender.write_frame(bytes).await {
                        break Err(error.into());
                    },
                    None => {
                        sender.finish();
                        break Ok(());
                    }
                },
                () = sleep_until(heard + silence) => break Ok(()),
            }
        };
        let _ = inbox.send(Input::Leave(edge)).await;
        ended
    }
}

impl Service for Sequencers {
    fn kinds(&self) -> &'static [StreamKind] {
        &[StreamKind::RoomEvents]
    }

    fn serve(self: Arc<Self>, peer: Arc<Peer>, stream: Stream) -> Serving {
        let span = debug_span!("room_events", peer = %peer.node());
        Box::pin(
            async move {
                let served = match stream.both() {
                    Ok((sender, receiver)) => self.carry(sender, receiver).await,
                    Err(error) => Err(error.into()),
                };
                if let Err(error) = served {
                    debug!(%error, "an edge's stream ended");
                }
            }
            .instrument(span),
        )
    }
}

/// A gift the ledger has, as it was asked for.
fn say_again(gift: &ledger::Gift) -> Say {
    let role = [Role::Member, Role::Mod, Role::Host]
        .into_iter()
        .find(|role| format!("{role:?}").eq_ignore_ascii_case(&gift.role))
        .unwrap_or(Role::Guest);
    let user = User { id: gift.uid.clone(), n: gift.name.clone(), r: role.into(), lv: None };
    let (name, count, order) = (gift.gift.clone(), gift.count, gift.order.clone());
    Say {
        request: 0,
        user: user.encode_to_vec().into(),
        address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        cid: gift.cid.clone(),
        what: Saying::Gift { gift: name, count, order },
    }
}
