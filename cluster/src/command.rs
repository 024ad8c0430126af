//! What is written to the replicated log.
//!
//! In: decisions of the leader. Out: the bytes of a log entry, and back. The format is the log's on
//! disk and between voters, so it outlives a build: one format byte, then postcard. Variants go to
//! the end of [`Command`], fields never change; [`LOG_FORMAT`] goes up when a build writes what the
//! one before cannot apply, and a leader writes only what all its voters know.
//!
//! Does not apply anything (that is [`crate::state`]) and does not decide anything.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use wire::control::{Bar, Barred, KeyId, KeyTerms, NodeSpec, NodeState, SecretHash};
use wire::{Epoch, NodeId, Region, RoomId};

/// The highest format this build writes and reads. 1: first release. 2: bars, the terms of keys, join
/// tokens. A command is written in the oldest format that has it.
pub const LOG_FORMAT: u8 = 2;

/// 2025-01-01T00:00:00Z in Unix seconds: where the clock in commands starts, and with it the media
/// sequence numbers of rooms without a past.
pub const CLOCK_START_UNIX_S: u64 = 1_735_689_600;

/// Longest encoded command. The largest is a node row with four viewer URLs.
pub const MAX_COMMAND_BYTES: usize = 8 * 1024;

/// A command and the time at which the leader wrote it. Time enters the state machine here only, so
/// that every replica computes the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamped {
    /// Seconds since [`CLOCK_START_UNIX_S`] by the leader's clock.
    pub at_s: u64,
    /// What to do.
    pub command: Command,
}

/// One change of the replicated state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// A node enters the table, or its row changes. A new incarnation has lost its memory, so its
    /// rooms get new epochs.
    Register {
        /// The row.
        spec: NodeSpec,
    },
    /// Placement begins or ceases to count on a node.
    SetState {
        /// The node.
        node: NodeId,
        /// The incarnation that was observed; another one is left alone.
        incarnation: u64,
        /// The new state.
        state: NodeState,
    },
    /// A node leaves the table because it has been down for long. It may come back.
    Forget {
        /// The node.
        node: NodeId,
    },
    /// A node is removed for good: out of the table, out of the Raft group, refused from now on.
    RemoveNode {
        /// The node.
        node: NodeId,
    },
    /// Grant a room to a home.
    Place {
        /// The room.
        room: RoomId,
        /// The home.
        home: NodeId,
        /// The node with the publisher, preferred when the home dies.
        ingest: Option<NodeId>,
        /// The epoch the decision was made against, none for an inactive room. If the room has
        /// another one by now, nothing changes.
        replaces: Option<Epoch>,
        /// Media sequence numbers below this have been seen in the cluster.
        msn_floor: u64,
    },
    /// Remove an idle room.
    Release {
        /// The room.
        room: RoomId,
        /// The epoch under which it is held; another one leaves the room alone.
        epoch: Epoch,
        /// One past the highest media sequence number used; 0 if unknown.
        next_msn: u64,
    },
    /// Remove a room whatever its epoch.
    Remove {
        /// The room.
        room: RoomId,
    },
    /// Name or clear the hub of a room in a region.
    SetHub {
        /// The room.
        room: RoomId,
        /// The region.
        region: Region,
        /// The hub.
        hub: Option<NodeId>,
    },
    /// Set or clear a cluster-wide setting.
    Set {
        /// Its name.
        name: String,
        /// Its value.
        value: Option<String>,
    },
    /// Store a publish key.
    CreateKey {
        /// Its public name.
        id: KeyId,
        /// The room it opens.
        room: RoomId,
        /// SHA-256 of the secret.
        hash: SecretHash,
    },
    /// Forget a publish key.
    RevokeKey {
        /// Its public name.
        id: KeyId,
    },
    /// A node shall become a voter, under a fresh raft id unless it has one already.
    Admit {
        /// The node.
        node: NodeId,
        /// Where its QUIC endpoint is.
        addr: SocketAddr,
        /// Its raft id, if the disk that had taken it is known to be lost: then it is replaced.
        lost: Option<u64>,
    },
    /// The disk that takes a raft id.
    Bind {
        /// The raft id.
        raft_id: u64,
        /// The disk.
        disk: u64,
    },
    /// Bar something, or let it in again. Format 2.
    SetBar {
        /// What.
        on: Barred,
        /// For how long; none lifts it.
        bar: Option<Bar>,
    },
    /// Store a publish key with terms. Format 2.
    StoreKey {
        /// Its public name.
        id: KeyId,
        /// The room it opens.
        room: RoomId,
        /// SHA-256 of the secret.
        hash: SecretHash,
        /// Its terms.
        terms: KeyTerms,
        /// The key it takes the place of, and for how many seconds more that one opens.
        replaces: Option<(KeyId, u32)>,
    },
    /// A key for one push is used by this one. Format 2.
    UseKey {
        /// Its public name.
        id: KeyId,
        /// Names the push.
        push: u64,
    },
    /// Store a token with which one new node gets a certificate. Format 2.
    CreateJoinToken {
        /// Its public name.
        id: KeyId,
        /// SHA-256 of the secret.
        hash: SecretHash,
        /// The only node it is for.
        node: Option<NodeId>,
        /// How long it is good, in seconds.
        ttl_s: u32,
    },
    /// Use a join token up. Format 2.
    RedeemJoinToken {
        /// Its public name.
        id: KeyId,
        /// SHA-256 of its secret.
        hash: SecretHash,
        /// The node that joins.
        node: NodeId,
        /// SHA-256 of that node's public key.
        key: SecretHash,
    },
}

