//! One question, asked until it is answered: targets, streams, retries.
//!
//! In: questions. Out: answers. The control node in the same process is a target like the others.
//! Idle streams are kept for the next question, so that a heartbeat costs no new stream.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use parking_lot::Mutex;
use rand::Rng as _;
use rand::seq::SliceRandom as _;
use tokio::time::{Instant, sleep, timeout_at};
use wire::control::{Answer, Ask, MAX_ANSWER_BYTES, Refusal, Request, Response};
use wire::{Links, NodeId, Receiver, Sender, StreamKind};

use crate::Error;
use crate::metrics::Metrics;
use crate::server::Core;

/// How long a question is tried: a push is held for as long while placement is settling.
pub(crate) const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one control node may take over a question before it is put again, to whoever then
/// leads: a leader that died says nothing, and another is elected within about a second.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(1);
/// The same for a hand-over of leadership, which is answered when it is done or given up: 3 s.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(4);
/// The first pause between attempts; doubles up to [`MAX_PAUSE`], with jitter.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// See [`FIRST_PAUSE`].
const MAX_PAUSE: Duration = Duration::from_millis(400);
/// Hints followed without a pause, before it is taken that the control nodes do not agree.
const MAX_HINTS: u32 = 3;
/// Idle streams kept for one control node; further ones are finished.
const MAX_IDLE_STREAMS: usize = 8;

/// Who may answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum To {
    /// The leader alone.
    Leader,
    /// Anyone, the leader rather.
    LeaderFirst,
    /// Anyone, the nearest rather.
    Any,
}

pub(crate) type Target = (NodeId, SocketAddr);

/// The line to the control plane.
pub(crate) struct Line {
    me: NodeId,
    /// The one in this process first, then the others in an order of this client's own, so that
    /// clients do not all begin with the same.
    control: Vec<Target>,
    links: Links,
    local: Option<Core>,
    pub(crate) metrics: Metrics,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The leader by the last hint or answer.
    leader: Option<Target>,
    /// Which control node is asked when none is known to lead, and which may be when anyone may.
    /// Each moves on when its own fails.
    turn: usize,
    any_turn: usize,
    idle: HashMap<NodeId, Vec<(Sender, Receiver)>>,
}

impl Line {
    pub(crate) fn new(
        me: NodeId,
        mut control: Vec<Target>,
        links: Links,
        local: Option<Core>,
        metrics: Metrics,
    ) -> Self {
        control.shuffle(&mut rand::rng());
        control.sort_by_key(|(node, _)| local.is_none() || *node != me);
        Self { me, control, links, local, metrics, state: Mutex::default() }
    }

