//! What two nodes tell each other first, and whether they can talk.
//!
//! In: the peer's hello frame and its certificate's node id. Out: the wire version both speak, or a
//! refusal with a close code and a sentence. Pure; [`crate::endpoint`] carries it.
//!
//! The hello is the one message every version must be able to read: its first field never changes,
//! fields are only appended, and bytes after the known fields are ignored.

use serde::{Deserialize, Serialize};

use crate::{ClusterId, Error, NodeId, Region, control::Roles, error::CloseCode};

/// The application protocol of the TLS handshake (RFC 7301). Its number changes only if the hello
/// itself has to; everything else is negotiated by [`WIRE_VERSIONS`].
pub const ALPN: &[u8] = b"tidewater/1";

/// The wire versions this build speaks. A build speaks its newest and the one before, so that a
/// cluster can be upgraded node by node.
///
/// * 1: hello, control, watch, subscribe, fetch, contribute, raft, segment.
pub const WIRE_VERSIONS: VersionRange = VersionRange { oldest: 1, newest: 1 };

/// Longest hello frame, in bytes. Several times what this build sends, for later fields.
pub const MAX_HELLO_BYTES: usize = 2048;
/// Longest software version, in bytes.
pub const MAX_SOFTWARE_BYTES: usize = 64;

/// What a node says of itself at the start of every connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The wire versions it speaks. Always the first field, in every version.
    pub wire: VersionRange,
    /// Who it is; must be the node of its certificate.
    pub node: NodeId,
    /// What it does.
    pub roles: Roles,
    /// Where it stands.
    pub region: Region,
    /// Its build, for people: at most [`MAX_SOFTWARE_BYTES`].
    pub software: String,
    /// Its cluster, once it knows it. Two nodes that both know one must know the same.
    pub cluster: Option<ClusterId>,
    /// The render versions its build can produce.
    pub render: VersionRange,
}

impl Hello {
    /// Reads a hello frame and finds the wire version both sides speak: the highest common one.
    ///
    /// `ours` is what this side says; `certified` is the node id of the peer's certificate.
    ///
    /// # Errors
    /// [`Error::Refused`] with the code and sentence to close the connection with.
    pub fn meet(&self, frame: &[u8], certified: &NodeId) -> Result<(Self, u16), Error> {
        // The versions alone first: what follows them may be of a version not known here.
        let (wire, _) = postcard::take_from_bytes::<VersionRange>(frame)
            .map_err(|error| refused(CloseCode::BadHello, format!("no versions: {error}")))?;
        let Some(version) = self.wire.highest_common(wire) else {
            let why = format!("this node speaks wire versions {}, the peer {wire}", self.wire);
            return Err(refused(CloseCode::Incompatible, why));
        };
        let (theirs, _later_fields) = postcard::take_from_bytes::<Self>(frame)
            .map_err(|error| refused(CloseCode::BadHello, error.to_string()))?;
        if theirs.software.len() > MAX_SOFTWARE_BYTES
            || theirs.software.chars().any(char::is_control)
        {
            let why = format!("software version is not {MAX_SOFTWARE_BYTES} plain bytes");
            return Err(refused(CloseCode::BadHello, why));
        }
        if theirs.node != *certified {
            let why = format!("says it is {}, its certificate is of {certified}", theirs.node);
            return Err(refused(CloseCode::WrongIdentity, why));
        }
        if let (Some(ours), Some(other)) = (self.cluster, theirs.cluster)
            && ours != other
        {
            let why = format!("this node is of cluster {ours}, {} of {other}", theirs.node);
            return Err(refused(CloseCode::WrongCluster, why));
        }
        Ok((theirs, version))
    }
}

/// An inclusive range of versions, `oldest ≤ newest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct VersionRange {
    /// The oldest version spoken.
    pub oldest: u16,
    /// The newest version spoken.
    pub newest: u16,
}

impl VersionRange {
    /// The newest version in both ranges.
    #[must_use]
    pub fn highest_common(self, other: Self) -> Option<u16> {
        let newest = self.newest.min(other.newest);
        (newest >= self.oldest.max(other.oldest)).then_some(newest)
    }
}

impl std::fmt::Display for VersionRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} to {}", self.oldest, self.newest)
    }
}

impl<'de> Deserialize<'de> for VersionRange {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (oldest, newest) = <(u16, u16)>::deserialize(deserializer)?;
        if oldest > newest {
            return Err(serde::de::Error::custom("version range is upside down"));
        }
        Ok(Self { oldest, newest })
    }
}

