//! The thread that reads: exports and sums, beside the writer and never in its way.
//!
//! In: queries, one after the other. Out: pages of records, totals. WAL gives each a view of its own.

use rusqlite::{Connection, params};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use wire::RoomId;
use wire::events::{
    Answer, Ask, Cursor, GiftTotal, MAX_PAGE, Name, REPEAT_WINDOW_MS, Record, Refusal, Span, Totals,
};

use super::File;
use super::writer::Failure;
use crate::intake::Job;
use crate::metrics::Metrics;
use crate::rows::{self, signed, unsigned};
use crate::schema;
use crate::store::RETRY_MS;

/// Reads until nobody can ask any more.
pub(super) fn run(
    runtime: &Handle,
    mut file: File,
    mut queries: mpsc::Receiver<Job>,
    metrics: &Metrics,
) {
    while let Some(Job { ask, reply, .. }) = runtime.block_on(queries.recv()) {
        let found = file.connection().map_err(|why| (why, None)).and_then(|connection| {
            let found = match &ask {
                Ask::Export { span, after, limit } => {
                    export(connection, span, *after, *limit).map(Answer::Records)
                }
                Ask::Totals(span) => totals(connection, span).map(Box::new).map(Answer::Totals),
                _ => return Ok(Err(Refusal::Invalid("not an ask for the reader".to_owned()))),
            };
            found.map(Ok).map_err(|failure| (failure.to_string(), Some(failure)))
        });
        let answer = found.unwrap_or_else(|(why, failure)| {
            metrics.failures.inc();
            tracing::debug!(%why, "query failed");
            if let Some(Failure::Sqlite(error)) = &failure {
                file.note_failure(error);
            }
            Err(Refusal::unavailable(why, RETRY_MS))
        });
        // Whoever does not wait any more needs no answer.
        let _ = reply.send(answer);
    }
}

fn export(
    connection: &Connection,
    span: &Span,
    after: Option<Cursor>,
    limit: u16,
) -> Result<Vec<Record>, Failure> {
    let mut found = Vec::new();
    for (is_event, sql) in [(false, schema::EXPORT_GIFTS), (true, schema::EXPORT_EVENTS)] {
        let (at_ms, id) = rows::start(after, is_event);
        let mut query = connection.prepare_cached(sql)?;
        let mut cursor = query.query(params![
            signed(span.since_unix_ms),
            signed(span.until_unix_ms),
            at_ms,
            id,
            span.room.as_ref().map_or("", RoomId::as_str),
            limit,
        ])?;
        while let Some(row) = cursor.next()? {
            let record = if is_event {
                rows::event_record(row)
            } else {
                rows::gift(row).map(rows::gift_record)
            };
            found.push(record.map_err(Failure::Row)?);
        }
    }
    Ok(rows::page(found, limit))
}

fn totals(connection: &Connection, span: &Span) -> Result<Totals, Failure> {
    let (since, until) = (signed(span.since_unix_ms), signed(span.until_unix_ms));
    let room = span.room.as_ref().map_or("", RoomId::as_str);
    let mut totals = connection.prepare_cached(schema::TOTALS)?.query_row(
        params![since, until, room],
        |row| {
            Ok(Totals {
                rows: unsigned(row.get(0)?),
                count: unsigned(row.get(1)?),
                value: unsigned(row.get(2)?),
                unsequenced: unsigned(row.get(3)?),
                ..Totals::default()
            })
        },
    )?;
    let duplicates = params![since, until, room, signed(REPEAT_WINDOW_MS)];
    totals.duplicates = connection
        .prepare_cached(schema::DUPLICATES)?
        .query_row(duplicates, |row| row.get(0).map(unsigned))?;
    let mut by_gift = connection.prepare_cached(schema::TOTALS_BY_GIFT)?;
    let mut cursor = by_gift.query(params![since, until, room, MAX_PAGE])?;
    while let Some(row) = cursor.next()? {
        totals.by_gift.push(GiftTotal {
            gift: Name::clip(&row.get::<_, String>(0)?),
            rows: unsigned(row.get(1)?),
            count: unsigned(row.get(2)?),
            value: unsigned(row.get(3)?),
        });
    }
    Ok(totals)
}
