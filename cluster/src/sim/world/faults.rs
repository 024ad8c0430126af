//! What the nemesis does to the world, what the operator does meanwhile, and how all is healed.

use std::time::Duration;

use rand::Rng as _;
use wire::control::Ask;

use super::super::check::Violation;
use super::super::disk::{CrashAt, SimDisk};
use super::super::nemesis::Fault;
use super::super::net::Index;
use super::{CONTROLS, EDGES, Event, ORIGINS, ROOMS, World, addr, agent_index, room};

impl World {
    pub(super) fn strike(&mut self, fault: Fault) -> Result<(), Violation> {
        self.counts.faults += 1;
        self.trace(|| format!("{fault:?}"));
        let victim = self.rng.random_range(0..self.voters);
        let leader = self.leader().unwrap_or(victim);
        match fault {
            Fault::Split | Fault::OneWay | Fault::Flap | Fault::IsolateLeader => {
                self.cut_links(fault, victim, leader);
            }
            Fault::Mend => self.net.mend(),
            Fault::Weather => {
                self.net.loss = self.rng.random_range(0..20);
                self.net.doubled = self.rng.random_range(0..10);
                self.net.late = self.rng.random_range(0..30);
            }
            Fault::Crash => self.crash_if_up(victim),
            Fault::CrashLeader => self.crash_if_up(leader),
            Fault::CrashInWrite => {
                let at = [CrashAt::Before, CrashAt::After, CrashAt::Soon];
                let at = at[self.rng.random_range(0..at.len())];
                let victim = if self.rng.random_range(0..2) == 0 { leader } else { victim };
                self.controls[victim].disk.crash_at(Some(at));
            }
            Fault::Storm => {
                (self.net.late, self.net.doubled) = (50, 40);
                self.crash_if_up(leader);
                for i in (0..self.voters).filter(|i| *i != leader) {
                    self.controls[i].disk.crash_at(Some(CrashAt::Soon));
                }
            }
            Fault::Pause | Fault::PauseLeader => {
                let victim = if fault == Fault::Pause { victim } else { leader };
                let pause = Duration::from_millis(self.rng.random_range(100..3000));
                self.controls[victim].paused_until = self.now + pause;
            }
            Fault::SlowDisk => {
                let time = Duration::from_millis(self.rng.random_range(5..200));
                self.controls[victim].write_time = time;
            }
            Fault::FullDisk => {
                let is_full = self.rng.random_range(0..2) == 0;
                self.controls[victim].disk.set_full(is_full);
            }
            Fault::ClockJump => {
                self.wall_offset_s[victim] = self.rng.random_range(-3600..=3600);
            }
            Fault::Wipe => self.wipe(victim)?,
            Fault::CrashAgent => {
                let a = self.rng.random_range(0..ORIGINS + EDGES);
                let incarnation = self.rng.random();
                self.agents[a].restart(incarnation);
            }
            Fault::CutAgent => {
                let a = agent_index(self.rng.random_range(0..ORIGINS + EDGES));
                self.isolate(a, &self.everyone());
            }
        }
        Ok(())
    }

    fn everyone(&self) -> Vec<Index> {
        (0..CONTROLS + self.agents.len()).collect()
    }

    /// Cuts one node off from others, both ways.
    fn isolate(&mut self, one: Index, from: &[Index]) {
        self.net.cut(&[one], from);
        self.net.cut(from, &[one]);
    }

    fn cut_links(&mut self, fault: Fault, victim: Index, leader: Index) {
        let everyone = self.everyone();
        match fault {
            Fault::Split => {
                let mask: u32 = self.rng.random();
                let side = |i: &&Index| mask >> (**i % 32) & 1 == 0;
                let left: Vec<Index> = everyone.iter().filter(side).copied().collect();
                let right: Vec<Index> = everyone.iter().filter(|i| !side(i)).copied().collect();
                self.net.cut(&left, &right);
                self.net.cut(&right, &left);
            }
            Fault::OneWay => {
                let others = without(&everyone, victim);
                match self.rng.random_range(0..2) {
                    0 => self.net.cut(&[victim], &others),
                    _ => self.net.cut(&others, &[victim]),
                }
            }
            Fault::Flap => {
                let others = without(&everyone, victim);
                self.net.flap(&[victim], &others);
                self.net.flap(&others, &[victim]);
            }
            Fault::IsolateLeader => {
                let from = match self.rng.random_range(0..2) {
                    0 => &everyone[..],
                    _ => &everyone[..CONTROLS],
                };
                self.isolate(leader, from);
            }
            _ => {}
        }
    }

    fn crash_if_up(&mut self, i: Index) {
        if self.controls[i].is_up {
            self.crash_control(i);
        }
    }

