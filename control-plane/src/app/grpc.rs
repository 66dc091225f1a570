//! The gRPC services, put together, and the two servers that offer them.

use std::{sync::Arc, time::Duration};

use countersign_proto::{
    FILE_DESCRIPTOR_SET,
    v1::{
        access_service_server::{self, AccessServiceServer},
        account_service_server::{self, AccountServiceServer},
        agent_administration_service_server::{self, AgentAdministrationServiceServer},
        agent_session_service_server::AgentSessionServiceServer,
        alert_service_server::{self, AlertServiceServer},
        audit_service_server::{self, AuditServiceServer},
        certificate_service_server::{self, CertificateServiceServer},
        delivery_service_server::{self, DeliveryServiceServer},
        destination_service_server::{self, DestinationServiceServer},
        enrollment_service_server::EnrollmentServiceServer,
        key_encryption_key_service_server::{self, KeyEncryptionKeyServiceServer},
    },
};
use countersign_shared::{tasks::Tasks, time::Clock};
use tonic::transport::{Server, server::Router};
use tonic_health::pb::health_server::{self, Health, HealthServer};
use tonic_reflection::pb::{v1 as reflection_v1, v1alpha as reflection_v1alpha};
use tower::layer::util::{Identity, Stack};

use crate::{
    accounts::Accounts,
    agents::Agents,
    alerts::{Alerts, Notifier},
    api::{
        AccessApi, AccountApi, AgentAdministrationApi, AgentSessionApi, AlertApi, AuditApi,
        CertificateApi, DeliveryApi, DestinationApi, EnrollmentApi, Guard, KeyEncryptionKeyApi,
    },
    auditing::AuditLog,
    auth::{ApiKeys, Attempts, Rules},
    bootstrap::Opened,
    bundles::Bundles,
    config::Config,
    crl::RevocationLists,
    deliveries::{Backlog, ByHand, Settle, Submit},
    destinations::Destinations,
    dispatch::{Attach, Fleet, Probes, Sessions},
    issuing::Issuing,
    metrics::Metrics,
    rewrapping::Rewrapping,
    rotation::{Authorities, Policy, Rotations},
    signals::{Changes, DeadLetters, Holds, News, Observations, Poke, Relay, Wake},
};

/// What a message has besides its payload, at most.
const MESSAGE_OVERHEAD: usize = 64 * 1024;
/// Largest message of an agent: a report of 1024 outcomes.
const AGENT_MESSAGE: usize = 16 * 1024 * 1024;
/// Windows are wide: nothing waits for a window while the disk is the bottleneck.
const STREAM_WINDOW: u32 = 8 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 32 * 1024 * 1024;
/// Most calls at once on one connection.
const CALLS: u32 = 1024;
/// Largest header list in bytes.
const HEADERS: u32 = 16 * 1024;
/// A connection that is silent this long is asked whether it lives.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// Every service.
pub(super) struct Services {
    guard: Guard,
    access: AccessApi,
    accounts: AccountApi,
    pub(super) lists: RevocationLists,
    pub(super) destinations: DestinationApi,
    certificates: CertificateApi,
    pub(super) rotations: Rotations,
    pub(super) deliveries: DeliveryApi,
    agents: AgentAdministrationApi,
    pub(super) alerts: AlertApi,
    pub(super) key_encryption_keys: KeyEncryptionKeyApi,
    pub(super) audit: AuditApi,
    enrollment: EnrollmentApi,
    pub(super) session: AgentSessionApi,
}

