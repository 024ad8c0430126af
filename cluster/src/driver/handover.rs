//! Handing leadership to another voter, until it has passed.
//!
//! In: who asked for it, ticks, changes of leadership. Out: transfers begun and begun again, and the
//! answers. Raft may drop a transfer without a word: the voter that shall take over does not stand
//! for election while it has a membership change to apply, and the leader gives up after an election
//! timeout. So the asker is kept, and the transfer tried again, for as long as this member leads.
//!
//! Does not decide that a leader shall go: an operator, a slow disk or a shutdown does.

use std::time::Duration;

use wire::NodeId;
use wire::control::{Answer, Refusal};

use super::{Driver, Leadership, Now, Outputs, Token};
use crate::storage::Disk;

/// How long leadership may take to pass: several election timeouts, each of which is one try.
const PATIENCE: Duration = Duration::from_secs(3);
/// Most askers kept at a time; a further one is refused as overloaded.
const MAX_ASKERS: usize = 64;

/// Who waits for leadership to pass.
#[derive(Debug, Default)]
pub(super) struct Handover {
    asked: Vec<Asked>,
}

#[derive(Debug)]
struct Asked {
    token: Token,
    /// The voter that shall lead; none for any other one.
    to: Option<NodeId>,
    deadline: Duration,
}

impl Handover {
    /// Answers those for whom `seen` decides the matter. An asker who wants a certain voter, while
    /// another one leads by now, is sent there.
    fn settle(&mut self, seen: &Leadership, out: &mut Outputs) {
        let Some(leader) = seen.leader.as_ref().filter(|_| !seen.is_leader) else { return };
        for Asked { token, to, .. } in self.asked.drain(..) {
            let passed = to.is_none_or(|to| to == leader.0);
            let hint = Some(leader.clone());
            out.replies.push((
                token,
                if passed { Ok(Answer::Done) } else { Err(Refusal::NotLeader { hint }) },
            ));
        }
    }

    /// Refuses those who have waited for too long.
    fn expire(&mut self, now: Duration, out: &mut Outputs) {
        self.asked.retain(|Asked { token, to, deadline }| {
            let keep = now < *deadline;
            if !keep {
                let to = to.as_ref().map_or("another voter".to_owned(), |to| format!("voter {to}"));
                let why = format!("leadership did not pass to {to} within {PATIENCE:?}");
                out.replies.push((*token, Err(Refusal::Unavailable(why))));
            }
            keep
        });
    }
}

impl<D: Disk> Driver<D> {
    /// Hands leadership to a voter, or to the one that is furthest. Answers once it leads.
    pub(super) fn hand_over(
        &mut self,
        now: Now,
        token: Token,
        to: Option<NodeId>,
        out: &mut Outputs,
    ) -> Result<(), Refusal> {
        if to.as_ref() == Some(&self.me) {
            out.replies.push((token, Ok(Answer::Done)));
            return Ok(());
        }
        if self.handover.asked.len() >= MAX_ASKERS {
            let why = format!("{MAX_ASKERS} wait for leadership to pass");
            return Err(Refusal::Overloaded(why));
        }
        self.heir(to.as_ref())?;
        self.handover.asked.push(Asked { token, to, deadline: now.mono + PATIENCE });
        self.try_hand_over();
        Ok(())
    }

    /// Tries again what Raft has given up, and gives up what has taken too long. Once a tick.
    pub(super) fn advance_handover(&mut self, now: Now, out: &mut Outputs) {
        self.handover.expire(now.mono, out);
        self.try_hand_over();
    }

    /// Takes note of who leads.
    pub(super) fn settle_handover(&mut self, out: &mut Outputs) {
        self.handover.settle(&self.leadership, out);
    }

    fn try_hand_over(&mut self) {
        let Some(asked) = self.handover.asked.first() else { return };
        // With a change of membership under way the heir would not stand for election, and the
        // leader would take no proposals for an election timeout in vain.
        if !self.node.is_leader() || self.node.is_handing_over() || self.node.is_changing() {
            return;
        }
        if let Ok(heir) = self.heir(asked.to.as_ref()) {
            self.node.transfer_leader(heir);
        }
    }

