//! The thread that writes: everything that waits becomes one transaction, answered after its commit.
//!
//! In: batches. Out: rows that a power cut does not take, and the answers. When a statement or the
//! commit fails nothing of the batch is written and everybody in it is told so. Between batches it
//! forgets what is past its retention.

use std::time::Instant;

use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};
use tokio::runtime::Handle;
use wire::NodeId;
use wire::events::{Answer, Ask, Event, Gift, Mark, Refusal};
use wire::{Epoch, RoomId};

use super::File;
use crate::intake::{Batch, Intake, Job, kept};
use crate::rows::{self, StoredGift, signed, unsigned};
use crate::schema;
use crate::store::{Context, PRUNE_BATCH, PRUNE_EVERY, RETRY_MS, is_same, taken, unix_ms};

/// Why a batch was not written.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error("{0}")]
    Row(String),
}

type Answers = Vec<Result<Answer, Refusal>>;

/// Writes until nobody can ask any more.
pub(super) fn run(runtime: &Handle, mut file: File, mut intake: Intake, context: &Context) {
    let mut next_prune = Instant::now();
    let mut is_well = file.connection.is_some();
    loop {
        let patience = next_prune.saturating_duration_since(Instant::now());
        let Some(batch) = runtime.block_on(intake.gather(patience)) else { break };
        if batch.is_empty() {
            let more = prune(&mut file, context);
            next_prune =
                Instant::now() + if more { std::time::Duration::ZERO } else { PRUNE_EVERY };
            continue;
        }
        let depth = i64::try_from(intake.depth()).unwrap_or(i64::MAX);
        context.metrics.queue.set(depth);
        let timer = context.metrics.commit_seconds.start_timer();
        match write(&mut file, &batch) {
            Ok((ledger, events)) => {
                timer.observe_duration();
                context.note_commit(&batch);
                if !is_well {
                    tracing::info!("event store available again");
                }
                is_well = true;
                answer(batch.ledger, ledger);
                answer(batch.events, events);
            }
            Err(why) => {
                timer.stop_and_discard();
                context.metrics.failures.inc();
                context.metrics.up.set(0);
                // Once per outage: while it lasts every batch fails.
                if is_well {
                    tracing::warn!(path = %file.path.display(), %why, "event store not available");
                }
                is_well = false;
                batch.refuse(&Refusal::unavailable(why, RETRY_MS));
            }
        }
    }
    if let Some(connection) = file.connection.take()
        && let Err((_, error)) = connection.close()
    {
        tracing::warn!(%error, "event store not closed well");
    }
}

fn answer(jobs: Vec<Job>, answers: Answers) {
    for (job, answer) in jobs.into_iter().zip(answers) {
        // Whoever does not wait any more needs no answer.
        let _ = job.reply.send(answer);
    }
}

fn write(file: &mut File, batch: &Batch) -> Result<(Answers, Answers), String> {
    let connection = file.connection()?;
    match transact(connection, batch) {
        Ok(answers) => Ok(answers),
        Err(failure) => {
            if let Failure::Sqlite(error) = &failure {
                file.note_failure(error);
            }
            Err(failure.to_string())
        }
    }
}

fn transact(connection: &mut Connection, batch: &Batch) -> Result<(Answers, Answers), Failure> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let now_ms = unix_ms();
    let mut ledger = Vec::with_capacity(batch.ledger.len());
    for job in &batch.ledger {
        ledger.push(match &job.ask {
            Ask::Commit(gift) => commit(&transaction, &job.from, gift, now_ms)?,
            Ask::Mark(marks) => mark(&transaction, marks)?,
            Ask::TakeOver { room, epoch, after, limit } => {
                take_over(&transaction, room, *epoch, *after, *limit, now_ms)?
            }
            Ask::Find { room, user, client_id } => {
                let key = [room.as_str(), user.as_str(), client_id.as_str()];
                let found = find(&transaction, key)?.filter(|found| is_same(found, now_ms));
                Ok(Answer::Rows(found.into_iter().map(|found| found.row).collect()))
            }
            _ => Err(Refusal::Invalid("not an ask for the writer".to_owned())),
        });
    }
    let mut events = Vec::with_capacity(batch.events.len());
    for job in &batch.events {
        for event in kept(job) {
            keep(&transaction, &job.from, event)?;
        }
        events.push(Ok(Answer::Done));
    }
    transaction.commit()?;
    Ok((ledger, events))
}

