//! Who should hold a room, and which edges should serve it: pure policy.
//!
//! In: the node table, what the leader knows of loads, and a room. Out: nodes, best first. The same
//! inputs give the same answer everywhere. Rendezvous hashing keeps a room's answer stable while
//! nodes come and go; bounded loads spill to the next node in the room's own order when the first
//! is full, so that a crowd gathers on few edges and spreads as it grows.
//!
//! Does not read state, does not grant anything: the state machine does, under its own checks.

use std::collections::BTreeMap;

use wire::control::{Load, NodeInfo, NodeState, Roles};
use wire::{NodeId, Region, RoomId};

/// A node counts as full from this share of its capacity, in thousandths.
const FULL_PERMILLE: u64 = 900;
/// How far above the average a node may be loaded before a room goes to the next one, in
/// thousandths: the factor c of "consistent hashing with bounded loads" (Mirrokni et al., 2016).
const BOUND_PERMILLE: u64 = 1250;
/// Below this average nodes are not compared: a handful of rooms or viewers is no imbalance.
const BOUND_FLOOR: u64 = 8;

/// A node as placement sees it.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// Its row of the node table.
    pub info: &'a NodeInfo,
    /// Its last reported load; zero while unknown.
    pub load: Load,
    /// Rooms it is home of by the replicated state.
    pub homes: u32,
    /// Whether its lease is running.
    pub alive: bool,
}

impl Candidate<'_> {
    fn may_be_home(&self) -> bool {
        self.alive && self.info.state == NodeState::Up && self.info.spec.roles.has(Roles::ORIGIN)
    }

    fn may_serve(&self) -> bool {
        self.alive && self.info.state == NodeState::Up && self.info.spec.roles.has(Roles::EDGE)
    }

    /// Whether the node is at one of its own limits.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let capacity = self.info.spec.capacity;
        let reached = |used: u64, limit: u64| limit > 0 && used * 1000 >= limit * FULL_PERMILLE;
        (capacity.rooms > 0 && self.homes >= capacity.rooms)
            || reached(self.load.viewers.into(), capacity.viewers.into())
            || reached(self.load.egress_bps, capacity.egress_bps)
            || u64::from(self.load.cpu_permille) >= FULL_PERMILLE
    }
}

/// The home for a room: the ingest node itself unless it is full, down, draining or no origin; else
/// the first in the room's rendezvous order that is neither full nor far above the average; else
/// the first that is alive at all, since a crowded home is better than none. `avoid` is taken only
/// when nothing else is left.
#[must_use]
pub fn home<'a>(
    room: &RoomId,
    ingest: Option<&NodeId>,
    avoid: Option<&NodeId>,
    nodes: impl Iterator<Item = Candidate<'a>>,
) -> Option<NodeId> {
    let mut able: Vec<Candidate<'a>> = nodes.filter(Candidate::may_be_home).collect();
    let avoided = |node: &Candidate<'_>| Some(&node.info.spec.id) == avoid;
    if able.iter().any(|node| !avoided(node)) {
        able.retain(|node| !avoided(node));
    }
    if let Some(ingest) = ingest
        && able.iter().any(|node| node.info.spec.id == *ingest && !node.is_full())
    {
        return Some(ingest.clone());
    }
    able.sort_by_cached_key(|node| order(room, &node.info.spec.id));
    let bound = bound(able.iter().map(|node| node.homes.into()));
    able.iter()
        .find(|node| !node.is_full() && u64::from(node.homes) < bound)
        .or_else(|| able.iter().find(|node| !node.is_full()))
        .or_else(|| able.first())
        .map(|node| node.info.spec.id.clone())
}

/// Up to `count` edges for a viewer of the room in `region`, best first: those of the region in the
/// room's order, the full and the crowded behind the others. Without an edge in the region, those
/// of all regions.
#[must_use]
pub fn edges<'a>(
    room: &RoomId,
    region: Option<&Region>,
    count: usize,
    nodes: impl Iterator<Item = Candidate<'a>>,
) -> Vec<NodeId> {
    let mut able: Vec<Candidate<'a>> = nodes.filter(Candidate::may_serve).collect();
    let near = |node: &Candidate<'_>| region.is_none_or(|r| *r == node.info.spec.region);
    if able.iter().any(near) {
        able.retain(near);
    }
    let bound = bound(able.iter().map(|node| node.load.viewers.into()));
    able.sort_by_cached_key(|node| {
        let crowded = u64::from(node.load.viewers) >= bound;
        (node.is_full(), crowded, order(room, &node.info.spec.id))
    });
    able.truncate(count);
    able.into_iter().map(|node| node.info.spec.id.clone()).collect()
}

/// How far regions are from each other, in any unit: milliseconds of round trip are a good one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Distances {
    pairs: BTreeMap<(Region, Region), u32>,
}

impl Distances {
    /// Says how far two regions are, both ways.
    pub fn set(&mut self, one: Region, other: Region, distance: u32) {
        self.pairs.insert((other.clone(), one.clone()), distance);
        self.pairs.insert((one, other), distance);
    }

