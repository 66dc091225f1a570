//! The composition root: everything is built from the configuration first, then run. The background
//! tasks are the `spawn` calls in this file, those of `listen`, and those of streams in `api`.

mod grpc;
mod health;
mod listeners;
mod others;
mod server_certificate;

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use countersign_shared::{
    secret::SecretText,
    tasks::{self, Failures, OnFailure, Tasks},
    time::{Clock, SteeredClock},
    tls,
};
use rustls_pki_types::CertificateDer;
use thiserror::Error;
use tokio::net::TcpListener;

use self::{
    grpc::{Services, agents_router, api_router},
    listeners::Listeners,
    others::Others,
    server_certificate::Renewal,
};
use crate::{
    alerts::Watchman,
    api::Peer,
    audit::{self, Call, Refusal},
    auditing::AuditLog,
    auth::{ApiKeys, Clients, ClientsError, Rules, RulesError},
    bootstrap::{self, Opened, StartError},
    ca,
    config::Config,
    custody::Custody,
    deliveries::{Recount, Release, Retention},
    dispatch::Dispatcher,
    http,
    listen::{self, Recognise},
    metrics::Metrics,
    rewrapping::Rewrapping,
    rotation::Reconciler,
    signals::Relay,
    store::postgres::Channel,
};

/// How often the backlog is counted in the store.
const RECOUNT: Duration = Duration::from_secs(600);
/// The same, where several control planes share it.
const RECOUNT_SHARED: Duration = Duration::from_secs(30);