fn commit(
    transaction: &Transaction<'_>,
    from: &NodeId,
    gift: &Gift,
    now_ms: i64,
) -> Result<Result<Answer, Refusal>, Failure> {
    if let Some(current) = fence(transaction, &gift.room)?
        && gift.epoch.0 != 0
        && current > gift.epoch
    {
        return Ok(Err(Refusal::Stale { current }));
    }
    let mut reuse = 0;
    if let Some(id) = insert(transaction, from, gift, reuse, now_ms)? {
        return Ok(Ok(taken(id, gift, now_ms)));
    }
    let key = [gift.room.as_str(), gift.user.as_str(), gift.client_id.as_str()];
    if let Some(found) = find(transaction, key)? {
        if is_same(&found, now_ms) {
            return Ok(Ok(Answer::Gift { row: Box::new(found.row), is_repeat: true }));
        }
        reuse = found.reuse + 1;
        if let Some(id) = insert(transaction, from, gift, reuse, now_ms)? {
            return Ok(Ok(taken(id, gift, now_ms)));
        }
    }
    // The key is free, so it is the order that is not.
    Ok(Err(Refusal::OrderUsed))
}

fn insert(
    transaction: &Transaction<'_>,
    from: &NodeId,
    gift: &Gift,
    reuse: i64,
    now_ms: i64,
) -> Result<Option<i64>, Failure> {
    let whence = &gift.whence;
    let id = transaction
        .prepare_cached(schema::INSERT_GIFT)?
        .query_row(
            params![
                now_ms,
                gift.room.as_str(),
                gift.user.as_str(),
                gift.client_id.as_str(),
                reuse,
                gift.gift.as_str(),
                gift.count,
                gift.order.as_str(),
                signed(gift.value),
                whence.region.as_str(),
                whence.client.0,
                whence.address.0,
                gift.detail.as_str(),
                from.as_str(),
                signed(gift.epoch.0),
            ],
            |row| row.get(0),
        )
        .optional()?;
    Ok(id)
}

/// The newest gift of a room, user and client id.
fn find(transaction: &Transaction<'_>, key: [&str; 3]) -> Result<Option<StoredGift>, Failure> {
    let found = transaction
        .prepare_cached(schema::FIND_GIFT)?
        .query_row(key, |row| Ok(rows::gift(row)))
        .optional()?;
    found.transpose().map_err(Failure::Row)
}

fn fence(transaction: &Transaction<'_>, room: &RoomId) -> Result<Option<Epoch>, Failure> {
    let epoch: Option<i64> = transaction
        .prepare_cached(schema::READ_FENCE)?
        .query_row([room.as_str()], |row| row.get(0))
        .optional()?;
    Ok(epoch.map(|epoch| Epoch(unsigned(epoch))))
}

fn mark(transaction: &Transaction<'_>, marks: &[Mark]) -> Result<Result<Answer, Refusal>, Failure> {
    let mut update = transaction.prepare_cached(schema::MARK)?;
    for Mark { id, position } in marks {
        update.execute([signed(position.epoch.0), signed(position.offset), signed(*id)])?;
    }
    Ok(Ok(Answer::Done))
}

fn take_over(
    transaction: &Transaction<'_>,
    room: &RoomId,
    epoch: Epoch,
    after: u64,
    limit: u16,
    now_ms: i64,
) -> Result<Result<Answer, Refusal>, Failure> {
    transaction.prepare_cached(schema::RAISE_FENCE)?.execute(params![
        room.as_str(),
        signed(epoch.0),
        now_ms
    ])?;
    if let Some(current) = fence(transaction, room)?
        && current > epoch
    {
        return Ok(Err(Refusal::Stale { current }));
    }
    let mut unsequenced = transaction.prepare_cached(schema::UNSEQUENCED)?;
    let mut found = Vec::new();
    let mut cursor = unsequenced.query(params![room.as_str(), signed(after), limit])?;
    while let Some(row) = cursor.next()? {
        found.push(rows::gift(row).map_err(Failure::Row)?.row);
    }
    Ok(Ok(Answer::Rows(found)))
}

