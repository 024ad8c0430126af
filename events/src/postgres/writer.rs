//! The task that writes: everything that waits becomes one transaction, answered after its commit.
//!
//! In: batches. Out: rows, and the answers. Statements of a batch are pipelined: a batch costs a few
//! round trips, not a few per gift. Commits of a room share an advisory lock that a take-over takes
//! alone, so that a take-over sees every gift of the earlier home or that gift is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Transaction};
use wire::events::{Answer, Ask, Event, Gift, Mark, Refusal};
use wire::{Epoch, NodeId, RoomId};

use super::{Line, STATEMENT_TIMEOUT, chain};
use crate::intake::{Batch, Intake, Job, kept};
use crate::rows::{self, StoredGift, signed, unsigned};
use crate::schema;
use crate::store::{Context, PRUNE_BATCH, PRUNE_EVERY, RETRY_MS, is_same, taken, unix_ms};

/// How long the writer sleeps when there is nothing to do.
const IDLE: Duration = Duration::from_secs(3600);

/// Why a batch was not written.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("{}", chain(.0))]
    Postgres(#[from] tokio_postgres::Error),
    #[error("{0}")]
    Row(String),
}

type Answers = Vec<Result<Answer, Refusal>>;

/// Writes until nobody can ask any more.
pub(super) async fn run(mut line: Line, mut intake: Intake, context: Context) {
    let mut health = Health { is_well: true, context: &context };
    let mut next_prune = Instant::now();
    let mut why = "connecting".to_owned();
    loop {
        let batch = tokio::select! {
            biased;
            settled = line.settled() => {
                match settled {
                    Ok(()) => health.well(),
                    Err(error) => {
                        health.ill(&error);
                        why = error;
                    }
                }
                continue;
            }
            batch = intake.gather(IDLE) => batch,
            () = sleep_until(next_prune) => {
                let more = prune(&mut line, &context).await;
                next_prune = Instant::now() + if more { Duration::ZERO } else { PRUNE_EVERY };
                continue;
            }
        };
        let Some(batch) = batch else { return };
        if batch.is_empty() {
            continue;
        }
        context.metrics.queue.set(i64::try_from(intake.depth()).unwrap_or(i64::MAX));
        let Some(client) = line.client() else {
            context.metrics.failures.inc();
            batch.refuse(&Refusal::unavailable(why.as_str(), RETRY_MS));
            continue;
        };
        let timer = context.metrics.commit_seconds.start_timer();
        let failure = match timeout(STATEMENT_TIMEOUT, write(client, &batch)).await {
            Ok(Ok((ledger, events))) => {
                timer.observe_duration();
                context.note_commit(&batch);
                health.well();
                answer(batch.ledger, ledger);
                answer(batch.events, events);
                continue;
            }
            Ok(Err(failure)) => failure.to_string(),
            Err(_) => format!("no answer within {} s", STATEMENT_TIMEOUT.as_secs()),
        };
        timer.stop_and_discard();
        health.ill(&failure);
        // Whatever state the connection is in, another one is in a known state.
        line.lose();
        batch.refuse(&Refusal::unavailable(failure.as_str(), RETRY_MS));
        why = failure;
    }
}

/// Says once that the store has gone or come back.
struct Health<'a> {
    is_well: bool,
    context: &'a Context,
}

impl Health<'_> {
    fn well(&mut self) {
        self.context.metrics.up.set(1);
        if !self.is_well {
            tracing::info!("event store available again");
        }
        self.is_well = true;
    }

    fn ill(&mut self, why: &str) {
        self.context.metrics.failures.inc();
        self.context.metrics.up.set(0);
        if self.is_well {
            tracing::warn!(why, "event store not available");
        }
        self.is_well = false;
    }
}

fn answer(jobs: Vec<Job>, answers: Answers) {
    for (job, answer) in jobs.into_iter().zip(answers) {
        // Whoever does not wait any more needs no answer.
        let _ = job.reply.send(answer);
    }
}