/// Why the control plane stopped, or did not start.
#[derive(Debug, Error)]
pub enum AppError {
    /// It did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// TLS can't be set up.
    #[error(transparent)]
    Listen(#[from] listen::ListenError),
    /// An address can't be used.
    #[error("{setting} = {address}: {error}")]
    Address {
        /// Which setting.
        setting: &'static str,
        /// Which address.
        address: std::net::SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// The operating system refused something.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The descriptors for reflection do not decode.
    #[error("reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The table of roles and methods does not fit the API.
    #[error(transparent)]
    Rules(#[from] RulesError),
    /// Client certificates can't be let in.
    #[error(transparent)]
    Clients(#[from] ClientsError),
    /// A task failed that the process can't do without.
    #[error("{0}")]
    Task(String),
}

/// Runs until SIGTERM or SIGINT. `announce` gets the administrator's key on the first start, unless
/// it went to `admin_key_file`.
///
/// # Errors
/// [`AppError`].
pub async fn run(
    config: Config,
    admin_key_file: Option<PathBuf>,
    announce: impl FnOnce(&SecretText),
) -> Result<(), AppError> {
    // The store's threads outlive everything that uses them, and are waited for even when nothing
    // starts: the last one tidies the database's files.
    let (store_tasks, store_failures) = Tasks::new();
    let deadline = config.shutdown_deadline;
    let ended = run_over(
        config,
        admin_key_file,
        announce,
        &store_tasks,
        store_failures,
    )
    .await;
    if let Err(late) = store_tasks.stop(deadline).await {
        tracing::warn!(?late, "the store did not close in time");
    }
    ended
}

async fn run_over(
    config: Config,
    admin_key_file: Option<PathBuf>,
    announce: impl FnOnce(&SecretText),
    store_tasks: &Tasks,
    mut store_failures: Failures,
) -> Result<(), AppError> {
    let clock = Arc::<SteeredClock>::default();
    let (tasks, mut failures) = Tasks::new();
    let key_file = admin_key_file.as_deref();
    let mut opened = bootstrap::open(&config, key_file, clock.as_ref(), store_tasks).await?;
    if let Some(key) = &opened.first_key {
        announce(key);
    }
    let channel = opened.channel.take();
    let channel = channel.map(|channel| (channel, Arc::clone(&clock)));
    let listeners = start(&config, &opened, channel, clock, &tasks).await?;
    listeners.announce(&config.data_dir)?;
    let stopped = tokio::select! {
        signal = tasks::stop_signal() => {
            tracing::info!(signal = signal?, "stopping");
            Ok(())
        }
        failure = failures.next() => Err(AppError::Task(failure)),
        failure = store_failures.next() => Err(AppError::Task(failure)),
    };
    listeners.withdraw(&config.data_dir);
    if let Err(late) = tasks.stop(config.shutdown_deadline).await {
        tracing::warn!(?late, "these did not stop in time");
    }
    tracing::info!("stopped");
    stopped
}

/// Builds and starts everything; answers with where it listens.
async fn start(
    config: &Config,
    opened: &Opened,
    channel: Option<(Channel, Arc<SteeredClock>)>,
    clock: Arc<dyn Clock>,
    tasks: &Tasks,
) -> Result<Listeners, AppError> {
    listeners::withdraw_old(&config.data_dir);
    let api = bind("listen.api", config.listen.api).await?;
    let agents = bind("listen.agents", config.listen.agents).await?;
    let http = bind("listen.http", config.listen.http).await?;
    let listeners = Listeners::of(&api, &agents, &http)?;
    let metrics = Metrics::default();

    let renewal = Renewal::new(config, opened, Arc::clone(&clock));
    let (certificate, renew_at) = renewal.first().await?;
    let trust_domain: Arc<str> = config.trust_domain.as_str().into();
    let pages = http::Pages {
        store: Arc::clone(&opened.store),
        vault: Arc::clone(&opened.vault),
        registry: Arc::new(metrics.registry()),
    };
    let pin = server_pin(opened)?;
    let access = &config.access;
    let keys = ApiKeys::load(
        Arc::clone(&opened.store),
        Arc::clone(&clock),
        access.calls_per_second,
        access.failed_attempts_per_minute,
    );
    let relay = Arc::<Relay>::default();
    let keys = keys.await.map_err(StartError::from)?;
    let keys = Arc::new(keys.relayed(Arc::clone(&relay)));
    let (store, vault) = (Arc::clone(&opened.store), &opened.vault);
    let audit = AuditLog::open(store, vault, Arc::clone(&clock)).await;
    let audit = audit.map_err(StartError::from)?;
    let keeper = audit.clone();
    opened
        .vault
        .on_alteration(record_alterations(&audit, Arc::clone(&clock)));
    let listing = Call::system("revocation lists", Vec::new(), Arc::clone(&clock));
    let guarding = (Arc::clone(&keys), Rules::new()?, audit);
    let time = Arc::clone(&clock);
    let told = Arc::clone(&relay);
    let services = Services::new(
        config,
        opened,
        guarding,
        (pin, told),
        time,
        metrics.clone(),
        tasks,
    );
    let issuing = &services.rotations.issuing;
    issuing.ensure_shared().await.map_err(StartError::from)?;
    let changes = Arc::clone(&services.destinations.destinations.changes);
    let attach = services.session.attach.clone();
    let release = Release {
        store: Arc::clone(&opened.store),
        wake: Arc::clone(&attach.wake),
        holds: Arc::clone(&services.session.settle.holds),
        clock: Arc::clone(&attach.clock),
    };
    let recount = Recount {
        store: Arc::clone(&opened.store),
        backlog: Arc::clone(&services.session.settle.backlog),
        // What is accepted or settled elsewhere is known from the store alone.
        every: match channel.is_some() {
            true => RECOUNT_SHARED,
            false => RECOUNT,
        },
    };
    let holds = Arc::clone(&release.holds);
    let settle = &services.session.settle;
    let dead_letters = Arc::clone(&settle.dead_letters);
    let ends = (Arc::clone(&settle.backlog), Arc::clone(&dead_letters));
    let flows = Arc::clone(&services.destinations.flows);
    let lease = config.lease;
    let custody = Custody {
        vault: Arc::clone(&opened.vault),
        max_outage: config.max_outage,
        alerts: services.alerts.alerts.clone(),
        wake: Arc::clone(&attach.wake),
        clock: Arc::clone(&clock),
        metrics: metrics.clone(),
    };
    let dispatcher = Dispatcher::new(attach, &changes, holds, flows, ends, metrics, lease);
    let observations = &services.session.settle.observations;
    let reconciler = Reconciler {
        rotations: services.rotations.clone(),
        tasks: tasks.clone(),
    };
    let evidence = services
        .rotations
        .clone()
        .observe(observations.observe(), tasks.shutdown().clone());
    let watchman = Watchman {
        alerts: services.alerts.alerts.clone(),
        observer: observations.observe(),
        dead_letters,
    };
    let (health, health_service) =
        health::Health::new(Arc::clone(&opened.store), Arc::clone(&opened.vault));

    let clients = Clients::load(&access.clients, access.calls_per_second)?;
    let api_tls = listen::tls_config(Arc::clone(&certificate), clients.authorities())?;
    let agent_authority = CertificateDer::from(opened.agents.authority.anchor.clone());
    let agents_tls = listen::tls_config(Arc::clone(&certificate), &[agent_authority])?;
    let api_connections = listen::accept(
        "API listener",
        api,
        api_tls,
        clients_of(clients, Arc::clone(&services.session.attach.clock)),
        tasks,
    );
    let agent_connections = listen::accept(
        "agents' listener",
        agents,
        agents_tls,
        agents_of(trust_domain),
        tasks,
    );

    let stop = tasks.shutdown();
    if let Some((channel, steered)) = channel {
        let others = Others {
            channel,
            clock: steered,
            relay,
            attach: services.session.attach.clone(),
            fleet: services.session.fleet.clone(),
            changes,
            rotations: Arc::clone(&services.rotations.poke),
            lists: Arc::clone(&services.lists.due),
            keys: Arc::clone(&keys),
        };
        tasks.spawn(
            "other control planes",
            OnFailure::StopProcess,
            others.run(stop.clone()),
        );
    }
    tasks.spawn(
        "dispatcher",
        OnFailure::StopProcess,
        dispatcher.run(stop.clone()),
    );
    tasks.spawn(
        "held deliveries",
        OnFailure::StopProcess,
        release.run(stop.clone()),
    );
    tasks.spawn("backlog", OnFailure::StopProcess, recount.run(stop.clone()));
    tasks.spawn(
        "expired secrets",
        OnFailure::StopProcess,
        services
            .destinations
            .destinations
            .clone()
            .remove_expired_secrets(stop.clone()),
    );
    let retention = Retention {
        store: Arc::clone(&opened.store),
        clock: Arc::clone(&services.session.attach.clock),
        keep: config.keep,
    };
    tasks.spawn(
        "retention",
        OnFailure::StopProcess,
        retention.run(stop.clone()),
    );
    tasks.spawn(
        "last use of API keys",
        OnFailure::StopProcess,
        keys.write_uses(stop.clone()),
    );
    tasks.spawn(
        "rotation",
        OnFailure::StopProcess,
        reconciler.run(stop.clone()),
    );
    tasks.spawn("evidence of rotation", OnFailure::StopProcess, evidence);
    tasks.spawn("alerts", OnFailure::StopProcess, watchman.run(stop.clone()));
    tasks.spawn(
        "revocation lists",
        OnFailure::StopProcess,
        audit::scope(listing, services.lists.clone().run(stop.clone())),
    );
    let rewrapping = Rewrapping {
        store: Arc::clone(&opened.store),
        vault: Arc::clone(&opened.vault),
    };
    let work = Call::system("KEK", Vec::new(), clock);
    tasks.spawn(
        "replacing the KEK",
        OnFailure::StopProcess,
        audit::scope(work, rewrapping.run(stop.clone())),
    );
    tasks.spawn(
        "the KEK's provider",
        OnFailure::StopProcess,
        custody.run(stop.clone()),
    );
    tasks.spawn(
        "audit log",
        OnFailure::StopProcess,
        keeper.run(stop.clone()),
    );
    tasks.spawn("health", OnFailure::StopProcess, health.run(stop.clone()));
    tasks.spawn(
        "server certificate",
        OnFailure::StopProcess,
        renewal.run(certificate, renew_at, stop.clone()),
    );
    let api_router = api_router(&services, health_service, config.max_payload_bytes)?;
    tasks.spawn(
        "API",
        OnFailure::StopProcess,
        api_router.serve_with_incoming_shutdown(api_connections, stop.clone().cancelled_owned()),
    );
    tasks.spawn(
        "agents' API",
        OnFailure::StopProcess,
        agents_router(&services)
            .serve_with_incoming_shutdown(agent_connections, stop.clone().cancelled_owned()),
    );
    let stop = stop.clone();
    tasks.spawn("HTTP", OnFailure::StopProcess, async move {
        axum::serve(http, http::router(pages))
            .with_graceful_shutdown(stop.cancelled_owned())
            .await
    });
    if tls::is_fips() {
        tracing::info!("TLS and certificates are done by the FIPS 140-3 module");
    }
    tracing::info!(
        api = %listeners.api, agents = %listeners.agents, http = %listeners.http,
        version = countersign_shared::VERSION, "control plane is up"
    );
    Ok(listeners)
}

/// Who calls the API, by client certificate.
fn clients_of(clients: Clients, clock: Arc<dyn Clock>) -> Recognise {
    Arc::new(move |chain| Peer {
        client: clients.identify(chain, clock.now()),
        ..Peer::default()
    })
}

/// Puts on record what does not open: somebody has changed the store from outside.
fn record_alterations(
    audit: &AuditLog,
    clock: Arc<dyn Clock>,
) -> impl Fn(&str) + Send + Sync + 'static {
    let refusals = Arc::clone(&audit.refusals);
    move |what| {
        tracing::error!(what, "a sealed record was altered, or is another record's");
        let refusal = Refusal {
            principal: "system/vault".to_owned(),
            address: None,
            method: format!("open {what}"),
            reason: "DOES_NOT_OPEN".to_owned(),
        };
        refusals.note(refusal, clock.now());
    }
}

/// Which agent calls, by its identity.
fn agents_of(trust_domain: Arc<str>) -> Recognise {
    Arc::new(move |chain| Peer {
        agent: chain
            .first()
            .and_then(|leaf| ca::identity_of(&trust_domain, leaf)),
        agent_key: chain
            .first()
            .and_then(|leaf| tls::certificate_facts(leaf))
            .map(|facts| facts.public_key_sha256),
        agent_certificate: chain.first().map(|leaf| leaf.as_ref().into()),
        ..Peer::default()
    })
}

async fn bind(
    setting: &'static str,
    address: std::net::SocketAddr,
) -> Result<TcpListener, AppError> {
    TcpListener::bind(address)
        .await
        .map_err(|error| AppError::Address {
            setting,
            address,
            error,
        })
}

/// SHA-256 of the public key of the server certificate's authority: what join tokens pin.
fn server_pin(opened: &Opened) -> Result<[u8; 32], StartError> {
    tls::certificate_facts(&opened.server.authority.anchor)
        .map(|facts| facts.public_key_sha256)
        .ok_or(StartError::NoAuthority(
            opened.server.authority.owner.clone(),
        ))
}
