//! The one schema of both stores: its migrations and every statement.
//!
//! In: nothing. Out: SQL that SQLite and PostgreSQL both read. Parameters are `$1`, `$2`, … and
//! appear first in that order, because SQLite numbers them as it meets them. Numbers are BIGINT, text
//! is TEXT; what differs is written as `{serial}` and filled in by [`migration`].
//!
//! `gifts.reuse` counts how often a (room, user, client id) has been used again after the 24 hours in
//! which it names one gift. It makes the key unique without ever deleting or changing a row.

/// The newest version of the schema: the number of migrations.
pub(crate) const VERSION: i64 = MIGRATIONS.len() as i64;

/// What leads from one version to the next. Append only.
const MIGRATIONS: [&str; 1] = ["
CREATE TABLE gifts (
    id {serial},
    at_ms BIGINT NOT NULL,
    room TEXT NOT NULL,
    user_id TEXT NOT NULL,
    client_id TEXT NOT NULL,
    reuse BIGINT NOT NULL,
    gift TEXT NOT NULL,
    count BIGINT NOT NULL,
    order_id TEXT NOT NULL,
    value BIGINT NOT NULL,
    region TEXT NOT NULL,
    client BIGINT NOT NULL,
    address BIGINT NOT NULL,
    detail TEXT NOT NULL,
    node TEXT NOT NULL,
    asked_epoch BIGINT NOT NULL,
    epoch BIGINT,
    pos BIGINT,
    UNIQUE (room, user_id, client_id, reuse)
);
CREATE UNIQUE INDEX gifts_order ON gifts (order_id) WHERE order_id <> '';
CREATE INDEX gifts_unsequenced ON gifts (room, id) WHERE epoch IS NULL;
CREATE INDEX gifts_time ON gifts (at_ms, id);
CREATE TABLE fences (
    room TEXT PRIMARY KEY,
    epoch BIGINT NOT NULL,
    at_ms BIGINT NOT NULL
);
CREATE TABLE events (
    id {serial},
    at_ms BIGINT NOT NULL,
    kind BIGINT NOT NULL,
    room TEXT NOT NULL,
    user_id TEXT NOT NULL,
    region TEXT NOT NULL,
    client BIGINT NOT NULL,
    address BIGINT NOT NULL,
    detail TEXT NOT NULL,
    node TEXT NOT NULL
);
CREATE INDEX events_time ON events (at_ms, id);
"];

/// The migrations after `version`, with their versions.
pub(crate) fn after(version: i64, serial: &str) -> Vec<(i64, String)> {
    let done = usize::try_from(version).unwrap_or(0);
    let left = MIGRATIONS.iter().zip(1..).skip(done);
    left.map(|(sql, version)| (version, sql.replace("{serial}", serial))).collect()
}

/// Where the version is kept.
pub(crate) const VERSION_TABLE: &str =
    "CREATE TABLE IF NOT EXISTS tidewater_schema (version BIGINT NOT NULL)";
pub(crate) const READ_VERSION: &str = "SELECT version FROM tidewater_schema";
pub(crate) const DELETE_VERSION: &str = "DELETE FROM tidewater_schema";
pub(crate) const WRITE_VERSION: &str = "INSERT INTO tidewater_schema VALUES ($1)";

/// The epoch under which the room was last taken over.
pub(crate) const READ_FENCE: &str = "SELECT epoch FROM fences WHERE room = $1";

/// A later home has the room; an earlier one changes nothing.
pub(crate) const RAISE_FENCE: &str = "
INSERT INTO fences (room, epoch, at_ms) VALUES ($1, $2, $3)
ON CONFLICT (room) DO UPDATE SET epoch = excluded.epoch, at_ms = excluded.at_ms
WHERE fences.epoch <= excluded.epoch";

/// A new gift; no row comes back if its key or its order is taken.
pub(crate) const INSERT_GIFT: &str = "
INSERT INTO gifts (at_ms, room, user_id, client_id, reuse, gift, count, order_id, value,
    region, client, address, detail, node, asked_epoch)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
ON CONFLICT DO NOTHING RETURNING id";

/// Columns of a gift, as [`crate::rows`] reads them.
macro_rules! gift_columns {
    () => {
        "id, at_ms, room, user_id, client_id, reuse, gift, count, order_id, value,
         region, client, address, detail, node, asked_epoch, epoch, pos"
    };
}

/// The newest gift of a key.
pub(crate) const FIND_GIFT: &str = concat!(
    "SELECT ",
    gift_columns!(),
    " FROM gifts WHERE room = $1 AND user_id = $2 AND client_id = $3 ORDER BY reuse DESC LIMIT 1"
);

/// Gifts of a room without a place.
pub(crate) const UNSEQUENCED: &str = concat!(
    "SELECT ",
    gift_columns!(),
    " FROM gifts WHERE epoch IS NULL AND room = $1 AND id > $2 ORDER BY id LIMIT $3"
);

/// A gift has its place. The place under the latest epoch is the one that viewers can resume from.
pub(crate) const MARK: &str = "
UPDATE gifts SET epoch = $1, pos = $2 WHERE id = $3 AND (epoch IS NULL OR epoch < $1)";

pub(crate) const INSERT_EVENT: &str = "
INSERT INTO events (at_ms, kind, room, user_id, region, client, address, detail, node)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";

/// Gifts of a span after a place.
pub(crate) const EXPORT_GIFTS: &str = concat!(
    "SELECT ",
    gift_columns!(),
    " FROM gifts WHERE at_ms >= $1 AND at_ms < $2 AND (at_ms, id) > ($3, $4)
      AND ($5 = '' OR room = $5) ORDER BY at_ms, id LIMIT $6"
);

/// Events of a span after a place.
pub(crate) const EXPORT_EVENTS: &str = "
SELECT id, at_ms, kind, room, user_id, region, client, address, detail, node
FROM events WHERE at_ms >= $1 AND at_ms < $2 AND (at_ms, id) > ($3, $4)
  AND ($5 = '' OR room = $5) ORDER BY at_ms, id LIMIT $6";

/// What the gifts of a span add up to.
pub(crate) const TOTALS: &str = "
SELECT COUNT(*), CAST(COALESCE(SUM(count), 0) AS BIGINT), CAST(COALESCE(SUM(value), 0) AS BIGINT),
    CAST(COALESCE(SUM(CASE WHEN epoch IS NULL THEN 1 ELSE 0 END), 0) AS BIGINT)
FROM gifts WHERE at_ms >= $1 AND at_ms < $2 AND ($3 = '' OR room = $3)";

/// The same by gift.
pub(crate) const TOTALS_BY_GIFT: &str = "
SELECT gift, COUNT(*), CAST(SUM(count) AS BIGINT), CAST(SUM(value) AS BIGINT) AS paid
FROM gifts WHERE at_ms >= $1 AND at_ms < $2 AND ($3 = '' OR room = $3)
GROUP BY gift ORDER BY paid DESC, gift LIMIT $4";

/// Rows that repeat an earlier one of less than $4 milliseconds before: the unique key and the
/// writer's rule make it 0; this looks at the rows themselves.
pub(crate) const DUPLICATES: &str = "
SELECT COUNT(*) FROM gifts g WHERE g.at_ms >= $1 AND g.at_ms < $2 AND ($3 = '' OR g.room = $3)
  AND EXISTS (SELECT 1 FROM gifts f WHERE f.room = g.room AND f.user_id = g.user_id
    AND f.client_id = g.client_id AND f.id < g.id AND g.at_ms - f.at_ms < $4)";

/// Forgets at most $2 events from before $1.
pub(crate) const PRUNE_EVENTS: &str = "
DELETE FROM events WHERE id IN (SELECT id FROM events WHERE at_ms < $1 ORDER BY at_ms LIMIT $2)";

/// Forgets fences last raised before $1.
pub(crate) const PRUNE_FENCES: &str = "DELETE FROM fences WHERE at_ms < $1";