    /// Who shall lead: a named voter or the one that is furthest. Only one that answers.
    pub(super) fn heir(&self, to: Option<&NodeId>) -> Result<u64, Refusal> {
        let state = &self.replica.state;
        let me = self.node.raft_id();
        let mut others = state.members().iter().filter(|(id, member)| {
            **id != me && member.wanted && state.conf().voters.contains(*id)
        });
        let heard = |id: u64| self.node.progress(id).filter(|(_, heard)| *heard);
        match to {
            Some(node) => {
                let (id, _) = others
                    .find(|(_, member)| member.node == *node)
                    .ok_or_else(|| Refusal::Invalid(format!("node {node} is no other voter")))?;
                let silent = || Refusal::Conflict(format!("voter {node} does not answer"));
                heard(*id).map(|_| *id).ok_or_else(silent)
            }
            None => others
                .filter_map(|(id, _)| heard(*id).map(|(matched, _)| (matched, *id)))
                .max()
                .map(|(_, id)| id)
                .ok_or_else(|| Refusal::Conflict("there is no other voter".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use wire::ClusterId;
    use wire::control::{Ask, Disk as DiskContent};

    use super::super::tests::{Memory, id};
    use super::super::{Errand, Identity, Input};
    use super::*;
    use crate::command::CLOCK_START_UNIX_S;
    use crate::raft::{Message, MessageType};

    const CLUSTER: ClusterId = ClusterId::from_bits(5);
    /// Steps within which anything happens, or never: ten seconds.
    const MAX_STEPS: usize = 400;

    /// Voters in one place, with a network that loses what it is told to.
    struct Trio {
        drivers: BTreeMap<u64, Driver<Memory>>,
        mono: Duration,
        inbox: Vec<Message>,
        replies: Vec<(Token, Result<Answer, Refusal>)>,
        loses: Box<dyn FnMut(&Message) -> bool>,
    }

    impl Trio {
        /// Three voters of which raft id 1, node o1, leads.
        fn new() -> Self {
            let founders = ["o1", "o2", "o3"].map(|name| (id(name), ([127, 0, 0, 1], 1).into()));
            let disk = Memory::default();
            Driver::found(disk.clone(), CLUSTER, &founders).unwrap();
            let first = Driver::start(id("o1"), disk, 1).unwrap();
            let mut trio = Trio {
                drivers: BTreeMap::from([(1, first)]),
                mono: Duration::from_secs(1),
                inbox: Vec::new(),
                replies: Vec::new(),
                loses: Box::new(|_| false),
            };
            trio.run_until("three voters", |trio| {
                trio.drivers.len() == 3
                    && trio.drivers.values().all(|driver| {
                        let conf = driver.state().conf();
                        conf.voters.len() == 3 && conf.outgoing.is_empty()
                    })
            });
            trio
        }

        fn step(&mut self) {
            self.mono += Driver::<Memory>::TICK;
            let now = Now { mono: self.mono, unix_s: CLOCK_START_UNIX_S };
            let messages: Vec<Message> = std::mem::take(&mut self.inbox);
            let mut errands = Vec::new();
            for (raft_id, driver) in &mut self.drivers {
                let mine = messages.iter().filter(|message| message.to == *raft_id);
                let inputs = mine.map(|message| Input::Message(Box::new(message.clone())));
                let out = driver.step(now, inputs.collect::<Vec<_>>()).unwrap();
                self.inbox.extend(out.messages);
                self.replies.extend(out.replies);
                errands.extend(out.errands);
            }
            self.inbox.retain(|message| !(self.loses)(message));
            for errand in errands {
                self.run(now, errand);
            }
        }

        /// Does what the leader wants of an empty node.
        fn run(&mut self, now: Now, errand: Errand) {
            let input = match errand {
                Errand::Probe { raft_id, .. } => {
                    Input::Probed { raft_id, disk: DiskContent::Empty { disk: raft_id } }
                }
                Errand::Adopt { raft_id, node, .. } => {
                    let disk = Memory::default();
                    Driver::adopt(disk.clone(), Identity { cluster: CLUSTER, raft_id }).unwrap();
                    let driver = Driver::start(node, disk, raft_id).unwrap();
                    self.drivers.entry(raft_id).or_insert(driver);
                    Input::Adopted { raft_id, taken: true }
                }
            };
            let leader = self.drivers.values_mut().find(|driver| driver.node.is_leader());
            let out = leader.unwrap().step(now, [input]).unwrap();
            self.inbox.extend(out.messages);
        }

        fn run_until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
            for _ in 0..MAX_STEPS {
                if is_so(self) {
                    return;
                }
                self.step();
            }
            panic!("never: {what}");
        }

        /// Asks the leader, o1, and returns its answer.
        fn hand_over(&mut self, to: Option<&str>) -> Result<Answer, Refusal> {
            let ask = Ask::TransferLeader { to: to.map(id) };
            let now = Now { mono: self.mono, unix_s: CLOCK_START_UNIX_S };
            let input = Input::Ask { token: 9, peer: id("x"), ask };
            let out = self.drivers.get_mut(&1).unwrap().step(now, [input]).unwrap();
            self.inbox.extend(out.messages);
            self.inbox.retain(|message| !(self.loses)(message));
            self.replies.extend(out.replies);
            self.run_until("an answer", |trio| !trio.replies.is_empty());
            self.replies.remove(0).1
        }

        fn leads(&self, raft_id: u64) -> bool {
            self.drivers[&raft_id].leadership().is_leader
        }
    }

    fn is_call(message: &Message) -> bool {
        message.get_msg_type() == MessageType::MsgTimeoutNow
    }

    #[test]
    fn the_answer_comes_when_another_one_leads() {
        for (to, heirs) in [(Some("o3"), vec![3]), (None, vec![2, 3])] {
            let mut trio = Trio::new();
            assert_eq!(trio.hand_over(to), Ok(Answer::Done));
            assert!(!trio.leads(1) && heirs.iter().any(|heir| trio.leads(*heir)), "{to:?}");
        }
        assert_eq!(Trio::new().hand_over(Some("o1")), Ok(Answer::Done), "it leads already");
    }

    #[test]
    fn a_transfer_that_raft_drops_is_tried_again() {
        let mut trio = Trio::new();
        let mut calls = 0;
        trio.loses = Box::new(move |message| {
            calls += usize::from(is_call(message));
            is_call(message) && calls <= 2
        });
        assert_eq!(trio.hand_over(Some("o2")), Ok(Answer::Done));
        assert!(trio.leads(2));
    }

    #[test]
    fn a_voter_that_never_takes_over_is_named() {
        let mut trio = Trio::new();
        trio.loses = Box::new(is_call);
        let why = "leadership did not pass to voter o2 within 3s".to_owned();
        assert_eq!(trio.hand_over(Some("o2")), Err(Refusal::Unavailable(why)));
        trio.run_until("o1 leads on", |trio| trio.leads(1));
        assert!(trio.drivers[&1].handover.asked.is_empty());
    }

    #[test]
    fn an_asker_is_sent_on_when_a_third_one_leads() {
        let deadline = PATIENCE;
        let asked = |token, to: Option<&str>| Asked { token, to: to.map(id), deadline };
        let mut handover =
            Handover { asked: vec![asked(1, Some("o2")), asked(2, Some("o3")), asked(3, None)] };
        let mut out = Outputs::default();
        handover.settle(&Leadership { term: 2, ..Leadership::default() }, &mut out);
        assert_eq!(handover.asked.len(), 3, "while nobody leads, nothing is decided");
        let leader = (id("o3"), ([127, 0, 0, 1], 1).into());
        let seen = Leadership { term: 2, leader: Some(leader.clone()), is_leader: false };
        handover.settle(&seen, &mut out);
        let sent_on = Err(Refusal::NotLeader { hint: Some(leader) });
        assert_eq!(out.replies, [(1, sent_on), (2, Ok(Answer::Done)), (3, Ok(Answer::Done))]);
    }
}