impl Command {
    /// The oldest format that has it.
    #[must_use]
    pub const fn format(&self) -> u8 {
        match self {
            Self::SetBar { .. }
            | Self::StoreKey { .. }
            | Self::UseKey { .. }
            | Self::CreateJoinToken { .. }
            | Self::RedeemJoinToken { .. } => 2,
            _ => 1,
        }
    }
}

/// Why bytes are not a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// There are no bytes.
    #[error("empty command")]
    Empty,
    /// Written by a newer build.
    #[error("log format {found} is newer than {LOG_FORMAT}, the highest this build knows")]
    Newer {
        /// The format byte.
        found: u8,
    },
    /// The bytes are damaged.
    #[error("malformed command: {0}")]
    Malformed(#[from] postcard::Error),
}

impl Stamped {
    /// The bytes of a log entry.
    ///
    /// # Errors
    /// [`CommandError::Malformed`] if the value cannot be encoded, which no value of this type does.
    pub fn encode(&self) -> Result<Vec<u8>, CommandError> {
        Ok(postcard::to_extend(self, vec![self.command.format()])?)
    }

    /// Reads a log entry.
    ///
    /// # Errors
    /// [`CommandError`] names what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, CommandError> {
        match bytes.split_first() {
            None => Err(CommandError::Empty),
            Some((&format, rest)) if format <= LOG_FORMAT => Ok(postcard::from_bytes(rest)?),
            Some((&found, _)) => Err(CommandError::Newer { found }),
        }
    }
}

#[cfg(test)]
mod tests {
    use wire::control::{Capacity, Roles, Versions};

    use super::*;

    /// Every command of format 1 once, as its fixture holds them.
    fn samples() -> Vec<Command> {
        let node = NodeId::new("o1").unwrap();
        let room = RoomId::new("live", "a").unwrap();
        let region = Region::new("eu").unwrap();
        let addr: SocketAddr = "10.0.0.1:7400".parse().unwrap();
        let spec = NodeSpec {
            id: node.clone(),
            incarnation: 9,
            roles: Roles::ORIGIN,
            region: region.clone(),
            capacity: Capacity::default(),
            addr,
            viewer_urls: vec!["http://e".to_owned()],
            versions: Versions { control: 1, log: 1, render: 1 },
        };
        let epoch = Epoch(300);
        vec![
            Command::Register { spec },
            Command::SetState { node: node.clone(), incarnation: 9, state: NodeState::Down },
            Command::Forget { node: node.clone() },
            Command::RemoveNode { node: node.clone() },
            Command::Place {
                room: room.clone(),
                home: node.clone(),
                ingest: Some(node.clone()),
                replaces: Some(epoch),
                msn_floor: 4,
            },
            Command::Release { room: room.clone(), epoch, next_msn: 5 },
            Command::Remove { room: room.clone() },
            Command::SetHub { room: room.clone(), region, hub: None },
            Command::Set { name: "a".to_owned(), value: Some("b".to_owned()) },
            Command::CreateKey { id: KeyId(1), room, hash: SecretHash([0xab; 32]) },
            Command::RevokeKey { id: KeyId(1) },
            Command::Admit { node: node.clone(), addr, lost: Some(3) },
            Command::Bind { raft_id: 2, disk: 3 },
            Command::CreateJoinToken {
                id: KeyId(1),
                hash: SecretHash([0xab; 32]),
                node: Some(node.clone()),
                ttl_s: 3600,
            },
            Command::RedeemJoinToken {
                id: KeyId(1),
                hash: SecretHash([0xab; 32]),
                node,
                key: SecretHash([0xcd; 32]),
            },
        ]
    }