fn refused(code: CloseCode, reason: String) -> Error {
    Error::Refused { code, reason }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hello() -> Hello {
        Hello {
            wire: VersionRange { oldest: 1, newest: 2 },
            node: NodeId::new("e1").unwrap(),
            roles: Roles::EDGE,
            region: Region::new("eu").unwrap(),
            software: "0.1.0".to_owned(),
            cluster: Some(ClusterId::from_bits(0xff)),
            render: VersionRange { oldest: 1, newest: 1 },
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn refusal(ours: &Hello, frame: &[u8], certified: &str) -> (CloseCode, String) {
        match ours.meet(frame, &NodeId::new(certified).unwrap()) {
            Err(Error::Refused { code, reason }) => (code, reason),
            other => panic!("should be refused: {other:?}"),
        }
    }

    #[test]
    fn the_hello_looks_like_this() {
        let expected = concat!(
            "0102",         // wire 1 to 2
            "026531",       // node "e1"
            "04",           // edge
            "026575",       // region "eu"
            "05302e312e30", // "0.1.0"
            "01",
            "20",                                                               // some cluster
            "3030303030303030303030303030303030303030303030303030303030306666", // its id
            "0101",                                                             // render 1 to 1
        );
        let bytes = postcard::to_allocvec(&hello()).unwrap();
        assert_eq!(hex(&bytes), expected);
        assert!(bytes.len() < MAX_HELLO_BYTES);
    }

    #[test]
    fn the_highest_common_version_is_taken() {
        let range = |oldest, newest| VersionRange { oldest, newest };
        assert_eq!(range(1, 2).highest_common(range(2, 3)), Some(2));
        assert_eq!(range(1, 4).highest_common(range(2, 3)), Some(3));
        assert_eq!(range(1, 1).highest_common(range(2, 3)), None);
        assert_eq!(range(5, 6).highest_common(range(2, 3)), None);
    }

    #[test]
    fn fields_of_later_versions_are_ignored() {
        let mut bytes = postcard::to_allocvec(&hello()).unwrap();
        bytes.extend_from_slice(b"more to come");
        let (theirs, version) = hello().meet(&bytes, &NodeId::new("e1").unwrap()).unwrap();
        assert_eq!((theirs, version), (hello(), 2));
    }

    #[test]
    fn each_misfit_is_refused_with_its_reason() {
        let ours = hello();
        let frame = |hello: &Hello| postcard::to_allocvec(hello).unwrap();

        // Only versions can be read of a hello from the far future.
        let (code, reason) = refusal(&ours, b"\x07\x09\xff\xff", "e1");
        assert_eq!(code, CloseCode::Incompatible);
        assert_eq!(reason, "this node speaks wire versions 1 to 2, the peer 7 to 9");

        let (code, reason) = refusal(&ours, &frame(&ours), "e2");
        assert_eq!(code, CloseCode::WrongIdentity);
        assert_eq!(reason, "says it is e1, its certificate is of e2");

        let other = Hello { cluster: Some(ClusterId::from_bits(1)), ..hello() };
        assert_eq!(refusal(&ours, &frame(&other), "e1").0, CloseCode::WrongCluster);
        let unborn = Hello { cluster: None, ..hello() };
        assert!(ours.meet(&frame(&unborn), &ours.node).is_ok(), "a node that knows none yet");
        assert!(unborn.meet(&frame(&other), &ours.node).is_ok());

        for bad in [&b""[..], b"\x01", b"\x02\x01\x02e1", b"\x01\x02\x02E1"] {
            assert_eq!(refusal(&ours, bad, "e1").0, CloseCode::BadHello, "{bad:?}");
        }
        for software in ["x".repeat(65), "0.1\n".to_owned()] {
            let chatty = Hello { software, ..hello() };
            assert_eq!(refusal(&ours, &frame(&chatty), "e1").0, CloseCode::BadHello);
        }
    }

    proptest! {
        #[test]
        fn a_hello_survives_the_wire(
            oldest in 0u16..9, more in 0u16..9, bits in any::<u8>(), cluster in any::<Option<u128>>(),
            node in "[a-z][a-z0-9]{0,30}", region in "[A-Za-z0-9]{1,63}", software in "[ -~]{0,64}",
        ) {
            let wire = VersionRange { oldest, newest: oldest + more };
            let sent = Hello {
                wire,
                node: NodeId::new(&node).unwrap(),
                roles: Roles(bits),
                region: Region::new(&region).unwrap(),
                software,
                cluster: cluster.map(ClusterId::from_bits),
                render: wire,
            };
            let bytes = postcard::to_allocvec(&sent).unwrap();
            prop_assert!(bytes.len() <= MAX_HELLO_BYTES);
            let (read, version) = sent.meet(&bytes, &sent.node).unwrap();
            prop_assert_eq!(version, wire.newest);
            prop_assert_eq!(read, sent);
        }

        #[test]
        fn any_bytes_are_a_hello_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = hello().meet(&bytes, &hello().node);
        }
    }
}