    /// How far; 0 within a region, as far as can be between two of which nothing is said.
    #[must_use]
    pub fn between(&self, one: &Region, other: &Region) -> u32 {
        if one == other {
            return 0;
        }
        self.pairs.get(&(one.clone(), other.clone())).copied().unwrap_or(u32::MAX)
    }
}

/// Up to `count` edges for a viewer of the room in `region`, best first: those that are not full
/// before those that are, the nearer before the farther, and among the equally near the room's own
/// order, with those far above their region's average behind the others.
#[must_use]
pub fn route<'a>(
    room: &RoomId,
    region: &Region,
    distances: &Distances,
    count: usize,
    nodes: impl Iterator<Item = Candidate<'a>>,
) -> Vec<&'a NodeInfo> {
    let mut able: Vec<Candidate<'a>> = nodes.filter(Candidate::may_serve).collect();
    let mut viewers: BTreeMap<&Region, Vec<u64>> = BTreeMap::new();
    for node in &able {
        viewers.entry(&node.info.spec.region).or_default().push(node.load.viewers.into());
    }
    let bounds: BTreeMap<&Region, u64> =
        viewers.into_iter().map(|(region, loads)| (region, bound(loads.into_iter()))).collect();
    able.sort_by_cached_key(|node| {
        let theirs = &node.info.spec.region;
        let crowded = bounds.get(theirs).is_some_and(|most| u64::from(node.load.viewers) >= *most);
        let far = distances.between(region, theirs);
        (node.is_full(), far, crowded, order(room, &node.info.spec.id))
    });
    able.into_iter().take(count).map(|node| node.info).collect()
}

/// The load from which a node is skipped: above the average of all.
fn bound(loads: impl ExactSizeIterator<Item = u64>) -> u64 {
    let count = loads.len().max(1) as u64;
    let total: u64 = loads.sum();
    let average = total.div_ceil(count).max(BOUND_FLOOR);
    (average * BOUND_PERMILLE).div_ceil(1000)
}

/// A node's place in a room's rendezvous order, the lowest first; the id breaks a tie of hashes.
fn order(room: &RoomId, node: &NodeId) -> (u64, NodeId) {
    // FNV-1a over "room NUL node", finished as in SplitMix64: a fixed function of the names, the
    // same in every build, which the standard library's hasher is not.
    let bytes = room.as_str().bytes().chain([0]).chain(node.as_str().bytes());
    let mut hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (hash ^ (hash >> 31), node.clone())
}

#[cfg(test)]
mod tests {
    use wire::control::{Capacity, NodeSpec, Versions};

    use super::*;

    fn info(id: &str, roles: Roles, region: &str) -> NodeInfo {
        let spec = NodeSpec {
            id: NodeId::new(id).unwrap(),
            incarnation: 1,
            roles,
            region: Region::new(region).unwrap(),
            capacity: Capacity::default(),
            addr: "127.0.0.1:1".parse().unwrap(),
            viewer_urls: Vec::new(),
            versions: Versions::default(),
        };
        NodeInfo { spec, state: NodeState::Up }
    }

    fn origins(count: usize) -> Vec<NodeInfo> {
        (0..count).map(|i| info(&format!("o{i}"), Roles::ORIGIN, "eu")).collect()
    }