/// Take-overs have transactions of their own, after the commits: a transaction that holds locks of
/// several rooms never waits for one that a take-over holds while that waits for it.
async fn write(client: &mut Client, batch: &Batch) -> Result<(Answers, Answers), Failure> {
    let mut ledger: Vec<Option<Result<Answer, Refusal>>> = vec![None; batch.ledger.len()];
    let now_ms = unix_ms();
    let transaction = client.transaction().await?;
    let mut gifts: Vec<(usize, &NodeId, &Gift)> = Vec::new();
    for (at, job) in batch.ledger.iter().enumerate() {
        match &job.ask {
            Ask::Commit(gift) => gifts.push((at, &job.from, gift)),
            Ask::Mark(marks) => {
                mark(&transaction, marks).await?;
                ledger[at] = Some(Ok(Answer::Done));
            }
            _ => {}
        }
    }
    commit(&transaction, gifts, now_ms, &mut ledger).await?;
    for (at, job) in batch.ledger.iter().enumerate() {
        if let Ask::Find { room, user, client_id } = &job.ask {
            let key = (room.as_str(), user.as_str(), client_id.as_str());
            let found = find(&transaction, key).await?.filter(|found| is_same(found, now_ms));
            ledger[at] = Some(Ok(Answer::Rows(found.into_iter().map(|found| found.row).collect())));
        }
    }
    let mut events = Vec::with_capacity(batch.events.len());
    for job in &batch.events {
        keep(&transaction, &job.from, kept(job)).await?;
        events.push(Ok(Answer::Done));
    }
    transaction.commit().await?;
    for (at, job) in batch.ledger.iter().enumerate() {
        if let Ask::TakeOver { room, epoch, after, limit } = &job.ask {
            let transaction = client.transaction().await?;
            let rows = take_over(&transaction, room, *epoch, *after, *limit, now_ms).await?;
            transaction.commit().await?;
            ledger[at] = Some(rows);
        }
    }
    let nothing = || Err(Refusal::Invalid("not an ask for the writer".to_owned()));
    Ok((ledger.into_iter().map(|answer| answer.unwrap_or_else(nothing)).collect(), events))
}

async fn commit(
    transaction: &Transaction<'_>,
    mut gifts: Vec<(usize, &NodeId, &Gift)>,
    now_ms: i64,
    answers: &mut [Option<Result<Answer, Refusal>>],
) -> Result<(), Failure> {
    if gifts.is_empty() {
        return Ok(());
    }
    // One order on all nodes, so that two transactions with the same keys do not wait for each other
    // in a ring. Stable, so that repeats in one batch stay in the order in which they came.
    gifts.sort_by(|(_, _, a), (_, _, b)| key(a).cmp(&key(b)));
    let fences = lock_rooms(transaction, &gifts).await?;
    gifts.retain(|(at, _, gift)| match fences.get(gift.room.as_str()) {
        Some(&current) if gift.epoch.0 != 0 && current > gift.epoch => {
            answers[*at] = Some(Err(Refusal::Stale { current }));
            false
        }
        _ => true,
    });
    let insert = transaction.prepare(schema::INSERT_GIFT).await?;
    let inserting =
        gifts.iter().map(|(_, from, gift)| run_insert(transaction, &insert, from, gift, 0, now_ms));
    let inserted = try_join_all(inserting).await?;
    for ((at, from, gift), id) in gifts.into_iter().zip(inserted) {
        let answer = match id {
            Some(id) => Ok(taken(id, gift, now_ms)),
            None => repeated(transaction, &insert, from, gift, now_ms).await?,
        };
        answers[at] = Some(answer);
    }
    Ok(())
}

fn key(gift: &Gift) -> (&str, &str, &str) {
    (gift.room.as_str(), gift.user.as_str(), gift.client_id.as_str())
}

/// What becomes of a gift whose key or order is taken.
async fn repeated(
    transaction: &Transaction<'_>,
    insert: &tokio_postgres::Statement,
    from: &NodeId,
    gift: &Gift,
    now_ms: i64,
) -> Result<Result<Answer, Refusal>, Failure> {
    // A second round only if another node was faster with the next reuse of the key.
    for _ in 0..2 {
        let Some(found) = find(transaction, key(gift)).await? else { break };
        if is_same(&found, now_ms) {
            return Ok(Ok(Answer::Gift { row: Box::new(found.row), is_repeat: true }));
        }
        let reuse = found.reuse + 1;
        if let Some(id) = run_insert(transaction, insert, from, gift, reuse, now_ms).await? {
            return Ok(Ok(taken(id, gift, now_ms)));
        }
    }
    // The key is free, so it is the order that is not.
    Ok(Err(Refusal::OrderUsed))
}

async fn run_insert(
    transaction: &Transaction<'_>,
    insert: &tokio_postgres::Statement,
    from: &NodeId,
    gift: &Gift,
    reuse: i64,
    now_ms: i64,
) -> Result<Option<i64>, Failure> {
    let whence = &gift.whence;
    let values: [&(dyn ToSql + Sync); 15] = [
        &now_ms,
        &gift.room.as_str(),
        &gift.user.as_str(),
        &gift.client_id.as_str(),
        &reuse,
        &gift.gift.as_str(),
        &i64::from(gift.count),
        &gift.order.as_str(),
        &signed(gift.value),
        &whence.region.as_str(),
        &i64::from(whence.client.0),
        &i64::from(whence.address.0),
        &gift.detail.as_str(),
        &from.as_str(),
        &signed(gift.epoch.0),
    ];
    let row = transaction.query_opt(insert, &values).await?;
    Ok(row.map(|row| row.get(0)))
}

