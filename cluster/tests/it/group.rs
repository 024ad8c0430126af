//! Three voters and more: founding, loss of the leader, growth, replacement, removal.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use cluster::{ClusterStatus, Grant, Roles};
use wire::NodeId;
use wire::control::Part;

use crate::harness::{Node, Site, id, room, until, within};

const CONTROL: Roles = Roles::CONTROL.with(Roles::ORIGIN);

/// Control nodes that know each other.
struct Group {
    site: Site,
    list: Vec<(NodeId, SocketAddr)>,
    nodes: Vec<Node>,
}

impl Group {
    async fn found(names: &[&str]) -> Self {
        let site = Site::new();
        let mut bound = Vec::new();
        for name in names {
            bound.push(site.bind(name, CONTROL, "127.0.0.1:0").await);
        }
        let list: Vec<_> = bound.iter().map(|node| (node.id.clone(), node.addr)).collect();
        let nodes = bound.into_iter().map(|bound| site.start(bound, &list)).collect();
        let group = Group { site, list, nodes };
        group.voters(names).await;
        for node in &group.nodes {
            node.registered().await;
        }
        group
    }

    async fn status_when(
        &self,
        what: &str,
        is_so: impl Fn(&ClusterStatus) -> bool,
    ) -> ClusterStatus {
        until(what, || async {
            let status = self.nodes[0].client.status().await.ok()?;
            (status.leader.is_some() && is_so(&status)).then_some(status)
        })
        .await
    }

    async fn voters(&self, names: &[&str]) -> ClusterStatus {
        let wanted: BTreeSet<NodeId> = names.iter().map(|name| id(name)).collect();
        self.status_when(&format!("voters {names:?}"), |status| {
            let voters = status.members.iter().filter(|member| member.part == Part::Voter);
            voters.map(|member| member.node.clone()).collect::<BTreeSet<_>>() == wanted
                && status.members.len() == wanted.len()
        })
        .await
    }

    fn take(&mut self, name: &NodeId) -> Node {
        let place = self.nodes.iter().position(|node| node.id == *name).unwrap();
        self.nodes.remove(place)
    }

    async fn start(&mut self, name: &str) {
        let (_, addr) = self.list.iter().find(|(node, _)| *node == id(name)).unwrap();
        let bound = self.site.bind(name, CONTROL, &addr.to_string()).await;
        self.nodes.push(self.site.start(bound, &self.list));
    }