    /// Asks until there is an answer or a refusal that no one else would make better.
    pub(crate) async fn ask(&self, ask: Ask, to: To) -> Result<Answer, Error> {
        let deadline = Instant::now() + ASK_TIMEOUT;
        let (mut pause, mut hints) = (FIRST_PAUSE, 0);
        loop {
            let target = self.target(to);
            let attempt_deadline = deadline.min(Instant::now() + patience(&ask));
            let asked = timeout_at(attempt_deadline, self.attempt(&target, ask.clone())).await;
            let last = match asked {
                Ok(Ok(Ok(answer))) => {
                    if to == To::Leader {
                        self.note_leader(target);
                    }
                    return Ok(answer);
                }
                Ok(Ok(Err(refusal))) if !refusal.is_retryable() => return Err(refusal.into()),
                Ok(Ok(Err(refusal))) => {
                    if let Refusal::NotLeader { hint } = &refusal {
                        let fresh = self.note_hint(&target, hint.clone());
                        if fresh && hints < MAX_HINTS {
                            hints += 1;
                            continue;
                        }
                    }
                    // An empty control node, or one that restarts, stands in nobody's way.
                    if let Refusal::Unavailable(_) = &refusal {
                        self.note_failure(&target, String::new());
                    }
                    refusal.to_string()
                }
                Ok(Err(error)) => self.note_failure(&target, error.to_string()),
                Err(_) => self.note_failure(&target, "no answer in time".to_owned()),
            };
            self.metrics.attempts_failed.inc();
            tracing::debug!(node = %target.0, why = %last, "asking the control plane again");
            if Instant::now() + pause >= deadline {
                return Err(Error::TimedOut { after: ASK_TIMEOUT, last });
            }
            sleep(jittered(pause)).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    /// Whom to ask next.
    pub(crate) fn target(&self, to: To) -> Target {
        let state = self.state.lock();
        if to != To::Any
            && let Some(leader) = &state.leader
        {
            return leader.clone();
        }
        let turn = if to == To::Any { state.any_turn } else { state.turn };
        self.control[turn % self.control.len()].clone()
    }

    /// The control node in this process, if `node` is it.
    pub(crate) fn local(&self, node: &NodeId) -> Option<&Core> {
        self.local.as_ref().filter(|_| *node == self.me)
    }

    pub(crate) const fn links(&self) -> &Links {
        &self.links
    }

    /// A target failed: ask another one next.
    pub(crate) fn note_failure(&self, target: &Target, why: String) -> String {
        let mut state = self.state.lock();
        if state.leader.as_ref().is_some_and(|leader| leader == target) {
            state.leader = None;
        }
        let State { turn, any_turn, .. } = &mut *state;
        self.move_on(turn, target);
        self.move_on(any_turn, target);
        why
    }

    fn move_on(&self, turn: &mut usize, from: &Target) {
        if self.control[*turn % self.control.len()] == *from {
            *turn = turn.wrapping_add(1);
        }
    }

    /// A target answered as leader.
    pub(crate) fn note_leader(&self, target: Target) {
        self.state.lock().leader = Some(target);
    }

    /// A target says that another one leads. True if that is news.
    pub(crate) fn note_hint(&self, target: &Target, hint: Option<Target>) -> bool {
        let mut state = self.state.lock();
        let hint = hint.filter(|hint| hint.0 != target.0);
        if hint.is_none() {
            self.move_on(&mut state.turn, target);
        }
        let fresh = hint.is_some() && hint != state.leader;
        state.leader = hint;
        fresh
    }

    /// Asks one control node, once.
    pub(crate) async fn attempt(
        &self,
        target: &Target,
        ask: Ask,
    ) -> Result<Result<Answer, Refusal>, wire::Error> {
        let (node, addr) = target;
        if let Some(core) = self.local(node) {
            return Ok(core.answer(&self.me, ask).await);
        }
        let idle = self.state.lock().idle.get_mut(node).and_then(Vec::pop);
        if let Some(mut stream) = idle {
            // The stream may have ended with its connection; then a new one is tried at once.
            if let Ok(answer) = exchange(&mut stream, ask.clone()).await {
                self.keep(node, stream);
                return Ok(answer);
            }
            self.state.lock().idle.remove(node);
        }
        let peer = self.links.get(node, *addr).await?;
        let mut stream = peer.open_bi(StreamKind::Control).await?;
        let answer = exchange(&mut stream, ask).await?;
        self.keep(node, stream);
        Ok(answer)
    }

    fn keep(&self, node: &NodeId, mut stream: (Sender, Receiver)) {
        let mut state = self.state.lock();
        let idle = state.idle.entry(node.clone()).or_default();
        if idle.len() < MAX_IDLE_STREAMS {
            idle.push(stream);
        } else {
            stream.0.finish();
        }
    }
}

/// Asks a node once over a stream of its own.
pub(crate) async fn ask_once(
    links: &Links,
    node: &NodeId,
    addr: SocketAddr,
    ask: Ask,
) -> Result<Result<Answer, Refusal>, wire::Error> {
    let peer = links.get(node, addr).await?;
    let mut stream = peer.open_bi(StreamKind::Control).await?;
    let answer = exchange(&mut stream, ask).await?;
    stream.0.finish();
    Ok(answer)
}

async fn exchange(
    (sender, receiver): &mut (Sender, Receiver),
    ask: Ask,
) -> Result<Result<Answer, Refusal>, wire::Error> {
    let id = rand::random();
    let patience = patience(&ask);
    sender.write_message(&Request { id, ask }).await?;
    // An answer to a question that was given up may still be on its way, ahead of this one.
    loop {
        let response: Response = receiver.read_answer(MAX_ANSWER_BYTES, patience).await?;
        if response.id == id {
            return Ok(response.answer);
        }
    }
}

/// How long one control node may take over a question.
fn patience(ask: &Ask) -> Duration {
    match ask {
        Ask::TransferLeader { .. } => HAND_OVER_TIMEOUT,
        _ => ATTEMPT_TIMEOUT,
    }
}

/// A pause between half of `pause` and all of it, so that clients do not come back in step.
pub(crate) fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::rng().random_range(0.5..=1.0))
}
