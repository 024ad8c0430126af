//! One control node and those who ask it.

use std::collections::BTreeSet;
use std::sync::Arc;

use cluster::{Error, NodeState, Refusal, Roles};

use crate::harness::{Node, Site, id, room, until, within};

async fn both(site: &Site) -> (Node, Node) {
    let o1 = site.alone("o1").await;
    let o2 = site.guest("o2", Roles::ORIGIN, &[&o1]).await;
    o1.registered().await;
    o2.registered().await;
    (o1, o2)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_clients_race_for_rooms_and_each_room_gets_one_home() {
    let site = Site::new();
    let (o1, o2) = both(&site).await;
    let mut races = tokio::task::JoinSet::new();
    for i in 0..50 {
        for node in [&o1, &o2] {
            let (client, ingest) = (node.client.clone(), node.id.clone());
            races.spawn(async move { (i, client.claim(&room(&format!("r{i}")), &ingest).await) });
        }
    }
    let mut epochs = BTreeSet::new();
    let mut first: Vec<Option<cluster::Grant>> = vec![None; 50];
    while let Some(race) = races.join_next().await {
        let (i, grant) = race.unwrap();
        let grant = grant.unwrap();
        epochs.insert(grant.epoch);
        assert!([&o1, &o2].iter().any(|n| n.id == grant.home && n.addr == grant.home_addr));
        match &first[i] {
            None => first[i] = Some(grant),
            Some(other) => assert_eq!(*other, grant, "room {i}"),
        }
    }
    assert_eq!(epochs.len(), 50, "an epoch is never used twice");
    for grant in first.into_iter().flatten() {
        assert!(within(o2.client.confirm(&grant.room, grant.epoch)).await.unwrap());
    }
    let page = o2.client.rooms(None, 30).await.unwrap();
    let rest = o2.client.rooms(Some(&page[29].room), 30).await.unwrap();
    assert_eq!((page.len(), rest.len()), (30, 20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_sees_a_room_come_move_and_go_in_process_and_over_quic() {
    let site = Site::new();
    let (o1, o2) = both(&site).await;
    let e1 = site.guest("e1", Roles::EDGE, &[&o1]).await;
    let room = room("demo");
    let mut watches = [o1.client.watch_room(&room), e1.client.watch_room(&room)];
    for watch in &mut watches {
        assert_eq!(within(watch.changed()).await.placement, None, "not placed yet");
    }
    let grant = o2.client.claim(&room, &o2.id).await.unwrap();
    assert_eq!(grant.home, o2.id);
    for watch in &mut watches {
        assert_eq!(within(watch.changed()).await.placement.as_ref(), Some(&grant));
    }
    let moved = o2.client.place(&room, Some(&o1.id)).await.unwrap();
    assert!(moved.epoch > grant.epoch);
    for watch in &mut watches {
        assert_eq!(within(watch.changed()).await.placement.as_ref(), Some(&moved));
    }
    let late = within(e1.client.watch_room(&room).changed()).await;
    assert_eq!(late.placement.as_ref(), Some(&moved), "a second watch knows at once");
    let stale = o2.client.release(&room, grant.epoch).await;
    let current = Some(moved.epoch);
    assert!(
        matches!(stale, Err(Error::Refused(Refusal::StaleEpoch { current: c })) if c == current)
    );
    o1.client.release_at(&room, moved.epoch, moved.msn_base + 500).await.unwrap();
    for watch in &mut watches {
        assert_eq!(within(watch.changed()).await.placement, None);
    }
    let again = o2.client.claim(&room, &o2.id).await.unwrap();
    assert!(again.epoch > moved.epoch && again.generation > moved.generation);
    assert!(again.msn_base >= moved.msn_base + 500);
    assert!(!o2.client.confirm(&room, moved.epoch).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn placement_and_watches_survive_a_restart_of_the_control_node() {
    let site = Site::new();
    let (o1, o2) = both(&site).await;
    let demo = room("demo");
    let grant = o2.client.claim(&demo, &o2.id).await.unwrap();
    let own = o1.client.claim(&room("own"), &o1.id).await.unwrap();
    let key = o2.client.create_key(&demo).await.unwrap();
    let mut watch = o2.client.watch_room(&demo);
    assert_eq!(within(watch.changed()).await.placement.as_ref(), Some(&grant));
    let addr = o1.addr.to_string();
    o1.stop().await;
    let bound = site.bind("o1", Roles::CONTROL.with(Roles::ORIGIN), &addr).await;
    let list = [(bound.id.clone(), bound.addr)];
    let o1 = site.start(bound, &list);
    o1.registered().await;
    assert_eq!(within(o2.client.claim(&demo, &o2.id)).await.unwrap(), grant);
    assert!(o2.client.check_key(&demo, &key.key).await.unwrap());
    // The restarted node has lost its memory: what it held, it holds under a new epoch.
    let renewed = within(o1.client.claim(&own.room, &o1.id)).await.unwrap();
    assert!(renewed.epoch > own.epoch && renewed.msn_base > own.msn_base);
    let moved = o2.client.place(&demo, Some(&o1.id)).await.unwrap();
    assert_eq!(within(watch.changed()).await.placement, Some(moved));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_open_their_room_and_no_other_until_revoked() {
    let site = Site::new();
    let (o1, o2) = both(&site).await;
    let (demo, other) = (room("demo"), room("other"));
    let key = o2.client.create_key(&demo).await.unwrap();
    assert!(o1.client.check_key(&demo, &key.key).await.unwrap());
    assert!(!o1.client.check_key(&other, &key.key).await.unwrap());
    assert!(!o1.client.check_key(&demo, "wrong").await.unwrap());
    let listed = o1.client.list_keys(Some(&demo), None, 10).await.unwrap();
    assert_eq!(listed.iter().map(|key| key.id).collect::<Vec<_>>(), [key.id]);
    assert!(o2.client.revoke_key(key.id).await.unwrap());
    assert!(!o2.client.revoke_key(key.id).await.unwrap());
    assert!(!o1.client.check_key(&demo, &key.key).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_node_is_marked_down_and_its_rooms_move() {
    let site = Site::new();
    let (o1, o2) = both(&site).await;
    let demo = room("demo");
    let grant = o2.client.claim(&demo, &o2.id).await.unwrap();
    let mut watch = o1.client.watch_room(&demo);
    assert_eq!(within(watch.changed()).await.placement.as_ref(), Some(&grant));
    let gone = o2.id.clone();
    o2.stop().await;
    let moved = within(watch.changed()).await.placement.unwrap();
    assert!(moved.home == o1.id && moved.epoch > grant.epoch);
    let mut nodes = o1.client.nodes();
    let is_down = |table: &Arc<cluster::NodeTable>| {
        table.get(&gone).is_some_and(|node| node.state == NodeState::Down)
    };
    within(nodes.wait_for(is_down)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_node_table_shows_load_and_a_removed_node_stays_out() {
    let site = Site::new();
    let (o1, o2) = both(&site).await;
    o2.client.load().viewers.store(7, std::sync::atomic::Ordering::Relaxed);
    until("the load arrives", || async {
        let status = o1.client.status().await.unwrap();
        let row = status.nodes.into_iter().find(|row| row.info.spec.id == id("o2"))?;
        row.load.filter(|load| load.viewers == 7)
    })
    .await;
    let status = o2.client.status().await.unwrap();
    assert_eq!((status.leader, status.members.len()), (Some(id("o1")), 1));
    o1.client.remove_node(&o2.id).await.unwrap();
    let mut standing = o2.client.standing();
    within(standing.wait_for(|standing| standing.is_removed)).await.unwrap();
    let last = o1.client.remove_node(&o1.id).await;
    assert!(matches!(last, Err(Error::Refused(Refusal::Conflict(_)))), "{last:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_control_node_a_question_fails_in_time() {
    let site = Site::new();
    let o1 = site.alone("o1").await;
    let e1 = site.guest("e1", Roles::EDGE, &[&o1]).await;
    o1.stop().await;
    let error = within(e1.client.locate(&room("demo"))).await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }) && error.is_retryable(), "{error}");
}
