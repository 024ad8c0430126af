//! The ledger's part of a node: the store, if it is kept here, and the handles that roles use.
//!
//! In: `[events]`, the control nodes, the cluster's node table. Out: a service for other nodes, a handle
//! for gifts and events in the words of the origin ([`Origin`] takes a [`ledger::Handle`]), and a
//! client for the API. Who keeps the store is decided here, from the configuration alone: the same on
//! every node.
//!
//! [`Origin`]: origin::Origin

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use events::order::{ShopKey, Wanted};
use events::{Client, ClientConfig, LedgerService, Metrics, Recorder, Sending, Server, Store};
use origin::sequencer::ledger::{
    self, Answer, Committed, EventKind as Kind, Gift, LedgerError, MAX_UNMARKED, Paid, Place, Shop,
};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use wire::events::{
    AddressClass, ClientKind, Detail, Event, EventKind, GiftRow, Id, MAX_PAGE, Mark, Name,
    Position, Refusal, ShortError, Whence,
};
use wire::{Epoch, Links, NodeId, Region, RoomId, Service};

use crate::assemble::Plan;
use crate::config::{Config, EventStore, Events};
use crate::telemetry::NodeMetrics;

/// The ledger as one node has it.
#[derive(Debug)]
pub struct Ledger {
    store: Option<Store>,
    client: Client,
    recorder: Recorder,
    sending: Sending,
    region: Region,
}

impl Ledger {
    /// Opens the store if it is kept here, and the handle on it wherever it is kept.
    ///
    /// # Errors
    /// If the store can never be opened; names the key to change.
    pub fn start(
        plan: &Plan,
        config: &Config,
        control: &[(NodeId, SocketAddr)],
        nodes: watch::Receiver<Arc<cluster::NodeTable>>,
        links: Links,
        metrics: &NodeMetrics,
    ) -> anyhow::Result<Self> {
        let metrics = Metrics::register(&metrics.registry)?;
        let control_ids: Vec<_> = control.iter().map(|(node, _)| node.clone()).collect();
        let keepers = keepers(&config.events, &control_ids);
        let store = match keepers.contains(&plan.id) {
            true => Some(open(plan, &config.events, metrics.clone())?),
            false => None,
        };
        let known = control.to_vec();
        let directory = move |node: &NodeId| {
            let listed = nodes.borrow().get(node).map(|info| info.spec.addr);
            // Before the table is there, the control nodes are where the configuration says.
            listed.or_else(|| known.iter().find(|(id, _)| id == node).map(|(_, address)| *address))
        };
        let client = ClientConfig {
            node: plan.id.clone(),
            keepers,
            local: store.clone(),
            directory: Arc::new(directory),
        };
        let client = Client::new(client, links, metrics);
        let (recorder, sending) = Recorder::new(client.clone());
        Ok(Self { store, client, recorder, sending, region: plan.region.clone() })
    }

    /// The service for other nodes, if the store is kept here.
    #[must_use]
    pub fn service(&self) -> Option<Arc<dyn Service>> {
        let store = self.store.clone()?;
        Some(Arc::new(LedgerService::new(store)) as Arc<dyn Service>)
    }

    /// The handle for queries.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Where roles put events.
    #[must_use]
    pub fn recorder(&self) -> Recorder {
        self.recorder.clone()
    }

    /// The handle for rooms at home here.
    #[must_use]
    pub fn handle(&self) -> ledger::Handle {
        let (client, recorder) = (self.client.clone(), self.recorder.clone());
        Arc::new(Counter { client, recorder, region: self.region.clone() })
    }

    /// Where the edge notes who comes and goes.
    #[must_use]
    pub fn journal(&self) -> Arc<dyn edge::hub::Journal> {
        Arc::new(Visits { recorder: self.recorder.clone() })
    }

    /// Sends the last events and closes the store.
    pub async fn stop(self) {
        drop(self.recorder);
        self.sending.finish().await;
        if let Some(store) = self.store {
            store.close().await;
        }
    }
}

/// Who keeps the store. With SQLite one node, which never changes by itself: the file does not move.
/// With PostgreSQL every control node may, and if one is down the next is asked.
fn keepers(events: &Events, control: &[NodeId]) -> Vec<NodeId> {
    match (&events.node, &events.store) {
        (Some(node), _) => vec![node.clone()],
        (None, EventStore::Postgres(_)) => control.to_vec(),
        (None, EventStore::Sqlite(_)) => control.first().cloned().into_iter().collect(),
    }
}

