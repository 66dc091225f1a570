//! A commit whose answer got lost: the server is asked what became of it, as nobody may be told
//! "accepted" for what is not there, nor "failed" for what is.
//!
//! Every transaction that writes leaves its turn in its writer's row of `writers`. The numbers that a server
//! gives to transactions would not do: after a fail-over another server gives them anew. Whoever asks takes
//! the lock that writing holds, and so waits until the transaction has ended, one way or the other.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{
    options::Options,
    session::{WRITING, store_error},
};
use crate::store::{Result, StoreError};

/// How long to ask. After a fail-over another server has to take over first.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long to wait between two questions.
const PAUSE: Duration = Duration::from_millis(200);

/// Who writes, and the how manieth of its transactions it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) writer: [u8; 16],
    pub(super) turn: i64,
}

impl Turn {
    /// The statement that leaves it in a transaction.
    pub(super) fn mark(&self) -> String {
        let Self { writer, turn } = self;
        let writer = countersign_shared::digest::hex(writer);
        format!(
            "INSERT INTO writers (id, turn, at) VALUES ('\\x{writer}', {turn}, now())
             ON CONFLICT (id) DO UPDATE SET turn = excluded.turn, at = excluded.at"
        )
    }
}

/// Finds out what became of a transaction whose commit was answered with `error`. It blocks its thread
/// until it knows, at most for about 30 s.
///
/// # Errors
/// [`StoreError::Unavailable`] when it was taken back, and when nobody could tell.
pub(super) fn resolve(options: &Options, turn: Turn, error: &StoreError) -> Result<()> {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        match is_committed(options, turn) {
            Ok(true) => {
                tracing::info!(%error, "a commit's answer got lost; it was committed");
                return Ok(());
            }
            Ok(false) => return Err(error.clone()),
            Err(_) => thread::sleep(PAUSE),
        }
    }
    tracing::error!(%error, "a commit's answer got lost, and nobody can tell what it was");
    Err(StoreError::Unavailable(format!(
        "{error}; it is not known whether the change was made: look before you repeat it, or repeat \
         it under the same request_id"
    )))
}

fn is_committed(options: &Options, turn: Turn) -> Result<bool> {
    let mut client = options.connect()?;
    let mut ask = || {
        let mut transaction = client.transaction()?;
        transaction.batch_execute(&format!("SELECT pg_advisory_xact_lock({WRITING})"))?;
        let question = "SELECT turn FROM writers WHERE id = $1";
        let row = transaction.query_opt(question, &[&turn.writer.as_slice()])?;
        row.map(|row| row.try_get(0)).transpose()
    };
    let last: Option<i64> = ask().map_err(|error| store_error(&error))?;
    Ok(last == Some(turn.turn))
}
