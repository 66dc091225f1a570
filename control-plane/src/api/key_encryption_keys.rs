//! KeyEncryptionKeyService.

use std::pin::Pin;

use countersign_proto::v1::{self, key_encryption_key_service_server::KeyEncryptionKeyService};
use countersign_shared::tasks::{OnFailure, Tasks};
use tokio::sync::mpsc;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status};

use super::status;
use crate::{
    audit,
    rewrapping::{Progress, Rewrapping},
};

/// Progress that nobody has read yet.
const QUEUE: usize = 4;

/// KeyEncryptionKeyService over [`Rewrapping`].
#[derive(Clone)]
pub struct KeyEncryptionKeyApi {
    /// Wraps data keys anew.
    pub rewrapping: Rewrapping,
    /// Where that runs.
    pub tasks: Tasks,
}

#[tonic::async_trait]
impl KeyEncryptionKeyService for KeyEncryptionKeyApi {
    async fn get_key_encryption_key(
        &self,
        _request: Request<v1::GetKeyEncryptionKeyRequest>,
    ) -> Result<Response<v1::GetKeyEncryptionKeyResponse>, Status> {
        let (store, vault) = (&self.rewrapping.store, &self.rewrapping.vault);
        let counts = store.data_key_counts().await.map_err(status::store)?;
        let wrapped = counts
            .into_iter()
            .map(|(kek_id, count)| v1::WrappedDataKeys {
                kek_id,
                count: number(count),
            });
        let problem = vault.check().await.err();
        let key = v1::KeyEncryptionKey {
            kek_id: vault.kek_id().to_owned(),
            usable: vault.is_open().is_ok(),
            problem: problem.map_or_else(String::new, |problem| problem.to_string()),
            wrapped: wrapped.collect(),
        };
        Ok(Response::new(v1::GetKeyEncryptionKeyResponse {
            key_encryption_key: Some(key),
        }))
    }

    type RewrapDataKeysStream =
        Pin<Box<dyn Stream<Item = Result<v1::RewrapDataKeysResponse, Status>> + Send>>;

    async fn rewrap_data_keys(
        &self,
        _request: Request<v1::RewrapDataKeysRequest>,
    ) -> Result<Response<Self::RewrapDataKeysStream>, Status> {
        let (answers, receiver) = mpsc::channel(QUEUE);
        let rewrapping = self.rewrapping.clone();
        let shutdown = self.tasks.shutdown().clone();
        let work = async move {
            let (tell, mut told) = mpsc::channel(QUEUE);
            let pass_on = async {
                while let Some(progress) = told.recv().await {
                    if answers.send(Ok(to_wire(progress))).await.is_err() {
                        break;
                    }
                }
                // Whoever called has gone, or all was told: in the first case the work stops.
                drop(told);
            };
            let work = async { tokio::join!(rewrapping.anew(tell), pass_on).0 };
            let done = tokio::select! {
                () = shutdown.cancelled() => Err(status::stopping()),
                done = work => done.map_err(status::rewrap),
            };
            if let Err(status) = done {
                let _ = answers.send(Err(status)).await;
            }
            Ok::<_, Status>(())
        };
        let work = audit::resume(audit::current(), work);
        self.tasks.spawn("rewrapping", OnFailure::Log, work);
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn to_wire(progress: Progress) -> v1::RewrapDataKeysResponse {
    v1::RewrapDataKeysResponse {
        rewrapped: number(progress.rewrapped),
        current: number(progress.current),
        total: number(progress.total),
    }
}