fn open(plan: &Plan, events: &Events, metrics: Metrics) -> anyhow::Result<Store> {
    let opened = match &events.store {
        EventStore::Sqlite(path) => {
            let path = path.clone().unwrap_or_else(|| plan.data.join("events.db"));
            Store::sqlite(&path, events.retention, metrics)
        }
        EventStore::Postgres(url) => Server::new(url.reveal(), events.ca.as_deref())
            .and_then(|server| Store::postgres(server, events.retention, metrics)),
    };
    opened.context("events.store: cannot keep events there")
}

/// Who checks the orders of a shop, if one has a key.
#[must_use]
pub fn shop(config: &Config) -> Option<Arc<dyn Shop>> {
    let key = ShopKey::new(config.room.shop_key.as_ref()?.reveal().as_bytes())?;
    Some(Arc::new(SignedOrders { key }))
}

/// Orders that carry a shop's signature.
#[derive(Debug)]
struct SignedOrders {
    key: ShopKey,
}

impl Shop for SignedOrders {
    fn check(&self, gift: &Gift, now_unix_ms: u64) -> Option<Paid> {
        let wanted =
            Wanted { room: &gift.room, user: &gift.uid, gift: &gift.gift, count: gift.count };
        match self.key.check(gift.order.as_deref()?, wanted, now_unix_ms / 1000) {
            Ok(order) => Some(Paid { order: order.id, value: order.value }),
            Err(error) => {
                tracing::debug!(room = %gift.room, %error, "order refused");
                None
            }
        }
    }
}

/// Gifts and events of rooms at home here, on their way to the ledger.
#[derive(Debug)]
struct Counter {
    client: Client,
    recorder: Recorder,
    /// Where this node stands: for what is said without a region.
    region: Region,
}

/// Members who come and go, on their way to the events.
#[derive(Debug)]
struct Visits {
    recorder: Recorder,
}

impl edge::hub::Journal for Visits {
    fn note(&self, event: Event) {
        self.recorder.emit(event);
    }
}

/// What the ledger keeps of a giver beyond its columns. Fields are only ever added.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Giver {
    /// The name.
    #[serde(default)]
    n: String,
    /// The role.
    #[serde(default)]
    r: String,
}

impl ledger::Ledger for Counter {
    fn commit(&self, gift: Gift) -> Answer<'_, Committed> {
        Box::pin(async move {
            let mut gift = row(gift).map_err(|error| LedgerError::Refused(error.to_string()))?;
            if gift.whence.region == Region::default() {
                gift.whence.region = self.region.clone();
            }
            let committed = self.client.commit(gift).await.map_err(refused)?;
            Ok(given(committed.row))
        })
    }

    fn find(&self, room: RoomId, uid: String, cid: String) -> Answer<'_, Option<Committed>> {
        Box::pin(async move {
            // What is too long for the ledger is not in it.
            let (Ok(user), Ok(client_id)) = (Id::new(uid), Id::new(cid)) else { return Ok(None) };
            let found = self.client.find(&room, user, client_id).await.map_err(refused)?;
            Ok(found.map(given))
        })
    }

    fn mark(&self, _room: RoomId, id: u64, at: Place) -> Answer<'_, ()> {
        let position = Position { epoch: at.epoch, offset: at.offset };
        Box::pin(async move { self.client.mark(&[Mark { id, position }]).await.map_err(refused) })
    }

    fn unmarked(&self, room: RoomId, epoch: Epoch) -> Answer<'_, Vec<Committed>> {
        Box::pin(async move {
            let mut found: Vec<Committed> = Vec::new();
            while found.len() < MAX_UNMARKED {
                let after = found.last().map_or(0, |last| last.id);
                let rows = self.client.take_over(&room, epoch, after, MAX_PAGE).await;
                let rows = rows.map_err(refused)?;
                let is_last = rows.len() < usize::from(MAX_PAGE);
                found.extend(rows.into_iter().map(given));
                if is_last {
                    break;
                }
            }
            Ok(found)
        })
    }

    fn note(&self, event: ledger::Event) {
        let ledger::Event { at_unix_ms, room, uid, region, client, address, kind } = event;
        let (kind, detail) = match kind {
            Kind::Join => (EventKind::JOIN, None),
            Kind::Leave => (EventKind::LEAVE, None),
            Kind::Publish => (EventKind::PUBLISH, None),
            Kind::Unpublish => (EventKind::UNPUBLISH, None),
            Kind::RoomStart => (EventKind::ROOM_START, None),
            Kind::RoomEnd => (EventKind::ROOM_END, None),
            Kind::Chat { id, text } => {
                (EventKind::CHAT, Some(serde_json::json!({ "id": id, "text": text })))
            }
            Kind::Moderation { by, action, target } => {
                let detail = serde_json::json!({ "by": by, "action": action, "target": target });
                (EventKind::MODERATION, Some(detail))
            }
            _ => return,
        };
        self.recorder.emit(Event {
            kind,
            at_unix_ms,
            room: Some(room),
            user: Id::clip(&uid),
            whence: Whence {
                region: Region::new(&region).unwrap_or_else(|_| self.region.clone()),
                client: ClientKind::by_name(client),
                address: AddressClass::by_name(address),
            },
            // Chat is at most some hundred characters; what is longer than a detail is not kept.
            detail: detail.and_then(|d| Detail::new(d.to_string()).ok()).unwrap_or_default(),
        });
    }
}

