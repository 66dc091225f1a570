//! Deliveries, payloads and attempts in pieces by the time of acceptance: pieces for what is to come are made ahead,
//! and a piece whose time is over is dropped whole, which costs nothing, where deleting its rows would cost as much
//! as writing them did.
//!
//! A piece holds an eighth of the time for which its rows are kept, so there are about ten of each. Its name says
//! its range: `payloads_1800000000_1800086400`, in seconds since 1970; the first begins with 0. What can't be
//! dropped, because something in it still waits, is left for retention to remove row by row.

use std::time::Duration;

use countersign_shared::time::Timestamp;

use super::session::{Session, column};
use crate::store::{Result, StoreError, sql::retention::first_id};

/// A piece is for an eighth of the time that things are kept, but not for less than an hour.
const PIECES: u64 = 8;
const SHORTEST: u64 = 3600;
/// How many pieces are made ahead.
const AHEAD: u64 = 2;
/// How long to wait for those who read a table that is to lose or get a piece; then it is tried again later. Afterwards
/// it is for the rest of the transaction as it was.
const PATIENCE: &str =
    "SELECT set_config('countersign.patience', current_setting('lock_timeout'), true);
    SET LOCAL lock_timeout = '2s'";
const AS_BEFORE: &str =
    "SELECT set_config('lock_timeout', current_setting('countersign.patience'), true)";

/// A piece: of seconds from the first to before the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Piece {
    from: u64,
    until: u64,
}

impl Piece {
    fn named(self, table: &str) -> String {
        format!("{table}_{}_{}", self.from, self.until)
    }

    /// The piece that a name says, of `table`.
    fn of(table: &str, name: &str) -> Option<Self> {
        let (from, until) = name
            .strip_prefix(table)?
            .strip_prefix('_')?
            .split_once('_')?;
        let piece = Self {
            from: from.parse().ok()?,
            until: until.parse().ok()?,
        };
        (piece.from < piece.until).then_some(piece)
    }

    fn bounds(self) -> [Vec<u8>; 2] {
        [self.from, self.until].map(|seconds| {
            let at = Timestamp::from_unix_seconds(i64::try_from(seconds).unwrap_or(i64::MAX));
            first_id(at).as_bytes().to_vec()
        })
    }
}

/// How many seconds a piece is for.
fn width(keep: Duration) -> u64 {
    (keep.as_secs() / PIECES).max(SHORTEST)
}

/// The pieces to be made, after the last there is: up to `AHEAD` after the one that `now` is in. `taken`: until when
/// there are rows in no piece.
fn missing(last: Option<Piece>, taken: u64, now: u64, width: u64) -> Vec<Piece> {
    let mut from = last.map_or(now / width * width, |last| last.until);
    if taken >= from {
        from = (taken / width + 1) * width;
    }
    let enough = (now / width + 1 + AHEAD) * width;
    let mut made = Vec::new();
    while from < enough {
        let until = (from / width + 1) * width;
        made.push(Piece { from, until });
        from = until;
    }
    made
}

/// Before when rows have to be removed one by one: the rest of their piece goes with them a little later.
fn row_by_row(pieces: &[Piece], before: u64) -> u64 {
    let at = pieces
        .iter()
        .find(|piece| (piece.from..piece.until).contains(&before));
    // The first piece has no beginning, so waiting for its end could take for ever.
    at.filter(|piece| piece.from > 0)
        .map_or(before, |piece| piece.from)
}

/// Tables that are cut alike: all are about the deliveries in the same range.
struct Group {
    tables: &'static [&'static str],
    /// What has no rows of a range before that can go.
    dependents: &'static [&'static str],
}

const DELIVERIES: Group = Group {
    tables: &["deliveries", "attempts"],
    dependents: &["payloads"],
};
const PAYLOADS: Group = Group {
    tables: &["payloads"],
    dependents: &[],
};
/// Where a delivery is that is not over: it waits, is leased, or has an ordering key whose turn is not over.
const WAITING: [&str; 3] = ["leases", "ordered", "due"];