    /// A voter loses its disk, if the others can bear it: all of them have theirs, and there are
    /// enough of them.
    fn wipe(&mut self, i: Index) -> Result<(), Violation> {
        if self.settled_voters() < 3 || self.controls[i].disk.is_empty() {
            return Ok(());
        }
        self.trace(|| format!("wipe {i}"));
        self.replace_disk(i)?;
        self.operator.to_add.insert(i);
        Ok(())
    }

    fn replace_disk(&mut self, i: Index) -> Result<(), Violation> {
        self.counts.crashes += 1;
        self.controls[i].stop();
        self.controls[i].disk = SimDisk::new(self.rng.random());
        self.start_control(i)
    }

    /// How many voters there are, if nobody is on the way in or out and no disk is missing; else 0.
    fn settled_voters(&self) -> usize {
        let Some(driver) = self.leader().and_then(|i| self.controls[i].driver.as_ref()) else {
            return 0;
        };
        let state = driver.state();
        let voters = &state.conf().voters;
        let all_vote = state.members().iter().all(|(id, member)| {
            let node = self.controls.iter().find(|node| node.id == member.node);
            member.wanted && voters.contains(id) && node.is_some_and(|node| !node.disk.is_empty())
        });
        let is_settled = all_vote && self.operator.to_add.is_empty();
        if is_settled && self.operator.removed.is_empty() { voters.len() } else { 0 }
    }

    /// Something an operator does.
    pub(super) fn operate(&mut self) {
        let op = ORIGINS + EDGES;
        let origin = self.agents[self.rng.random_range(0..ORIGINS)].id.clone();
        let any_room = room(self.rng.random_range(0..ROOMS));
        let control = self.rng.random_range(0..CONTROLS);
        let node = self.controls[control].id.clone();
        let ask = match self.rng.random_range(0..10) {
            0 | 1 => Ask::Place { room: any_room, to: None },
            2 => Ask::Drain { node: origin, draining: true },
            3 => Ask::Drain { node: origin, draining: false },
            4 => Ask::TransferLeader { to: None },
            5 | 6 if self.controls[control].disk.is_empty() => {
                Ask::AddMember { node, addr: addr(control) }
            }
            7 if self.settled_voters() >= 3 => {
                self.operator.removed.insert(control);
                Ask::RemoveNode { node }
            }
            _ => {
                self.add_missing();
                return;
            }
        };
        self.ask(op, ask);
    }

    /// Adds the nodes whose disks were lost, and wipes those that have been removed.
    pub(super) fn add_missing(&mut self) {
        let op = ORIGINS + EDGES;
        let adds = |ask: &Ask| matches!(ask, Ask::AddMember { .. });
        if self.agents[op].ops.values().any(|op| adds(&op.ask)) {
            return;
        }
        if let Some(&i) = self.operator.to_add.first() {
            let is_back = !self.controls[i].disk.is_empty();
            if is_back {
                self.operator.to_add.remove(&i);
            } else {
                let node = self.controls[i].id.clone();
                self.ask(op, Ask::AddMember { node, addr: addr(i) });
            }
        }
        let Some(&i) = self.operator.removed.first() else { return };
        let Some(driver) = self.leader().and_then(|l| self.controls[l].driver.as_ref()) else {
            return;
        };
        let node = &self.controls[i].id;
        if driver.state().members().values().any(|member| member.node == *node) {
            // Refused, lost, or still on its way out.
            if !driver.state().is_removed(node) && self.agents[op].ops.is_empty() {
                self.operator.removed.remove(&i);
            }
            return;
        }
        self.operator.removed.remove(&i);
        if self.replace_disk(i).is_err() {
            self.trace(|| format!("{i} does not start"));
        }
    }

    /// Makes everything whole.
    pub(super) fn heal(&mut self) -> Result<(), Violation> {
        self.trace(|| "heal".to_owned());
        self.is_healed = true;
        self.net.heal();
        for i in 0..CONTROLS {
            let now = self.now;
            let node = &mut self.controls[i];
            node.disk.set_full(false);
            node.disk.crash_at(None);
            node.write_time = Duration::from_micros(300);
            node.paused_until = node.paused_until.min(now);
            if node.is_up && node.driver.is_none() && !node.disk.is_empty() {
                let life = node.life;
                self.schedule_in(Duration::from_millis(10), Event::Restart(i, life));
            } else if !node.is_up {
                self.start_control(i)?;
            }
        }
        Ok(())
    }
}

fn without(all: &[Index], one: Index) -> Vec<Index> {
    all.iter().copied().filter(|i| *i != one).collect()
}