/// A gift as the ledger takes it.
fn row(gift: Gift) -> Result<wire::events::Gift, ShortError> {
    let giver = Giver { n: gift.name, r: gift.role };
    let giver = serde_json::to_string(&giver).expect("two strings always serialise");
    Ok(wire::events::Gift {
        room: gift.room,
        user: Id::new(gift.uid)?,
        client_id: Id::new(gift.cid)?,
        epoch: gift.epoch,
        gift: Name::new(gift.gift)?,
        count: gift.count,
        order: Id::new(gift.order.unwrap_or_default())?,
        value: gift.value,
        whence: gift.whence,
        detail: Detail::new(giver)?,
    })
}

/// A row of the ledger as rooms know it.
fn given(row: GiftRow) -> Committed {
    let GiftRow { id, at_unix_ms, gift, position } = row;
    let giver: Giver = serde_json::from_str(gift.detail.as_str()).unwrap_or_default();
    let order = Some(String::from(gift.order)).filter(|order| !order.is_empty());
    let gift = Gift {
        room: gift.room,
        epoch: gift.epoch,
        uid: gift.user.into(),
        name: giver.n,
        role: giver.r,
        cid: gift.client_id.into(),
        gift: gift.gift.into(),
        count: gift.count,
        order,
        value: gift.value,
        whence: gift.whence,
        at_unix_ms,
    };
    let place = position.map(|Position { epoch, offset }| Place { epoch, offset });
    Committed { id, gift, place }
}

fn refused(refusal: Refusal) -> LedgerError {
    match refusal {
        Refusal::Unavailable { why, retry_ms } => {
            tracing::debug!(why, "the ledger is away");
            LedgerError::Unavailable { retry_after: Duration::from_millis(retry_ms.into()) }
        }
        Refusal::Stale { current } => LedgerError::Stale { current },
        Refusal::OrderUsed => LedgerError::OrderUsed,
        other => LedgerError::Refused(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_node_keeps_a_file_and_any_control_node_a_database() {
        let nodes = ["o1", "o2"].map(|id| NodeId::new(id).unwrap());
        let events = |store, node: Option<&str>| Events {
            store,
            node: node.map(|id| NodeId::new(id).unwrap()),
            ca: None,
            retention: Duration::ZERO,
        };
        let postgres = || EventStore::Postgres(crate::config::Secret::new(String::new()));
        assert_eq!(keepers(&events(EventStore::Sqlite(None), None), &nodes), nodes[..1]);
        assert_eq!(keepers(&events(postgres(), None), &nodes), nodes);
        let named = keepers(&events(postgres(), Some("e9")), &nodes);
        assert_eq!(named, [NodeId::new("e9").unwrap()]);
    }

    #[test]
    fn a_gift_comes_back_as_it_went() {
        let gift = Gift {
            room: RoomId::parse("live/a").unwrap(),
            epoch: Epoch(3),
            uid: "u".into(),
            name: "Mei \"the\" 1st".into(),
            role: "host".into(),
            cid: "c".into(),
            gift: "rose".into(),
            count: 2,
            order: Some("A-1".into()),
            value: 7,
            whence: Whence::default(),
            at_unix_ms: 5,
        };
        let stored =
            GiftRow { id: 1, at_unix_ms: 5, gift: row(gift.clone()).unwrap(), position: None };
        assert_eq!(given(stored), Committed { id: 1, gift: gift.clone(), place: None });
        let long = Gift { cid: "x".repeat(200), ..gift };
        assert!(row(long).unwrap_err().to_string().contains("over the limit"));
    }
}