fn keep(transaction: &Transaction<'_>, from: &NodeId, event: &Event) -> Result<(), Failure> {
    let Event { kind, at_unix_ms, room, user, whence, detail } = event;
    transaction.prepare_cached(schema::INSERT_EVENT)?.execute(params![
        signed(*at_unix_ms),
        kind.0,
        room.as_ref().map_or("", RoomId::as_str),
        user.as_str(),
        whence.region.as_str(),
        whence.client.0,
        whence.address.0,
        detail.as_str(),
        from.as_str(),
    ])?;
    Ok(())
}

/// Forgets a portion of what is past its retention; true if there may be more.
fn prune(file: &mut File, context: &Context) -> bool {
    let pruned = file.connection().and_then(|connection| {
        let mut forgotten = 0;
        if let Some(since_ms) = context.events_since_ms() {
            let gone = connection.execute(schema::PRUNE_EVENTS, [since_ms, PRUNE_BATCH]);
            forgotten = gone.map_err(|error| error.to_string())?;
        }
        connection
            .execute(schema::PRUNE_FENCES, [Context::fences_since_ms()])
            .map_err(|error| error.to_string())?;
        Ok(forgotten)
    });
    match pruned {
        Ok(forgotten) => i64::try_from(forgotten).is_ok_and(|count| count >= PRUNE_BATCH),
        Err(why) => {
            tracing::debug!(%why, "old events not forgotten now");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;
    use wire::events::{Detail, Id, Name, Whence};

    use super::*;
    use crate::sqlite::open;

    fn batch(first: u64) -> Batch {
        let jobs = (first..first + 50).map(|number| {
            let gift = Gift {
                room: RoomId::new("live", "full").unwrap(),
                user: Id::new("u").unwrap(),
                client_id: Id::new(number.to_string()).unwrap(),
                epoch: Epoch(1),
                gift: Name::new("rose").unwrap(),
                count: 1,
                order: Id::default(),
                value: 0,
                whence: Whence::default(),
                detail: Detail::new("x".repeat(500)).unwrap(),
            };
            let from = NodeId::new("o1").unwrap();
            Job { from, ask: Ask::Commit(gift), reply: oneshot::channel().0 }
        });
        Batch { ledger: jobs.collect(), events: Vec::new() }
    }

    /// A disk that is full answers as a file at its greatest number of pages does: SQLITE_FULL.
    #[test]
    fn a_full_disk_writes_nothing_of_a_batch_and_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.db");
        let connection = open(&path).ok().unwrap();
        connection.pragma_update(None, "max_page_count", 40).unwrap();
        let mut file = File { path: path.clone(), connection: Some(connection), failed: None };
        let mut written = 0;
        let why = loop {
            match write(&mut file, &batch(written)) {
                Ok((answers, _)) => {
                    assert!(answers.iter().all(Result::is_ok));
                    written += 50;
                }
                Err(why) => break why,
            }
        };
        assert!(why.contains("full"), "{why}");
        let why = write(&mut file, &batch(written)).err().unwrap();
        assert!(why.contains("just failed"), "no hammering: {why}");
        let count = || -> u64 {
            let read = open(&path).ok().unwrap();
            let count = read.query_row("SELECT COUNT(*) FROM gifts", [], |row| row.get(0));
            unsigned(count.unwrap())
        };
        assert_eq!(count(), written, "all of every batch that was answered, none of the other");
        // There is room again: the file is opened anew and has no such limit.
        while write(&mut file, &batch(written)).is_err() {
            std::thread::yield_now();
        }
        assert_eq!(count(), written + 50);
    }
}