    fn idle(info: &NodeInfo) -> Candidate<'_> {
        Candidate { info, load: Load::default(), homes: 0, alive: true }
    }

    fn room(i: usize) -> RoomId {
        RoomId::new("live", &format!("r{i}")).unwrap()
    }

    #[test]
    fn the_ingest_node_is_home_unless_it_cannot() {
        let mut nodes = origins(3);
        let ingest = nodes[1].spec.id.clone();
        let choose = |nodes: &[NodeInfo], change: fn(&mut Candidate<'_>)| {
            let candidates = nodes.iter().map(|info| {
                let mut node = idle(info);
                if info.spec.id == ingest {
                    change(&mut node);
                }
                node
            });
            home(&room(0), Some(&ingest), None, candidates).unwrap()
        };
        assert_eq!(choose(&nodes, |_| ()), ingest);
        assert_ne!(choose(&nodes, |n| n.alive = false), ingest);
        assert_ne!(choose(&nodes, |n| n.load.cpu_permille = 950), ingest);
        nodes[1].spec.capacity.rooms = 1;
        assert_eq!(choose(&nodes, |_| ()), ingest);
        assert_ne!(choose(&nodes, |n| n.homes = 1), ingest);
        nodes[1].state = NodeState::Draining;
        assert_ne!(choose(&nodes, |_| ()), ingest);
        let all_full = nodes.iter().map(|info| Candidate {
            load: Load { cpu_permille: 1000, ..Load::default() },
            ..idle(info)
        });
        assert!(home(&room(0), None, None, all_full).is_some(), "crowded is better than nowhere");
        assert_eq!(home(&room(0), None, None, std::iter::empty()), None);
        let edge = [info("e1", Roles::EDGE, "eu")];
        assert_eq!(home(&room(0), Some(&edge[0].spec.id), None, edge.iter().map(idle)), None);
    }

    #[test]
    fn an_avoided_home_is_the_last_resort() {
        let nodes = origins(2);
        let old = &nodes[0].spec.id;
        let chosen = home(&room(0), Some(old), Some(old), nodes.iter().map(idle));
        assert_eq!(chosen, Some(nodes[1].spec.id.clone()));
        let alone = home(&room(0), None, Some(old), nodes[..1].iter().map(idle));
        assert_eq!(alone, Some(old.clone()));
    }

    #[test]
    fn losing_a_node_moves_only_its_own_rooms() {
        let nodes = origins(10);
        for i in 0..1000 {
            let before = home(&room(i), None, None, nodes.iter().map(idle)).unwrap();
            let after = home(&room(i), None, None, nodes[..9].iter().map(idle)).unwrap();
            assert!(before == after || before == nodes[9].spec.id, "room {i}");
        }
    }

    #[test]
    fn homes_stay_within_the_bound_as_rooms_arrive() {
        let nodes = origins(7);
        let mut homes: BTreeMap<NodeId, u32> = BTreeMap::new();
        for i in 0..7000 {
            let candidates = nodes.iter().map(|info| Candidate {
                homes: homes.get(&info.spec.id).copied().unwrap_or(0),
                ..idle(info)
            });
            *homes.entry(home(&room(i), None, None, candidates).unwrap()).or_default() += 1;
        }
        let most = homes.values().max().unwrap();
        assert!(*most <= 1251, "average 1000, most {most}");
    }

    #[test]
    fn a_crowd_fills_one_edge_and_then_spreads_inside_its_region() {
        let mut nodes: Vec<NodeInfo> =
            (0..4).map(|i| info(&format!("eu{i}"), Roles::EDGE, "eu")).collect();
        nodes.push(info("us0", Roles::EDGE, "us"));
        for node in &mut nodes {
            node.spec.capacity.viewers = 100;
        }
        let eu = Region::new("eu").unwrap();
        let first = edges(&room(0), Some(&eu), 1, nodes.iter().map(idle));
        let loaded = nodes.iter().map(|info| Candidate {
            load: Load {
                viewers: if info.spec.id == first[0] { 95 } else { 0 },
                ..Load::default()
            },
            ..idle(info)
        });
        let then = edges(&room(0), Some(&eu), 10, loaded);
        assert_eq!(then.len(), 4, "the other region is not offered");
        assert_eq!(then.last(), first.first(), "the full edge comes last");
        let nowhere = Region::new("mars").unwrap();
        assert_eq!(edges(&room(0), Some(&nowhere), 10, nodes.iter().map(idle)).len(), 5);
    }

    #[test]
    fn a_viewer_is_sent_near_and_on_when_the_near_are_full() {
        let mut nodes: Vec<NodeInfo> =
            (0..3).map(|i| info(&format!("eu{i}"), Roles::EDGE, "eu")).collect();
        nodes.push(info("ap0", Roles::EDGE, "ap"));
        nodes.push(info("us0", Roles::EDGE, "us"));
        nodes.push(info("o0", Roles::ORIGIN, "eu"));
        for node in &mut nodes {
            node.spec.capacity.viewers = 100;
        }
        let region = |name: &str| Region::new(name).unwrap();
        let mut distances = Distances::default();
        distances.set(region("eu"), region("us"), 80);
        assert_eq!(distances.between(&region("us"), &region("eu")), 80);
        let send = |viewers: &dyn Fn(&str) -> u32, at: &str| -> Vec<String> {
            let load = |id: &NodeId| Load { viewers: viewers(id.as_str()), ..Load::default() };
            let nodes =
                nodes.iter().map(|info| Candidate { load: load(&info.spec.id), ..idle(info) });
            let sent = route(&room(0), &region(at), &distances, 9, nodes);
            sent.into_iter().map(|info| info.spec.id.to_string()).collect()
        };
        let first = send(&|_| 0, "eu");
        assert_eq!(first.len(), 5, "no origin");
        assert!(first[..3].iter().all(|id| id.starts_with("eu")), "{first:?}");
        assert_eq!(first[3..], ["us0", "ap0"], "the known distance before the unknown");
        assert_eq!(send(&|_| 0, "us")[0], "us0");
        // A crowd at the first spills to the next in the room's order, not to another region.
        let crowded = send(&|id| if id == first[0] { 80 } else { 0 }, "eu");
        assert_eq!(crowded[..3], [first[1].as_str(), &first[2], &first[0]]);
        let full = send(&|id| if id.starts_with("eu") { 95 } else { 0 }, "eu");
        assert_eq!(full[..2], ["us0", "ap0"], "the far before the full");
    }
}