impl Services {
    pub(super) fn new(
        config: &Config,
        opened: &Opened,
        (keys, rules, audit): (Arc<ApiKeys>, Rules, AuditLog),
        (server_pin, relay): ([u8; 32], Arc<Relay>),
        clock: Arc<dyn Clock>,
        metrics: Metrics,
        tasks: &Tasks,
    ) -> Self {
        let store = || Arc::clone(&opened.store);
        let vault = || Arc::clone(&opened.vault);
        let trust_domain: Arc<str> = config.trust_domain.as_str().into();
        let wake = Arc::new(Wake::relayed(Arc::clone(&relay)));
        let holds = Arc::new(Holds::default());
        let backlog = Arc::new(Backlog::new(config.backlog, metrics.clone()));
        let sessions = Arc::new(Sessions::new(metrics.clone()));
        let agents = Agents {
            store: store(),
            vault: vault(),
            authority: Arc::clone(&opened.agents),
            server_pin,
            trust_domain: Arc::clone(&trust_domain),
            clock: Arc::clone(&clock),
        };
        let lists = RevocationLists {
            store: store(),
            vault: vault(),
            due: Arc::new(Poke::relayed(Arc::clone(&relay), News::Lists)),
            clock: Arc::clone(&clock),
        };
        let accounts = Accounts {
            store: store(),
            vault: vault(),
            root: Arc::clone(&opened.root),
            lists: lists.clone(),
            backlog: Arc::clone(&backlog),
            clock: Arc::clone(&clock),
        };
        let issuing = Issuing {
            store: store(),
            vault: vault(),
            root: Arc::clone(&opened.root),
            trust_domain: Arc::clone(&trust_domain),
            delivery_domain: config.delivery_domain.as_str().into(),
            life: config.client_life,
            opened: Arc::default(),
            clock: Arc::clone(&clock),
        };
        let changes = Arc::new(Changes::relayed(Arc::clone(&relay)));
        let rotation_poke = Arc::new(Poke::relayed(relay, News::Rotations));
        let dead_letters = Arc::<DeadLetters>::default();
        let destinations = Destinations {
            store: store(),
            vault: vault(),
            wake: Arc::clone(&wake),
            changes: Arc::clone(&changes),
            holds: Arc::clone(&holds),
            backlog: Arc::clone(&backlog),
            issuing: issuing.clone(),
            rotations: Arc::clone(&rotation_poke),
            dead_letters: Arc::clone(&dead_letters),
            clock: Arc::clone(&clock),
        };
        let submit = Submit {
            store: store(),
            vault: vault(),
            backlog: Arc::clone(&backlog),
            wake: Arc::clone(&wake),
            clock: Arc::clone(&clock),
            metrics: metrics.clone(),
            max_payload: config.max_payload_bytes,
        };
        let settle = Settle {
            store: store(),
            wake: Arc::clone(&wake),
            observations: Arc::new(Observations::default()),
            holds: Arc::clone(&holds),
            dead_letters,
            backlog: Arc::clone(&backlog),
            refusals: Arc::clone(&audit.refusals),
            clock: Arc::clone(&clock),
            metrics: metrics.clone(),
        };
        let by_hand = ByHand {
            store: store(),
            wake: Arc::clone(&wake),
            dead_letters: Arc::clone(&settle.dead_letters),
            backlog,
            clock: Arc::clone(&clock),
        };
        let notifier = config.alerts_destination.clone();
        let notifier = notifier.map(|destination| Notifier {
            submit: submit.clone(),
            destination,
        });
        let alerts = Alerts::new(store(), Arc::clone(&clock), metrics.clone(), notifier);
        let attach = Attach {
            store: store(),
            vault: vault(),
            bundles: Bundles {
                store: store(),
                vault: vault(),
            },
            sessions: Arc::clone(&sessions),
            wake: Arc::clone(&wake),
            lease: config.lease,
            clock: Arc::clone(&clock),
        };
        let probes = Arc::new(Probes::default());
        let fleet = Fleet::new(attach.clone(), Arc::clone(&probes));
        let rotations = Rotations {
            store: store(),
            issuing,
            agents: Arc::new(fleet.clone()),
            alerts: alerts.clone(),
            changes: Arc::clone(&changes),
            holds,
            wake,
            poke: Arc::clone(&rotation_poke),
            lists: lists.clone(),
            policy: Policy::new(config.client_life, config.client_grace),
            metrics: metrics.clone(),
            clock: Arc::clone(&clock),
        };
        let authorities = Authorities {
            store: store(),
            vault: vault(),
            root: Arc::clone(&opened.root),
            agents: Arc::new(fleet.clone()),
            changes,
            poke: rotation_poke,
            lists: lists.clone(),
            opened: Arc::clone(&rotations.issuing.opened),
            clock: Arc::clone(&clock),
        };
        Self {
            access: AccessApi(Arc::clone(&keys)),
            guard: Guard {
                rules: Arc::new(rules),
                keys,
                metrics,
                max_message: config.max_payload_bytes + MESSAGE_OVERHEAD,
                refusals: Arc::clone(&audit.refusals),
                clock,
            },
            accounts: AccountApi(accounts),
            lists,
            destinations: DestinationApi {
                destinations,
                rotations: rotations.clone(),
                flows: Arc::default(),
            },
            certificates: CertificateApi {
                store: store(),
                root: Arc::clone(&opened.root),
                trust_domain,
                rotations: rotations.clone(),
                authorities,
            },
            rotations,
            deliveries: DeliveryApi {
                submit,
                by_hand,
                tasks: tasks.clone(),
            },
            agents: AgentAdministrationApi {
                agents: agents.clone(),
                attach: attach.clone(),
                alerts: alerts.clone(),
            },
            alerts: AlertApi {
                alerts: alerts.clone(),
                tasks: tasks.clone(),
            },
            enrollment: EnrollmentApi {
                attach: attach.clone(),
                alerts,
                refusals: Arc::clone(&audit.refusals),
                agents,
                attempts: Arc::new(Attempts::new(config.access.failed_attempts_per_minute)),
            },
            audit: AuditApi {
                log: audit,
                tasks: tasks.clone(),
            },
            key_encryption_keys: KeyEncryptionKeyApi {
                rewrapping: Rewrapping {
                    store: store(),
                    vault: Arc::clone(&opened.vault),
                },
                tasks: tasks.clone(),
            },
            session: AgentSessionApi {
                handshakes: Arc::default(),
                attach,
                settle,
                probes,
                fleet,
                tasks: tasks.clone(),
                heartbeat: config.heartbeat,
                reconnect_window: config.reconnect_window,
                lease: config.lease,
            },
        }
    }
}