/// Makes room for what is to come, and drops the pieces of deliveries and of payloads that were accepted before these
/// times; `keep` is for how long they are kept. Answers with the times before which rows have to be removed one by
/// one. To be called in a transaction that writes.
pub(in crate::store) fn turn(
    session: &Session,
    keep: [Duration; 2],
    before: [Timestamp; 2],
    now: Timestamp,
) -> Result<[Timestamp; 2]> {
    session.batch(PATIENCE)?;
    // Payloads first: pieces of deliveries wait for them.
    let payloads = turn_group(session, &PAYLOADS, keep[1], before[1], now)?;
    let deliveries = turn_group(session, &DELIVERIES, keep[0], before[0], now)?;
    session.batch(AS_BEFORE)?;
    Ok([deliveries, payloads])
}

fn turn_group(
    session: &Session,
    group: &Group,
    keep: Duration,
    before: Timestamp,
    now: Timestamp,
) -> Result<Timestamp> {
    let seconds = |at: Timestamp| u64::try_from(at.as_unix_seconds()).unwrap_or_default();
    let before_seconds = seconds(before);
    let mut pieces = Vec::new();
    for table in group.tables {
        pieces = pieces_of(session, table)?;
        let taken = in_the_rest(session, table)?;
        for piece in missing(pieces.last().copied(), taken, seconds(now), width(keep)) {
            make(session, table, piece)?;
            pieces.push(piece);
        }
    }
    let mut kept = Vec::with_capacity(pieces.len());
    for piece in pieces {
        if piece.until > before_seconds || !may_go(session, group, piece)? {
            kept.push(piece);
            continue;
        }
        for table in group.tables {
            // One that was made at another time can have other pieces.
            session.batch(&format!("DROP TABLE IF EXISTS {}", piece.named(table)))?;
        }
        tracing::info!(
            table = group.tables.first(),
            from = piece.from,
            until = piece.until,
            "what is too old to be kept was dropped"
        );
    }
    let by_row = row_by_row(&kept, before_seconds);
    // Not even a part of a second too early, nor too late.
    match by_row == before_seconds {
        true => Ok(before),
        false => Ok(Timestamp::from_unix_seconds(
            i64::try_from(by_row).unwrap_or(i64::MAX),
        )),
    }
}

/// The pieces of a table, oldest first; but for the rest.
fn pieces_of(session: &Session, table: &str) -> Result<Vec<Piece>> {
    let query = "SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                 WHERE i.inhparent = to_regclass($1)";
    let rows = session.query_with(&session.prepare(query)?, &[&format!("countersign.{table}")])?;
    let mut pieces = Vec::new();
    for row in &rows {
        let name: &str = column(row, 0)?;
        pieces.extend(Piece::of(table, name));
    }
    pieces.sort_unstable();
    Ok(pieces)
}

/// Until when there are rows in no piece, in seconds; 0 without any.
fn in_the_rest(session: &Session, table: &str) -> Result<u64> {
    let key = key_of(table);
    let query = format!("SELECT {key} FROM {table}_rest ORDER BY {key} DESC LIMIT 1");
    let rows = session.query_with(&session.prepare(&query)?, &[])?;
    let Some(row) = rows.first() else {
        return Ok(0);
    };
    let id: &[u8] = column(row, 0)?;
    let millis = id.first_chunk::<6>().map(|first| {
        first
            .iter()
            .fold(0, |millis: u64, byte| millis << 8 | u64::from(*byte))
    });
    let millis = millis.ok_or_else(|| StoreError::Corrupt("a delivery's id".to_owned()))?;
    Ok(millis / 1000 + 1)
}

fn key_of(table: &str) -> &'static str {
    match table {
        "attempts" => "delivery",
        _ => "id",
    }
}

