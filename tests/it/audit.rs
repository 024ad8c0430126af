//! The gift ledger under kill -9: what was acknowledged is in the ledger, once.
//!
//! Senders give gifts through two edges and send each again, through the other edge, until it is
//! acknowledged. Meanwhile edges, homes and the ledger's node are killed at random and started again,
//! and homes move. At the end the ledger is read and compared with what the senders know.
//!
//! `make audit` does it a hundred times; the ordinary tests a few.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::member::Member;
use tests::process::Tidewater;
use tests::{eventually, http};
use tokio::time::timeout;

use crate::places::{Place, lay_out};

const ROOMS: [&str; 3] = ["live/a", "live/b", "live/c"];
const SENDERS: u64 = 6;
/// How long a sender waits for an answer before it sends the gift again elsewhere.
const PATIENCE: Duration = Duration::from_secs(5);
/// Gifts that are acknowledged between two kills, at least.
const GIFTS_BETWEEN_KILLS: usize = 5;

/// What the senders know.
#[derive(Default)]
struct Book {
    sent: Mutex<BTreeSet<String>>,
    /// Client id → the id that was acknowledged.
    acknowledged: Mutex<BTreeMap<String, String>>,
    resent: AtomicU64,
    stop: AtomicBool,
}

impl Book {
    fn acknowledged(&self) -> usize {
        self.acknowledged.lock().map(|book| book.len()).unwrap_or_default()
    }

    fn note(&self, cid: &str, id: String) -> Result<()> {
        let mut book = self.acknowledged.lock().ok().context("a sender panicked")?;
        if let Some(before) = book.insert(cid.to_owned(), id.clone()) {
            ensure!(before == id, "gift {cid} was acknowledged as {before} and as {id}");
        }
        Ok(())
    }
}

