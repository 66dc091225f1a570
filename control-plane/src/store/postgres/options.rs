//! How a server is connected to: addresses, password, TLS, and time-outs.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use countersign_shared::{
    files, hygiene,
    tls::{self, PemError},
};
use postgres::{
    Client,
    config::{SslMode, TargetSessionAttrs},
};
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;

use super::{session::store_error, tls::Tls};
use crate::store::Result;

/// Why a server can't be connected to as configured.
#[derive(Debug, Error)]
pub enum OptionsError {
    /// The URL is none. What it is is not told: it may hold a password.
    #[error("store.url is not the address of a PostgreSQL database")]
    Url,
    /// A file can't be read.
    #[error("{0}: {1}")]
    File(PathBuf, io::Error),
    /// Where PostgreSQL's own programs take a password from.
    #[error("{}", hygiene::instead_of_environment(PGPASSWORD))]
    Environment,
    /// The password is no line of text.
    #[error("{0}: must hold the password as one line of text")]
    Password(PathBuf),
    /// The authorities are no certificates in PEM.
    #[error("{0}: {1}")]
    Pem(PathBuf, PemError),
    /// An authority can't be used.
    #[error("{0}: {1}")]
    Authority(PathBuf, rustls::Error),
}

/// It is not read: who sets it expects that it is, and has shown it to many.
const PGPASSWORD: &str = "PGPASSWORD";

/// How a server is connected to.
pub struct Options {
    config: postgres::Config,
    tls: Tls,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("hosts", &self.config.get_hosts())
            .field("ports", &self.config.get_ports())
            .field("dbname", &self.config.get_dbname())
            .finish_non_exhaustive()
    }
}

/// What every connection begins with. The schema is ours; an answer means that it is on disk, whatever the
/// server's default is, and a server that holds on to a statement for ever does not hold on to us.
const SETTINGS: &str = "
    SET search_path = countersign;
    SET statement_timeout = '30s';
    SET lock_timeout = '20s';
    SET idle_in_transaction_session_timeout = '30s';
    SET client_min_messages = 'warning';
    -- Tables grow faster than statistics do, and a plan that was right for an empty one stays. Whatever may
    -- be large is read along an index that has its order: not whole, and not sorted for a page of it.
    SET plan_cache_mode = 'force_generic_plan';
    SET enable_seqscan = off;
    SET enable_bitmapscan = off;
    SET enable_sort = off;
    -- What is joined is asked for once: to remember it is work for nothing.
    SET enable_memoize = off;
    -- Statements are short, and what was switched off above counts as so dear that they would be compiled each time.
    SET jit = off;
    SELECT set_config('synchronous_commit', 'on', false)
    WHERE current_setting('synchronous_commit') IN ('off', 'local')";

impl Options {
    /// As `url` says, with what is in files: the password, and the authorities that the servers'
    /// certificates are checked with. Without the latter there is no TLS.
    ///
    /// # Errors
    /// [`OptionsError`].
    pub fn read(
        url: &str,
        password_file: Option<&Path>,
        ca_file: Option<&Path>,
    ) -> std::result::Result<Self, OptionsError> {
        if std::env::var_os(PGPASSWORD).is_some() {
            return Err(OptionsError::Environment);
        }
        let mut config: postgres::Config = url.parse().map_err(|_| OptionsError::Url)?;
        if let Some(file) = password_file {
            let failed = |error| OptionsError::File(file.to_owned(), error);
            let content = zeroize::Zeroizing::new(files::read_private(file).map_err(failed)?);
            let line = content.strip_suffix(b"\n").unwrap_or(&content);
            if line.is_empty() || line.contains(&b'\n') {
                return Err(OptionsError::Password(file.to_owned()));
            }
            config.password(line);
        }
        let tls = ca_file.map(client_config).transpose()?;
        Ok(Self::new(config, tls))
    }

    /// As `config` says, over TLS if `tls` is given, and never without then.
    pub(super) fn new(mut config: postgres::Config, tls: Option<Arc<ClientConfig>>) -> Self {
        let mode = match tls {
            Some(_) => SslMode::Require,
            None => SslMode::Disable,
        };
        config
            .ssl_mode(mode)
            .application_name("countersign")
            // Of several servers, the one that takes writes.
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            .connect_timeout(Duration::from_secs(5))
            .tcp_user_timeout(Duration::from_secs(15))
            .keepalives_idle(Duration::from_secs(10))
            .keepalives_interval(Duration::from_secs(5))
            .keepalives_retries(3);
        Self {
            config,
            tls: Tls::new(tls),
        }
    }

    /// A connection with our settings. Blocks its thread, which must not be one of the runtime's.
    pub(super) fn connect(&self) -> Result<Client> {
        let connect = || {
            let mut client = self.config.connect(self.tls.clone())?;
            client.batch_execute(SETTINGS)?;
            Ok(client)
        };
        connect().map_err(|error| store_error(&error))
    }
}

fn client_config(ca_file: &Path) -> std::result::Result<Arc<ClientConfig>, OptionsError> {
    let path = || ca_file.to_owned();
    let pem = std::fs::read_to_string(ca_file);
    let pem = pem.map_err(|error| OptionsError::File(path(), error))?;
    let authorities = tls::certificates_from_pem(&pem);
    let mut roots = RootCertStore::empty();
    for authority in authorities.map_err(|error| OptionsError::Pem(path(), error))? {
        let added = roots.add(authority);
        added.map_err(|error| OptionsError::Authority(path(), error))?;
    }
    let config = ClientConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| OptionsError::Authority(path(), error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