    async fn claim(&self, name: &str) -> Grant {
        let node = &self.nodes[0];
        until("a claim is granted", || async {
            node.client.claim(&room(name), &node.id).await.ok()
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_found_a_cluster_and_survive_their_leader() {
    let mut group = Group::found(&["o1", "o2", "o3"]).await;
    let grant = group.claim("a").await;
    let leader = group.status_when("a leader", |_| true).await.leader.unwrap();
    group.take(&leader).abandon().await;
    let next = group.status_when("another leader", |status| status.leader != Some(leader.clone()));
    let next = next.await;
    assert!(next.leader.is_some());
    for node in &group.nodes {
        let location = until("the room is known", || async {
            node.client.locate(&grant.room).await.ok()?.placement
        });
        let found = location.await;
        assert!(found.epoch >= grant.epoch, "an acknowledged placement is not lost");
    }
    let after = group.claim("b").await;
    assert!(after.epoch > grant.epoch);
    group.start(leader.as_str()).await;
    let status = group.voters(&["o1", "o2", "o3"]).await;
    assert_eq!(status.members.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_halves_started_apart_found_nothing_until_all_are_there() {
    let site = Site::new();
    let mut bound = Vec::new();
    for name in ["o1", "o2", "o3"] {
        bound.push(site.bind(name, CONTROL, "127.0.0.1:0").await);
    }
    let list: Vec<_> = bound.iter().map(|node| (node.id.clone(), node.addr)).collect();
    let mut bound = bound.into_iter();
    let first = site.start(bound.next().unwrap(), &list);
    let second = site.start(bound.next().unwrap(), &list);
    let health = first.control.as_ref().unwrap().health();
    let mut waiting = health.clone();
    within(waiting.wait_for(|health| health.is_empty)).await.unwrap();
    // The second has answered, the third has not: a question through both finds no cluster.
    let error = first.client.claim(&room("a"), &first.id).await.unwrap_err();
    assert!(error.is_retryable() && health.borrow().member.is_none(), "{error}");
    let third = site.start(bound.next().unwrap(), &list);
    let group = Group { site, list, nodes: vec![first, second, third] };
    group.voters(&["o1", "o2", "o3"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_grows_to_three_under_load_and_shrinks_again() {
    let site = Site::new();
    let bound = site.bind("o1", CONTROL, "127.0.0.1:0").await;
    let list = vec![(bound.id.clone(), bound.addr)];
    let o1 = site.start(bound, &list);
    o1.registered().await;
    let (client, ingest) = (o1.client.clone(), o1.id.clone());
    let load = tokio::spawn(async move {
        let mut granted = Vec::new();
        for i in 0..400 {
            if let Ok(grant) = client.claim(&room(&format!("r{i}")), &ingest).await {
                granted.push(grant);
            }
        }
        granted
    });
    let mut group = Group { site, list, nodes: vec![o1] };
    for name in ["o2", "o3"] {
        let bound = group.site.bind(name, CONTROL, "127.0.0.1:0").await;
        group.list.push((bound.id.clone(), bound.addr));
        let node = group.site.start(bound, &group.list);
        let raft_id = group.nodes[0].client.add_member(&node.id, node.addr).await.unwrap();
        assert!(raft_id > 1);
        group.nodes.push(node);
    }
    group.voters(&["o1", "o2", "o3"]).await;
    let granted = within(load).await.unwrap();
    assert!(granted.len() > 390, "{}", granted.len());
    for grant in &granted {
        let placement = group.nodes[0].client.locate(&grant.room).await.unwrap().placement;
        assert_eq!(placement.as_ref().map(|found| found.epoch), Some(grant.epoch));
    }
    let again = group.nodes[0].client.add_member(&id("o2"), group.list[1].1).await.unwrap();
    assert_eq!(again, 2, "a member that is well is not replaced");
    group.nodes[0].client.transfer_leader(Some(&id("o2"))).await.unwrap();
    group.status_when("o2 leads", |status| status.leader == Some(id("o2"))).await;
    group.nodes[1].client.remove_node(&id("o3")).await.unwrap();
    group.voters(&["o1", "o2"]).await;
    let mut standing = group.nodes[2].client.standing();
    within(standing.wait_for(|standing| standing.is_removed)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_voter_is_a_new_member() {
    let mut group = Group::found(&["o1", "o2", "o3"]).await;
    let before = group.status_when("a leader", |status| status.members.len() == 3).await;
    let wiped = before.members.iter().find(|member| before.leader != Some(member.node.clone()));
    let wiped = wiped.unwrap().clone();
    let grant = group.claim("a").await;
    group.take(&wiped.node).stop().await;
    std::fs::remove_dir_all(group.site.data(wiped.node.as_str())).unwrap();
    group.start(wiped.node.as_str()).await;
    let node = group.nodes.last().unwrap();
    let mut health = node.control.as_ref().unwrap().health();
    within(health.wait_for(|health| health.is_empty)).await.unwrap();
    // It is a node like any other at once, through the control nodes that know something.
    node.registered().await;
    // By itself it stays out: its old raft id must not vote again with an empty memory.
    let still = group.status_when("two answer", |status| status.leader.is_some()).await;
    assert!(still.members.iter().any(|member| member.raft_id == wiped.raft_id));
    let fresh = until("it is added", || async {
        group.nodes[0].client.add_member(&wiped.node, wiped.addr).await.ok()
    })
    .await;
    assert!(fresh > 3, "raft ids are not used again");
    let after = group.voters(&["o1", "o2", "o3"]).await;
    assert!(after.members.iter().all(|member| member.raft_id != wiped.raft_id));
    let location = until("it has caught up", || async {
        let node = group.nodes.last()?;
        node.client.locate(&grant.room).await.ok()?.placement
    });
    assert_eq!(location.await.generation, grant.generation);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sole_survivor_founds_anew_and_a_backup_is_restored() {
    let mut group = Group::found(&["o1", "o2", "o3"]).await;
    let grant = group.claim("a").await;
    let key = group.nodes[0].client.create_key(&grant.room).await.unwrap();
    let backups = group.nodes[0].control.as_ref().unwrap().backups();
    let backup = within(backups.take()).await.unwrap();
    let later = group.claim("b").await;
    for name in ["o1", "o2", "o3"] {
        group.take(&id(name)).stop().await;
    }
    // o2 and o3 are lost for good.
    let (o1, addr) = group.list[0].clone();
    let recovered = until("the store is free", || async {
        cluster::recover(&group.site.data("o1"), &o1, addr).ok()
    })
    .await;
    assert_eq!(recovered.rooms, 2);
    group.list.truncate(1);
    group.start("o1").await;
    group.nodes[0].registered().await;
    let status = group.voters(&["o1"]).await;
    assert_eq!(status.cluster, recovered.cluster);
    assert!(group.nodes[0].client.check_key(&grant.room, &key.key).await.unwrap());
    let again = group.claim("b").await;
    assert!(again.epoch.0 >= recovered.revision && again.epoch > later.epoch);
    group.take(&o1).stop().await;

    let data = group.site.data("o9");
    let restored = cluster::restore(&backup.bytes, &data, &id("o9"), addr).unwrap();
    assert_eq!(restored.rooms, 1, "the room placed after the backup is forgotten");
    group.list = vec![(id("o9"), addr)];
    group.start("o9").await;
    group.nodes[0].registered().await;
    assert!(group.nodes[0].client.check_key(&grant.room, &key.key).await.unwrap());
    let fresh = group.claim("a").await;
    assert!(fresh.epoch.0 >= restored.revision && fresh.epoch > grant.epoch);
}