/// The newest gift of a room, user and client id.
async fn find(
    transaction: &Transaction<'_>,
    (room, user, client_id): (&str, &str, &str),
) -> Result<Option<StoredGift>, Failure> {
    let row = transaction.query_opt(schema::FIND_GIFT, &[&room, &user, &client_id]).await?;
    row.map(|row| rows::gift(&row)).transpose().map_err(Failure::Row)
}

/// Takes the locks of the gifts' rooms, with others, and says under which epochs they were taken over.
async fn lock_rooms(
    transaction: &Transaction<'_>,
    gifts: &[(usize, &NodeId, &Gift)],
) -> Result<BTreeMap<String, Epoch>, Failure> {
    let rooms: BTreeSet<&str> = gifts.iter().map(|(_, _, gift)| gift.room.as_str()).collect();
    let rooms: Vec<&str> = rooms.into_iter().collect();
    let locks = "SELECT pg_advisory_xact_lock_shared(hashtextextended(room, 0))
        FROM unnest($1::text[]) AS room";
    transaction.execute(locks, &[&rooms]).await?;
    let fences = "SELECT room, epoch FROM fences WHERE room = ANY($1)";
    let found = transaction.query(fences, &[&rooms]).await?;
    Ok(found.iter().map(|row| (row.get(0), Epoch(unsigned(row.get(1))))).collect())
}

async fn mark(transaction: &Transaction<'_>, marks: &[Mark]) -> Result<(), Failure> {
    let update = transaction.prepare(schema::MARK).await?;
    let updating = marks.iter().map(async |Mark { id, position }| {
        let (epoch, offset, id) = (signed(position.epoch.0), signed(position.offset), signed(*id));
        transaction.execute(&update, &[&epoch, &offset, &id]).await
    });
    try_join_all(updating).await?;
    Ok(())
}

async fn take_over(
    transaction: &Transaction<'_>,
    room: &RoomId,
    epoch: Epoch,
    after: u64,
    limit: u16,
    now_ms: i64,
) -> Result<Result<Answer, Refusal>, Failure> {
    let room = room.as_str();
    let lock = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))";
    transaction.execute(lock, &[&room]).await?;
    transaction.execute(schema::RAISE_FENCE, &[&room, &signed(epoch.0), &now_ms]).await?;
    let current = transaction.query_one(schema::READ_FENCE, &[&room]).await?;
    let current = Epoch(unsigned(current.get(0)));
    if current > epoch {
        return Ok(Err(Refusal::Stale { current }));
    }
    let found =
        transaction.query(schema::UNSEQUENCED, &[&room, &signed(after), &i64::from(limit)]).await?;
    let rows = found.iter().map(|row| rows::gift(row).map(|stored| stored.row));
    Ok(Ok(Answer::Rows(rows.collect::<Result<_, _>>().map_err(Failure::Row)?)))
}

async fn keep(
    transaction: &Transaction<'_>,
    from: &NodeId,
    events: &[Event],
) -> Result<(), Failure> {
    let insert = transaction.prepare(schema::INSERT_EVENT).await?;
    let inserting = events.iter().map(async |event| {
        let Event { kind, at_unix_ms, room, user, whence, detail } = event;
        let values: [&(dyn ToSql + Sync); 9] = [
            &signed(*at_unix_ms),
            &i64::from(kind.0),
            &room.as_ref().map_or("", RoomId::as_str),
            &user.as_str(),
            &whence.region.as_str(),
            &i64::from(whence.client.0),
            &i64::from(whence.address.0),
            &detail.as_str(),
            &from.as_str(),
        ];
        transaction.execute(&insert, &values).await
    });
    try_join_all(inserting).await?;
    Ok(())
}

/// Forgets a portion of what is past its retention; true if there may be more.
async fn prune(line: &mut Line, context: &Context) -> bool {
    let Some(client) = line.client() else { return false };
    let pruning = async {
        let mut forgotten = 0;
        if let Some(since_ms) = context.events_since_ms() {
            forgotten = client.execute(schema::PRUNE_EVENTS, &[&since_ms, &PRUNE_BATCH]).await?;
        }
        client.execute(schema::PRUNE_FENCES, &[&Context::fences_since_ms()]).await?;
        Ok::<_, tokio_postgres::Error>(forgotten)
    };
    match timeout(STATEMENT_TIMEOUT, pruning).await {
        Ok(Ok(forgotten)) => signed(forgotten) >= PRUNE_BATCH,
        Ok(Err(error)) => {
            tracing::debug!(error = chain(&error), "old events not forgotten now");
            false
        }
        Err(_) => {
            line.lose();
            false
        }
    }
}
