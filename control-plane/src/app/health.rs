//! Health (grpc.health.v1): SERVING only while the store answers and data keys can be used. The authorities' keys are in memory
//! from the start on, so a control plane that runs can sign.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use tonic_health::{
    ServingStatus,
    pb::health_server::{Health as HealthService, HealthServer},
    server::{HealthReporter, health_reporter},
};

use crate::{
    store::{Store, StoreError},
    vault::Vault,
};

const EVERY: Duration = Duration::from_secs(2);

/// Every service that health is asked for by name; the empty one is the whole.
const SERVICES: &[&str] = &[
    "",
    "countersign.v1.AccountService",
    "countersign.v1.AgentAdministrationService",
    "countersign.v1.AlertService",
    "countersign.v1.CertificateService",
    "countersign.v1.DeliveryService",
    "countersign.v1.DestinationService",
    "countersign.v1.KeyEncryptionKeyService",
];

/// Looks at the store every now and then and tells the health service.
pub(super) struct Health {
    store: Arc<dyn Store>,
    vault: Arc<Vault>,
    reporter: HealthReporter,
}

impl Health {
    pub(super) fn new(
        store: Arc<dyn Store>,
        vault: Arc<Vault>,
    ) -> (Self, HealthServer<impl HealthService>) {
        let (reporter, service) = health_reporter();
        let health = Self {
            store,
            vault,
            reporter,
        };
        (health, service)
    }

    pub(super) async fn run(self, shutdown: CancellationToken) -> Result<(), StoreError> {
        let mut every = tokio::time::interval(EVERY);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => {
                    self.tell(ServingStatus::NotServing).await;
                    return Ok(());
                }
                _ = every.tick() => {}
            }
            let check = tokio::time::timeout(EVERY, self.store.check()).await;
            self.tell(match check {
                Ok(Ok(())) if self.vault.is_open().is_ok() => ServingStatus::Serving,
                _ => ServingStatus::NotServing,
            })
            .await;
        }
    }

    async fn tell(&self, status: ServingStatus) {
        for service in SERVICES {
            self.reporter.set_service_status(service, status).await;
        }
    }
}
