//! Handles on the ledger from other nodes: over real QUIC, through outages of the node that keeps it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use events::{Client, ClientConfig, LedgerService, Metrics, Recorder, Store};
use prometheus::Registry;
use wire::control::Roles;
use wire::error::CloseCode;
use wire::events::{EventKind, Position, Refusal, Span};
use wire::hello::{VersionRange, WIRE_VERSIONS};
use wire::identity::authority::Authority;
use wire::{Endpoint, Epoch, Hello, Limits, Links, NodeId, Region, Service};

use crate::contract::{commit, event, gift, metrics, room};

struct Cluster {
    authority: Authority,
    /// Where the keeper is now.
    keeper: Arc<Mutex<Option<SocketAddr>>>,
}

impl Cluster {
    fn new() -> Self {
        let authority = Authority::create(SystemTime::now()).unwrap();
        Self { authority, keeper: Arc::default() }
    }

    fn endpoint(&self, id: &str, services: Vec<Arc<dyn Service>>) -> Endpoint {
        let node = NodeId::new(id).unwrap();
        let hello = Hello {
            wire: WIRE_VERSIONS,
            node: node.clone(),
            roles: Roles::ORIGIN,
            region: Region::default(),
            software: String::new(),
            cluster: None,
            render: VersionRange { oldest: 1, newest: 1 },
        };
        let identity = self.authority.identity(&node).unwrap();
        let loopback = "127.0.0.1:0".parse().unwrap();
        let limits = Limits::default();
        let wire_metrics = wire::Metrics::new();
        let endpoint = Endpoint::bind(loopback, &identity, hello, limits, &wire_metrics).unwrap();
        endpoint.serve(services).unwrap();
        endpoint
    }

    /// The node that keeps the store in `path`.
    fn keeper(&self, path: &Path) -> (Endpoint, Store) {
        let store = Store::sqlite(path, Duration::ZERO, metrics()).unwrap();
        let endpoint = self.endpoint("o1", vec![Arc::new(LedgerService::new(store.clone()))]);
        *self.keeper.lock().unwrap() = Some(endpoint.local_addr().unwrap());
        (endpoint, store)
    }

    fn client(&self, registry: &Registry) -> (Endpoint, Client) {
        let endpoint = self.endpoint("e1", vec![]);
        let keeper = Arc::clone(&self.keeper);
        let config = ClientConfig {
            node: NodeId::new("e1").unwrap(),
            keepers: vec![NodeId::new("o1").unwrap()],
            local: None,
            directory: Arc::new(move |_: &NodeId| *keeper.lock().unwrap()),
        };
        let metrics = Metrics::register(registry).unwrap();
        (endpoint.clone(), Client::new(config, Links::new(endpoint), metrics))
    }
}

fn all() -> Span {
    Span { since_unix_ms: 0, until_unix_ms: 1 << 60, room: None }
}

#[tokio::test]
async fn a_ledger_elsewhere_is_a_ledger_here() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::new();
    let (keeper, store) = cluster.keeper(&dir.path().join("events.db"));
    let (_endpoint, client) = cluster.client(&Registry::new());
    let asks = (0..300).map(|n| client.commit(gift("a", &format!("c{n}"))));
    let answers = futures_util::future::join_all(asks).await;
    let rows: Vec<_> = answers.into_iter().map(|answer| answer.unwrap().row).collect();
    let marks: Vec<_> = rows
        .iter()
        .map(|row| wire::events::Mark {
            id: row.id,
            position: Position { epoch: Epoch(5), offset: row.id },
        })
        .collect();
    client.mark(&marks[..299]).await.unwrap();
    let left = client.take_over(&room("a"), Epoch(6), 0, 500).await.unwrap();
    assert_eq!(left, [rows[299].clone()]);
    assert_eq!(client.commit(gift("a", "c0")).await, Err(Refusal::Stale { current: Epoch(6) }));
    let totals = client.totals(&all()).await.unwrap();
    assert_eq!((totals.rows, totals.unsequenced, totals.duplicates), (300, 1, 0));
    assert_eq!(client.export(&all(), None, 10).await.unwrap().len(), 10);
    assert_eq!(commit(&store, gift("b", "c")).await.unwrap().0.id, 301);
    keeper.close(CloseCode::Shutdown, "").await;
}

#[tokio::test]
async fn an_outage_refuses_gifts_for_as_long_as_it_lasts_and_loses_none() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.db");
    let cluster = Cluster::new();
    let (_endpoint, client) = cluster.client(&Registry::new());
    let refused = client.commit(gift("a", "c1")).await.unwrap_err();
    assert!(refused.to_string().contains("o1 is not in the cluster"), "{refused}");
    for round in 0..3 {
        let (keeper, store) = cluster.keeper(&path);
        let taken = client.commit(gift("a", "c1")).await.unwrap();
        assert_eq!((taken.row.id, taken.is_repeat), (1, round > 0), "always the first one");
        keeper.close(CloseCode::Shutdown, "").await;
        store.close().await;
    }
    let refused = client.commit(gift("a", "c1")).await.unwrap_err();
    assert!(matches!(refused, Refusal::Unavailable { retry_ms: 1.., .. }), "{refused}");
    let (_keeper, store) = cluster.keeper(&path);
    assert!(client.commit(gift("a", "c1")).await.unwrap().is_repeat);
    assert_eq!(commit(&store, gift("a", "c1")).await.unwrap().0.id, 1);
}

#[tokio::test]
async fn events_come_in_batches_and_what_does_not_fit_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::new();
    let registry = Registry::new();
    let (_endpoint, client) = cluster.client(&registry);
    let (recorder, sending) = Recorder::new(client.clone());
    // Nobody keeps them yet: the queue fills, the rest is dropped.
    for at in 0..10_000 {
        recorder.emit(event(EventKind::JOIN, at));
    }
    let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    assert!(text.contains(r#"tidewater_events_dropped_total{reason="queue_full"} 1808"#), "{text}");
    let (_keeper, store) = cluster.keeper(&dir.path().join("events.db"));
    let kept = async {
        loop {
            let mut count = 0;
            let mut after = None;
            while let Ok(page) = client.export(&all(), after, 500).await
                && !page.is_empty()
            {
                count += page.len();
                after = page.last().map(|record| record.cursor);
            }
            if count == 8192 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), kept).await.unwrap();
    drop(recorder);
    sending.finish().await;
    drop(store);
}
