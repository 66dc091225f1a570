//! How a server is connected to: addresses, password, TLS, and time-outs.

use std::{fmt, sync::Arc, time::Duration};

use postgres::{
    Client,
    config::{SslMode, TargetSessionAttrs},
};
use rustls::ClientConfig;

use super::{session::store_error, tls::Tls};
use crate::store::Result;

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
    -- What waits changes faster than statistics do: a plan that was right for an empty table stays.
    SET plan_cache_mode = 'force_generic_plan';
    SET enable_seqscan = off;
    SELECT set_config('synchronous_commit', 'on', false)
    WHERE current_setting('synchronous_commit') IN ('off', 'local')";

impl Options {
    /// As `config` says, over TLS if `tls` is given, and never without then.
    #[must_use]
    pub fn new(mut config: postgres::Config, tls: Option<Arc<ClientConfig>>) -> Self {
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
