//! The task that reads: exports and sums, on a connection of its own.
//!
//! In: queries, one after the other. Out: pages of records, totals.

use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_postgres::Client;
use wire::RoomId;
use wire::events::{
    Answer, Ask, Cursor, GiftTotal, MAX_PAGE, Name, REPEAT_WINDOW_MS, Record, Refusal, Span, Totals,
};

use super::writer::Failure;
use super::{Line, STATEMENT_TIMEOUT};
use crate::intake::Job;
use crate::metrics::Metrics;
use crate::rows::{self, signed, unsigned};
use crate::schema;
use crate::store::RETRY_MS;

/// Reads until nobody can ask any more.
pub(super) async fn run(mut line: Line, mut queries: mpsc::Receiver<Job>, metrics: Metrics) {
    let mut why = "connecting".to_owned();
    loop {
        let job = tokio::select! {
            biased;
            settled = line.settled() => {
                if let Err(error) = settled {
                    why = error;
                }
                continue;
            }
            job = queries.recv() => job,
        };
        let Some(Job { ask, reply, .. }) = job else { return };
        let answer = match line.client() {
            None => Err(Refusal::unavailable(why.as_str(), RETRY_MS)),
            Some(client) => match timeout(STATEMENT_TIMEOUT, read(client, &ask)).await {
                Ok(Ok(answer)) => answer,
                failed => {
                    why = match failed {
                        Ok(Err(failure)) => failure.to_string(),
                        _ => format!("no answer within {} s", STATEMENT_TIMEOUT.as_secs()),
                    };
                    metrics.failures.inc();
                    line.lose();
                    Err(Refusal::unavailable(why.as_str(), RETRY_MS))
                }
            },
        };
        // Whoever does not wait any more needs no answer.
        let _ = reply.send(answer);
    }
}

async fn read(client: &Client, ask: &Ask) -> Result<Result<Answer, Refusal>, Failure> {
    Ok(match ask {
        Ask::Export { span, after, limit } => {
            Ok(Answer::Records(export(client, span, *after, *limit).await?))
        }
        Ask::Totals(span) => Ok(Answer::Totals(Box::new(totals(client, span).await?))),
        _ => Err(Refusal::Invalid("not an ask for the reader".to_owned())),
    })
}

async fn export(
    client: &Client,
    span: &Span,
    after: Option<Cursor>,
    limit: u16,
) -> Result<Vec<Record>, Failure> {
    let (since, until) = (signed(span.since_unix_ms), signed(span.until_unix_ms));
    let room = span.room.as_ref().map_or("", RoomId::as_str);
    let rows_wanted = i64::from(limit);
    let mut found = Vec::new();
    for (is_event, sql) in [(false, schema::EXPORT_GIFTS), (true, schema::EXPORT_EVENTS)] {
        let (at_ms, id) = rows::start(after, is_event);
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 6] =
            [&since, &until, &at_ms, &id, &room, &rows_wanted];
        for row in client.query(sql, &values).await? {
            let record = if is_event {
                rows::event_record(&row)
            } else {
                rows::gift(&row).map(rows::gift_record)
            };
            found.push(record.map_err(Failure::Row)?);
        }
    }
    Ok(rows::page(found, limit))
}

async fn totals(client: &Client, span: &Span) -> Result<Totals, Failure> {
    let (since, until) = (signed(span.since_unix_ms), signed(span.until_unix_ms));
    let room = span.room.as_ref().map_or("", RoomId::as_str);
    let window = signed(REPEAT_WINDOW_MS);
    let row = client.query_one(schema::TOTALS, &[&since, &until, &room]).await?;
    let duplicates =
        client.query_one(schema::DUPLICATES, &[&since, &until, &room, &window]).await?;
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
        [&since, &until, &room, &i64::from(MAX_PAGE)];
    let by_gift = client.query(schema::TOTALS_BY_GIFT, &values).await?;
    let by_gift = by_gift.iter().map(|row| GiftTotal {
        gift: Name::clip(row.get(0)),
        rows: unsigned(row.get(1)),
        count: unsigned(row.get(2)),
        value: unsigned(row.get(3)),
    });
    Ok(Totals {
        rows: unsigned(row.get(0)),
        count: unsigned(row.get(1)),
        value: unsigned(row.get(2)),
        unsequenced: unsigned(row.get(3)),
        duplicates: unsigned(duplicates.get(0)),
        by_gift: by_gift.collect(),
    })
}