fn make(session: &Session, table: &str, piece: Piece) -> Result<()> {
    let [from, until] = piece
        .bounds()
        .map(|bound| countersign_shared::digest::hex(&bound));
    let name = piece.named(table);
    session.batch(&format!(
        "CREATE TABLE {name} PARTITION OF {table} FOR VALUES FROM ('\\x{from}') TO ('\\x{until}')"
    ))?;
    tracing::debug!(piece = name, "a piece was made for what is to come");
    Ok(())
}

/// Whether nothing in a piece is needed any more.
fn may_go(session: &Session, group: &Group, piece: Piece) -> Result<bool> {
    let [from, until] = piece.bounds();
    for table in group.dependents.iter().chain(&WAITING) {
        let query = format!("SELECT EXISTS (SELECT 1 FROM {table} WHERE id >= $1 AND id < $2)");
        let rows = session.query_with(&session.prepare(&query)?, &[&from, &until])?;
        let waits = rows.first().map(|row| column(row, 0)).transpose()?;
        if waits != Some(false) {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3600;

    fn piece(from: u64, until: u64) -> Piece {
        Piece { from, until }
    }

    #[test]
    fn names_say_the_range_and_others_are_none() {
        let first = piece(0, 7200);
        assert_eq!(Piece::of("payloads", &first.named("payloads")), Some(first));
        for other in [
            "payloads_rest",
            "payloads",
            "payloads_1_x",
            "attempts_0_1",
            "payloads_5_5",
        ] {
            assert_eq!(Piece::of("payloads", other), None, "{other}");
        }
    }

    #[test]
    fn pieces_are_made_ahead_without_gaps_and_each_ends_at_a_round_time() {
        let now = 10 * DAY + 5000;
        let made = missing(Some(piece(0, 10 * DAY + 7200)), 0, now, DAY);
        assert_eq!(made[0], piece(10 * DAY + 7200, 11 * DAY));
        assert_eq!(made.len(), 3);
        assert!(made.windows(2).all(|pair| pair[0].until == pair[1].from));
        assert_eq!(made[2].until, 13 * DAY);
        let all: Vec<_> = [piece(0, 10 * DAY + 7200)]
            .into_iter()
            .chain(made)
            .collect();
        assert!(missing(all.last().copied(), 0, now, DAY).is_empty());
        assert_eq!(
            missing(all.last().copied(), 0, now + DAY, DAY),
            [piece(13 * DAY, 14 * DAY)]
        );
    }

    #[test]
    fn after_a_pause_what_has_gone_to_the_rest_stays_there() {
        let now = 20 * DAY;
        let made = missing(Some(piece(0, 10 * DAY)), 20 * DAY - 1, now, DAY);
        assert_eq!(made[0], piece(20 * DAY, 21 * DAY));
        let nothing_came = missing(Some(piece(0, 10 * DAY)), 0, now, DAY);
        assert_eq!(
            (nothing_came[0], nothing_came.len()),
            (piece(10 * DAY, 11 * DAY), 13)
        );
    }

    #[test]
    fn another_width_takes_over_where_the_old_pieces_end() {
        let made = missing(Some(piece(9 * DAY, 10 * DAY)), 0, 9 * DAY + 1, 7 * DAY);
        assert_eq!(made[0], piece(10 * DAY, 14 * DAY));
        assert_eq!(made[1], piece(14 * DAY, 21 * DAY));
    }

    #[test]
    fn rows_go_one_by_one_up_to_the_piece_that_will_go_whole() {
        let pieces = [piece(0, 100), piece(100, 200), piece(200, 300)];
        assert_eq!(row_by_row(&pieces, 150), 100);
        assert_eq!(row_by_row(&pieces, 100), 100);
        // The first has no beginning; and where there is none, nothing goes whole.
        assert_eq!(row_by_row(&pieces, 50), 50);
        assert_eq!(row_by_row(&pieces, 1000), 1000);
        assert_eq!(row_by_row(&[], 7), 7);
    }

    #[test]
    fn a_piece_is_an_eighth_of_what_is_kept() {
        assert_eq!(width(Duration::from_secs(8 * DAY)), DAY);
        assert_eq!(width(Duration::from_secs(60)), SHORTEST);
    }
}
