//! The points of the control store where a crash or a full disk matters, each one hit.
//!
//! A binary of its own, whose tests run one after the other: failpoints are global to a process.

#![expect(clippy::unwrap_used, reason = "a test ends where an expectation fails")]

#[path = "it/harness.rs"]
#[expect(dead_code, reason = "shared with tests that need more of it")]
mod harness;

use std::sync::Mutex;

use cluster::Refusal;
use fail::FailScenario;
use harness::{Node, Site, room, until, within};

/// One test at a time.
static ALONE: Mutex<()> = Mutex::new(());

const POINTS: [&str; 3] = ["store-before-write", "store-before-sync", "store-after-sync"];

fn run(test: impl Future<Output = ()>) {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let scenario = FailScenario::setup();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all().build().unwrap().block_on(test);
    scenario.teardown();
}

async fn one() -> (Site, Node) {
    let site = Site::new();
    let o1 = site.alone("o1").await;
    o1.registered().await;
    (site, o1)
}

#[test]
fn a_full_disk_stops_placement_and_nothing_else_and_is_survived_without_a_restart() {
    run(async {
        let (_site, o1) = one().await;
        let grant = o1.client.claim(&room("a"), &o1.id).await.unwrap();
        fail::cfg("store-before-write", "return").unwrap();
        let error = o1.client.claim(&room("b"), &o1.id).await.unwrap_err();
        assert!(error.is_retryable(), "{error}");
        let mut health = o1.control.as_ref().unwrap().health();
        within(health.wait_for(|health| health.fault.is_some())).await.unwrap();
        // What is placed stays known while the store cannot be written.
        let found = o1.client.locate(&grant.room).await.unwrap().placement;
        assert_eq!(found.as_ref(), Some(&grant));
        fail::remove("store-before-write");
        let again = until("placement works again", || async {
            o1.client.claim(&room("b"), &o1.id).await.ok()
        })
        .await;
        assert!(again.epoch > grant.epoch);
        assert_eq!(o1.client.claim(&room("a"), &o1.id).await.unwrap(), grant);
        within(health.wait_for(|health| health.fault.is_none())).await.unwrap();
    });
}

#[test]
fn a_crash_at_each_point_loses_nothing_acknowledged() {
    run(async {
        for point in POINTS {
            let (_site, o1) = one().await;
            let mut acknowledged = Vec::new();
            for round in 0..3 {
                fail::cfg(point, "2*off->1*panic->off").unwrap();
                for i in 0..6 {
                    let name = room(&format!("r{round}-{i}"));
                    let grant = until("a claim is granted", || async {
                        o1.client.claim(&name, &o1.id).await.ok()
                    })
                    .await;
                    acknowledged.push(grant);
                }
                for grant in &acknowledged {
                    let now = within(o1.client.claim(&grant.room, &o1.id)).await.unwrap();
                    assert_eq!(now, *grant, "{point}");
                }
            }
            o1.stop().await;
        }
    });
}

#[test]
fn a_store_that_fails_between_write_and_answer_is_asked_again() {
    run(async {
        let (_site, o1) = one().await;
        for point in POINTS {
            fail::cfg(point, "1*return->off").unwrap();
            let name = room(&format!("once-{point}"));
            let grant =
                until("a claim is granted", || async { o1.client.claim(&name, &o1.id).await.ok() })
                    .await;
            assert!(o1.client.confirm(&grant.room, grant.epoch).await.unwrap(), "{point}");
        }
    });
}

#[test]
fn a_member_that_keeps_panicking_is_given_up_loudly() {
    run(async {
        let (_site, o1) = one().await;
        fail::cfg("store-before-write", "panic(planted)").unwrap();
        let name = room("a");
        let claim = o1.client.claim(&name, &o1.id);
        let (error, failed) =
            within(async { tokio::join!(claim, o1.control.as_ref().unwrap().failed()) }).await;
        assert!(error.unwrap_err().is_retryable());
        assert!(failed.contains("planted"), "{failed}");
        let refused = o1.client.status().await.unwrap_err();
        assert!(!matches!(refused, cluster::Error::Refused(Refusal::Conflict(_))), "{refused}");
    });
}