fn server() -> Server {
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(CALLS)
        .http2_max_header_list_size(HEADERS)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
}

/// What reflection lists: what the API's listener serves, not what the agents' does.
const LISTED: [&str; 12] = [
    access_service_server::SERVICE_NAME,
    account_service_server::SERVICE_NAME,
    agent_administration_service_server::SERVICE_NAME,
    alert_service_server::SERVICE_NAME,
    audit_service_server::SERVICE_NAME,
    certificate_service_server::SERVICE_NAME,
    delivery_service_server::SERVICE_NAME,
    destination_service_server::SERVICE_NAME,
    health_server::SERVICE_NAME,
    key_encryption_key_service_server::SERVICE_NAME,
    reflection_v1::server_reflection_server::SERVICE_NAME,
    reflection_v1alpha::server_reflection_server::SERVICE_NAME,
];

/// Reflection over everything that is listed, in whichever of its versions a client asks.
fn reflection() -> tonic_reflection::server::Builder<'static> {
    let builder = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        // So that clients can show the details of errors.
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
        // Both versions describe both: the builder would add only its own.
        .include_reflection_service(false)
        .register_encoded_file_descriptor_set(reflection_v1::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(reflection_v1alpha::FILE_DESCRIPTOR_SET);
    LISTED
        .into_iter()
        .fold(builder, |builder, name| builder.with_service_name(name))
}

/// The API for clients, all of it behind the guard.
pub(super) fn api_router(
    services: &Services,
    health: HealthServer<impl Health>,
    max_payload: usize,
) -> Result<Router<Stack<Guard, Identity>>, tonic_reflection::server::Error> {
    let deliveries = DeliveryServiceServer::new(services.deliveries.clone())
        .max_decoding_message_size(max_payload + MESSAGE_OVERHEAD);
    Ok(server()
        .layer(services.guard.clone())
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .add_service(health)
        .add_service(AccessServiceServer::new(services.access.clone()))
        .add_service(AccountServiceServer::new(services.accounts.clone()))
        .add_service(DestinationServiceServer::new(services.destinations.clone()))
        .add_service(CertificateServiceServer::new(services.certificates.clone()))
        .add_service(AgentAdministrationServiceServer::new(
            services.agents.clone(),
        ))
        .add_service(AlertServiceServer::new(services.alerts.clone()))
        .add_service(KeyEncryptionKeyServiceServer::new(
            services.key_encryption_keys.clone(),
        ))
        .add_service(AuditServiceServer::new(services.audit.clone()))
        .add_service(deliveries))
}

/// The API for agents.
pub(super) fn agents_router(services: &Services) -> Router {
    let session = AgentSessionServiceServer::new(services.session.clone())
        .max_decoding_message_size(AGENT_MESSAGE);
    server()
        .add_service(EnrollmentServiceServer::new(services.enrollment.clone()))
        .add_service(session)
}