/// One person who gives until told to stop, and then until everything sent is acknowledged.
async fn sender(number: u64, edges: [SocketAddr; 2], book: Arc<Book>) -> Result<()> {
    let secret = format!("the secret of sender {number:04}");
    let room = ROOMS[number as usize % ROOMS.len()];
    let mut at = number as usize;
    let mut member: Option<Member> = None;
    for gift in 0_u64.. {
        if book.stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        let cid = format!("{number}-{gift}");
        if let Ok(mut sent) = book.sent.lock() {
            sent.insert(cid.clone());
        }
        let frame = json!({"t": "gift", "c": cid, "g": "rose", "n": 1});
        for attempt in 0.. {
            if attempt > 0 {
                book.resent.fetch_add(1, Ordering::Relaxed);
            }
            let answer = timeout(PATIENCE, async {
                if member.is_none() {
                    member = Some(Member::join(edges[at % 2], room, &secret, None).await?);
                }
                member.as_mut().context("joined")?.ask(&frame).await
            });
            match answer.await {
                Ok(Ok(answer)) if answer["t"] == "ok" => {
                    let id = answer["id"].as_str().context("an id")?;
                    book.note(&cid, id.to_owned())?;
                    break;
                }
                // Refused for now: again in a moment, where one is.
                Ok(Ok(answer)) => {
                    let code = answer["code"].as_str().unwrap_or_default();
                    ensure!(["unavailable", "rate_limited"].contains(&code), "{answer}");
                    let retry_ms = answer["retry_ms"].as_u64().unwrap_or(100).min(1000);
                    tokio::time::sleep(Duration::from_millis(retry_ms)).await;
                }
                // No answer, or no connection: through the other edge.
                Ok(Err(_)) | Err(_) => {
                    member = None;
                    at += 1;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
    Ok(())
}

/// A shop that gives through the API of whichever node is the room's home.
async fn shop(origins: [SocketAddr; 3], book: Arc<Book>) -> Result<()> {
    let mut at = 0;
    for gift in 0_u64.. {
        if book.stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        let cid = format!("shop-{gift}");
        if let Ok(mut sent) = book.sent.lock() {
            sent.insert(cid.clone());
        }
        let path = format!("/api/v1/rooms/{}/messages", ROOMS[0]);
        let order = format!("order-{gift}");
        let user = json!({"id": "buyer", "n": "Buyer", "r": "member"});
        let body = json!({"t": "gift", "c": cid, "u": user, "g": "rose", "n": 2, "order": order});
        for attempt in 0.. {
            if attempt > 0 {
                book.resent.fetch_add(1, Ordering::Relaxed);
            }
            let answer = timeout(PATIENCE, http::post(origins[at % 3], &path, &body)).await;
            match answer {
                Ok(Ok(answer)) if answer.status == 200 => {
                    let said: Value = serde_json::from_slice(&answer.body)?;
                    book.note(&cid, said["id"].as_str().context("an id")?.to_owned())?;
                    break;
                }
                Ok(Ok(answer)) => {
                    ensure!([409, 503].contains(&answer.status), "{}", answer.text());
                    at += usize::from(answer.status == 409);
                }
                Ok(Err(_)) | Err(_) => at += 1,
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    Ok(())
}

/// A node that is killed and started again.
struct Victim<'a> {
    place: &'a Place,
    process: Option<Tidewater>,
}

impl Victim<'_> {
    async fn kill(&mut self) -> Result<()> {
        match self.process.take() {
            Some(process) => process.kill().await,
            None => Ok(()),
        }
    }

    async fn start(&mut self) -> Result<()> {
        self.process = Some(self.place.start().await?);
        Ok(())
    }
}

/// The home of a room, as any control node knows it.
async fn home(room: &str, admin: SocketAddr) -> Result<String> {
    let admin = format!("admin.listen={admin}");
    let (code, out, err) =
        Tidewater::command(&["room", "show", room, "--json", "--set", &admin]).await?;
    ensure!(code == Some(0), "{err}");
    let room: Value = serde_json::from_str(&out)?;
    Ok(room["home"].as_str().context("a home")?.to_owned())
}

/// A number below `below`, from a sequence that is the same in every run.
fn draw(state: &mut u64, below: u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % below
}

async fn audit(kills: usize, seed: u64) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let [o1, o2, o3, e1, e2] = lay_out(dir.path(), ["o1", "o2", "o3", "e1", "e2"]).await?;
    let places = [&o1, &o2, &o3, &e1, &e2];
    for place in places {
        let text = std::fs::read_to_string(&place.config)?;
        std::fs::write(&place.config, format!("{text}\n[room]\nopen_gifts = true\n"))?;
    }
    let (p1, p2, p3) = tokio::join!(o1.start(), o2.start(), o3.start());
    let (p4, p5) = tokio::join!(e1.start(), e2.start());
    let started = [p1?, p2?, p3?, p4?, p5?];
    let mut victims: Vec<_> = places
        .into_iter()
        .zip(started)
        .map(|(place, process)| Victim { place, process: Some(process) })
        .collect();
    let book = Arc::<Book>::default();
    let edges = [e1.at(8080), e2.at(8080)];
    let mut senders: Vec<_> =
        (0..SENDERS).map(|number| tokio::spawn(sender(number, edges, Arc::clone(&book)))).collect();
    let origins = [&o1, &o2, &o3].map(|place| place.at(8081));
    senders.push(tokio::spawn(shop(origins, Arc::clone(&book))));

    let mut random = seed;
    let (mut killed, mut moves) = (BTreeMap::<String, usize>::new(), 0);
    for _ in 0..kills {
        let wanted = book.acknowledged() + GIFTS_BETWEEN_KILLS;
        eventually("gifts are acknowledged", async || {
            (book.acknowledged() >= wanted).then_some(())
        })
        .await
        .with_context(|| format!("after killing {killed:?}"))?;
        let room = ROOMS[draw(&mut random, ROOMS.len() as u64) as usize];
        let (role, victim) = match draw(&mut random, 4) {
            0 => ("ledger", "o1".to_owned()),
            1 => ("edge", format!("e{}", 1 + draw(&mut random, 2))),
            2 => ("home", home(room, o2.at(8081)).await.unwrap_or_else(|_| "o2".to_owned())),
            _ => ("origin", format!("o{}", 2 + draw(&mut random, 2))),
        };
        let before = home(room, o2.at(8081)).await.ok();
        let found = victims.iter_mut().find(|node| node.place.id == victim);
        let victim = found.context(victim)?;
        victim.kill().await?;
        *killed.entry(role.to_owned()).or_default() += 1;
        // Started again at once, a node keeps its rooms; away for longer, it loses them to others.
        if before.as_deref() == Some(victim.place.id) && draw(&mut random, 2) == 0 {
            let watcher = if victim.place.id == "o2" { &o3 } else { &o2 };
            eventually("the room has another home", async || {
                let now = home(room, watcher.at(8081)).await.ok();
                (now.is_some() && now != before).then_some(())
            })
            .await?;
            moves += 1;
        }
        victim.start().await?;
    }
    book.stop.store(true, Ordering::Relaxed);
    for sender in senders {
        timeout(tests::PATIENCE * 2, sender).await.context("a gift is never acknowledged")???;
    }
    compare(&book, o1.at(8081), &format!("kills {killed:?} moves waited for {moves}")).await
}

/// Reads the ledger and holds it against what the senders know.
async fn compare(book: &Book, admin: SocketAddr, what: &str) -> Result<()> {
    let admin = format!("admin.listen={admin}");
    let args = ["events", "export", "--since", "1d", "--set", &admin];
    let (code, out, err) = Tidewater::command(&args).await?;
    ensure!(code == Some(0), "{err}");
    let lines = out.lines().map(serde_json::from_str::<Value>).collect::<Result<Vec<_>, _>>()?;
    let mut found = BTreeMap::<String, BTreeSet<String>>::new();
    for gift in lines.iter().filter(|line| line["type"] == "gift") {
        let cid = gift["detail"]["client_id"].as_str().context("a client id")?;
        let id = gift["id"].as_str().context("an id")?;
        found.entry(cid.to_owned()).or_default().insert(id.to_owned());
    }
    let sent = book.sent.lock().ok().context("a sender panicked")?.clone();
    let acknowledged = book.acknowledged.lock().ok().context("a sender panicked")?.clone();
    let duplicated: usize = found.values().map(|ids| ids.len() - 1).sum();
    println!(
        "gift audit: sent {} acknowledged {} found {} duplicated {duplicated}; resent {}; {what}",
        sent.len(),
        acknowledged.len(),
        found.len(),
        book.resent.load(Ordering::Relaxed),
    );
    ensure!(duplicated == 0);
    ensure!(sent.len() == acknowledged.len(), "a sender stopped before its last answer");
    ensure!(found.len() == acknowledged.len());
    for (cid, id) in &acknowledged {
        ensure!(found.get(cid).is_some_and(|ids| ids.contains(id)), "gift {cid}, {id}");
    }
    let args = ["events", "totals", "--json", "--set", &admin];
    let totals: Value = serde_json::from_str(&Tidewater::command(&args).await?.1)?;
    ensure!(totals["duplicates"] == 0, "{totals}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gifts_survive_a_few_kills() -> Result<()> {
    audit(4, 1).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: make audit"]
async fn gifts_survive_a_hundred_kills() -> Result<()> {
    let kills = std::env::var("AUDIT_KILLS").ok().and_then(|text| text.parse().ok());
    let seed = std::env::var("AUDIT_SEED").ok().and_then(|text| text.parse().ok());
    audit(kills.unwrap_or(100), seed.unwrap_or(2)).await
}
