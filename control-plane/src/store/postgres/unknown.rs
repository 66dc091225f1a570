//! A commit whose answer got lost: the server is asked what became of it, as nobody may be told
//! "accepted" for what is not there, nor "failed" for what is.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::{options::Options, session::store_error};
use crate::store::{Result, StoreError};

/// How long to ask. After a fail-over another server has to take over first.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long to wait between two questions.
const PAUSE: Duration = Duration::from_millis(200);

/// What became of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Committed,
    TakenBack,
    /// Its process still works on it.
    UnderWay,
}

/// Finds out what became of a transaction whose commit was answered with `error`. It blocks its thread
/// until it knows, at most for 30 s.
///
/// # Errors
/// [`StoreError::Unavailable`] when it was taken back, and when nobody could tell.
pub(super) fn resolve(options: &Arc<Options>, transaction: u64, error: &StoreError) -> Result<()> {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        match ask(options, transaction) {
            Ok(Fate::Committed) => {
                tracing::info!(transaction, %error, "a commit's answer got lost; it was committed");
                return Ok(());
            }
            Ok(Fate::TakenBack) => return Err(error.clone()),
            Ok(Fate::UnderWay) | Err(_) => thread::sleep(PAUSE),
        }
    }
    tracing::error!(transaction, %error, "a commit's answer got lost, and nobody can tell what it was");
    Err(StoreError::Unavailable(format!(
        "{error}; it is not known whether the change was made: look before you repeat it, or repeat \
         it under the same request_id"
    )))
}

fn ask(options: &Options, transaction: u64) -> Result<Fate> {
    let mut client = options.connect()?;
    let question = format!("SELECT pg_xact_status('{transaction}'::xid8)");
    match client.query_one(&question, &[]) {
        Ok(row) => Ok(match row.try_get(0) {
            Ok(Some("committed")) => Fate::Committed,
            Ok(Some("in progress")) => Fate::UnderWay,
            _ => Fate::TakenBack,
        }),
        // "In the future" on a server that took over: it never came there.
        Err(error) if error.as_db_error().is_some() => Ok(Fate::TakenBack),
        Err(error) => Err(store_error(&error)),
    }
}
