//! `countersign store`: brings the tables of a PostgreSQL server to this version, looks whether it serves,
//! and moves an embedded store there.

use std::{fmt::Write as _, path::PathBuf, sync::Arc};

use thiserror::Error;

use crate::{
    bootstrap::{self, StartError},
    config::{Config, StoreSource},
    store::{
        StoreError,
        postgres::{Options, OptionsError, PostgresStore},
    },
};

/// Why it was not done.
#[derive(Debug, Error)]
pub enum MaintenanceError {
    /// There is no server to do it on.
    #[error(
        "store.url is not set: name the control planes' configuration with --config (the embedded store needs none of this)"
    )]
    Embedded,
    /// The server can't be connected to as configured.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// The server or its store.
    #[error("store: {0}")]
    Store(#[from] StoreError),
    /// The data directory can't be had.
    #[error(transparent)]
    DataDir(#[from] StartError),
}

/// How the server of the configuration is connected to.
fn options(config: &Config) -> Result<Arc<Options>, MaintenanceError> {
    let StoreSource::Postgres(source) = &config.store else {
        return Err(MaintenanceError::Embedded);
    };
    let (password, ca) = (source.password_file.as_deref(), source.ca_file.as_deref());
    Ok(Arc::new(Options::read(&source.url, password, ca)?))
}

/// Brings the tables to this version; says what it did.
///
/// # Errors
/// [`MaintenanceError`]; nothing has changed then.
pub async fn migrate(config: &Config) -> Result<String, MaintenanceError> {
    let (before, now) = PostgresStore::migrate(options(config)?).await?;
    Ok(match before {
        None => format!("made the tables, version {now}"),
        Some(before) if before == now => format!("nothing to do: the tables are of version {now}"),
        Some(before) => format!("brought the tables from version {before} to {now}"),
    })
}

/// Looks whether the server serves; says what it found.
///
/// # Errors
/// [`MaintenanceError`].
pub async fn check(config: &Config) -> Result<String, MaintenanceError> {
    let found = PostgresStore::inspect(options(config)?).await?;
    let mut text = format!("server: PostgreSQL {}", found.server);
    let clock = found.clock_ahead_micros / 1000;
    // Writing to a string never fails.
    let _ = write!(
        text,
        "\nclock: {clock} ms ahead of this host's; the server's counts"
    );
    let _ = match (found.version, found.newest) {
        (None, newest) => write!(
            text,
            "\ntables: none yet; this version makes version {newest}"
        ),
        (Some(version), newest) => {
            write!(
                text,
                "\ntables: version {version}; this version's are {newest}"
            )
        }
    };
    let _ = match found.installation {
        None => write!(text, "\ninstallation: none yet"),
        Some(facts) => write!(
            text,
            "\ninstallation: {}, sealed with KEK {}",
            facts.id, facts.kek_id
        ),
    };
    Ok(text)
}

/// Moves the embedded store of the data directory `from` to the server. The data directory stays as it is.
/// `progress` hears the table, how many of its rows are there, and how many there will be.
///
/// # Errors
/// [`MaintenanceError`]; the server has no installation then.
pub async fn copy(
    config: &Config,
    from: PathBuf,
    progress: impl FnMut(&str, u64, u64) + Send + 'static,
) -> Result<String, MaintenanceError> {
    let options = options(config)?;
    let _lock = bootstrap::lock(&from)?;
    let file = from.join("store.sqlite");
    let copied = PostgresStore::copy(file, options, progress).await?;
    let rows: u64 = copied.iter().map(|table| table.rows).sum();
    Ok(format!(
        "copied {rows} rows of {} tables; counts and hashes are the same in both. Start the control plane \
         with store.url now, with the KEK of {}",
        copied.len(),
        from.display()
    ))
}