    /// One command a line in hexadecimal, as its format writes it. Later builds must go on reading it.
    const FIXTURE: &str = concat!(
        include_str!("../testdata/log-format-1.hex"),
        include_str!("../testdata/log-format-2.hex")
    );

    #[test]
    fn every_log_format_stays_as_it_is_and_readable() {
        let lines: Vec<&str> = FIXTURE.lines().collect();
        let samples = samples();
        assert_eq!(lines.len(), samples.len(), "one line a command");
        for (line, command) in lines.into_iter().zip(samples) {
            let stamped = Stamped { at_s: 7, command };
            let hex: String =
                stamped.encode().unwrap().iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(hex, line, "{stamped:?}");
            assert_eq!(Stamped::decode(&stamped.encode().unwrap()).unwrap(), stamped);
        }
    }

    #[test]
    fn what_format_1_lacks_is_written_as_format_2() {
        let room = RoomId::new("live", "a").unwrap();
        let bar = Bar { before_unix_s: 1, until_unix_s: 2, set_unix_s: 3, reason: "no".to_owned() };
        let terms = KeyTerms { once: true, ..KeyTerms::default() };
        let hash = SecretHash([0xab; 32]);
        let hash_hex = "ab".repeat(32);
        for (command, expected) in [
            (
                Command::SetBar { on: Barred::Push(room.clone()), bar: Some(bar) },
                "02070d00066c6976652f6101010203026e6f".to_owned(),
            ),
            (
                Command::StoreKey { id: KeyId(1), room, hash, terms, replaces: None },
                format!("02070e01066c6976652f61{hash_hex}0000010000"),
            ),
            (Command::UseKey { id: KeyId(1), push: 5 }, "02070f0105".to_owned()),
        ] {
            let stamped = Stamped { at_s: 7, command };
            let bytes = stamped.encode().unwrap();
            let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(hex, expected, "{stamped:?}");
            assert_eq!(Stamped::decode(&bytes).unwrap(), stamped);
        }
    }

    #[test]
    fn unreadable_commands_say_why() {
        assert_eq!(Stamped::decode(&[]), Err(CommandError::Empty));
        assert_eq!(
            Stamped::decode(&[3, 0]).unwrap_err().to_string(),
            "log format 3 is newer than 2, the highest this build knows"
        );
        assert!(matches!(Stamped::decode(&[1, 0, 99]), Err(CommandError::Malformed(_))));
    }

    #[test]
    fn the_largest_command_fits_its_limit() {
        let spec = NodeSpec {
            id: NodeId::new(&"a".repeat(63)).unwrap(),
            incarnation: u64::MAX,
            roles: Roles(7),
            region: Region::new(&"a".repeat(63)).unwrap(),
            capacity: Capacity { rooms: u32::MAX, viewers: u32::MAX, egress_bps: u64::MAX },
            addr: "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535".parse().unwrap(),
            viewer_urls: vec!["u".repeat(256); 4],
            versions: Versions { control: u16::MAX, log: u16::MAX, render: u16::MAX },
        };
        let stamped = Stamped { at_s: u64::MAX, command: Command::Register { spec } };
        assert!(stamped.encode().unwrap().len() < MAX_COMMAND_BYTES);
    }
}
