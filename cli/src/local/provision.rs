//! What is asked of the API: an account, a destination, a join token, a delivery. Each call either makes what is missing or takes what an earlier run made.

mod lifecycle;

use countersign_proto::v1;
use countersign_shared::{name::Id, secret::SecretText};
use thiserror::Error;
use tonic::{Code, Response, Status};

use crate::api_client::ApiClient;

/// Why a call failed.
#[derive(Debug, Error)]
pub(crate) enum ApiError {
    /// The control plane refused it, or did not answer.
    #[error("{call} failed with {code:?}: {message}")]
    Refused {
        /// The method.
        call: &'static str,
        /// The gRPC status code.
        code: Code,
        /// What the control plane says.
        message: String,
    },
    /// An answer without what it must have.
    #[error("{0} answered without what was asked for: the versions do not fit together")]
    Incomplete(&'static str),
}

impl ApiError {
    /// Refused with this status.
    pub(crate) fn is(&self, expected: Code) -> bool {
        matches!(self, Self::Refused { code, .. } if *code == expected)
    }
}

/// Whether a resource was made now or is of an earlier run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Made now.
    New,
    /// There already.
    Earlier,
}

/// A delivery to submit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Event {
    /// What kind it is.
    pub(crate) kind: &'static str,
    /// JSON.
    pub(crate) payload: &'static [u8],
}

fn checked<T>(call: &'static str, answer: Result<Response<T>, Status>) -> Result<T, ApiError> {
    answer
        .map(Response::into_inner)
        .map_err(|status| ApiError::Refused {
            call,
            code: status.code(),
            message: status.message().to_owned(),
        })
}

fn present<T>(call: &'static str, field: Option<T>) -> Result<T, ApiError> {
    field.ok_or(ApiError::Incomplete(call))
}

/// An administrator at the API.
#[derive(Debug, Clone)]
pub(crate) struct Administrator(ApiClient);

impl Administrator {
    /// With an administrator's key.
    pub(crate) fn new(client: ApiClient) -> Self {
        Self(client)
    }

    /// An account with this id.
    pub(crate) async fn account(
        &self,
        id: &str,
        display_name: &str,
    ) -> Result<(v1::Account, Origin), ApiError> {
        let request = v1::CreateAccountRequest {
            account_id: id.to_owned(),
            account: Some(v1::Account {
                display_name: display_name.to_owned(),
                ..v1::Account::default()
            }),
            ..v1::CreateAccountRequest::default()
        };
        let answer = self.0.accounts().create_account(request).await;
        match checked("CreateAccount", answer) {
            Ok(made) => Ok((present("CreateAccount", made.account)?, Origin::New)),
            Err(error) if error.is(Code::AlreadyExists) => {
                let name = format!("accounts/{id}");
                let request = v1::GetAccountRequest { name };
                let found = self.0.accounts().get_account(request).await;
                let found = checked("GetAccount", found)?;
                Ok((present("GetAccount", found.account)?, Origin::Earlier))
            }
            Err(error) => Err(error),
        }
    }

    /// A destination with this id that is as `wanted`; of an earlier run's only the URL and
    /// `server_ca_pem` change.
    pub(crate) async fn destination(
        &self,
        account: &str,
        id: &str,
        wanted: v1::Destination,
    ) -> Result<(v1::Destination, Origin), ApiError> {
        let request = v1::CreateDestinationRequest {
            parent: account.to_owned(),
            destination_id: id.to_owned(),
            destination: Some(wanted.clone()),
            ..v1::CreateDestinationRequest::default()
        };
        let answer = self.0.destinations().create_destination(request).await;
        match checked("CreateDestination", answer) {
            Ok(made) => Ok((present("CreateDestination", made.destination)?, Origin::New)),
            Err(error) if error.is(Code::AlreadyExists) => {
                let name = format!("{account}/destinations/{id}");
                let moved = self.move_destination(name, wanted).await?;
                Ok((moved, Origin::Earlier))
            }
            Err(error) => Err(error),
        }
    }

    /// Points an earlier run's destination to this run's receiver, and enables it.
    async fn move_destination(
        &self,
        name: String,
        wanted: v1::Destination,
    ) -> Result<v1::Destination, ApiError> {
        let paths = ["url", "server_ca_pem"].map(str::to_owned).to_vec();
        let request = v1::UpdateDestinationRequest {
            destination: Some(v1::Destination {
                name: name.clone(),
                ..wanted
            }),
            update_mask: Some(prost_types::FieldMask { paths }),
        };
        let answer = self.0.destinations().update_destination(request).await;
        let updated = checked("UpdateDestination", answer)?;
        let updated = present("UpdateDestination", updated.destination)?;
        if updated.state != i32::from(v1::DestinationState::Disabled) {
            return Ok(updated);
        }
        let request = v1::EnableDestinationRequest { name };
        let answer = self.0.destinations().enable_destination(request).await;
        let enabled = checked("EnableDestination", answer)?;
        present("EnableDestination", enabled.destination)
    }

    /// The newest signing secret of a destination, as its receiver gets it.
    pub(crate) async fn signing_secret(&self, destination: &str) -> Result<SecretText, ApiError> {
        let name = format!("{destination}/signingSecrets/-");
        let request = v1::RevealSigningSecretRequest { name };
        let answer = self.0.destinations().reveal_signing_secret(request).await;
        let revealed = checked("RevealSigningSecret", answer)?;
        Ok(SecretText::from(revealed.signing_secret))
    }

    /// A client certificate by its resource name.
    pub(crate) async fn client_certificate(
        &self,
        name: &str,
    ) -> Result<v1::ClientCertificate, ApiError> {
        let name = name.to_owned();
        let request = v1::GetClientCertificateRequest { name };
        let answer = self.0.certificates().get_client_certificate(request).await;
        let found = checked("GetClientCertificate", answer)?;
        present("GetClientCertificate", found.client_certificate)
    }

    /// An agent; `None` when there is none of that name.
    pub(crate) async fn agent(&self, name: &str) -> Result<Option<v1::Agent>, ApiError> {
        let name = name.to_owned();
        let answer = self
            .0
            .agents()
            .get_agent(v1::GetAgentRequest { name })
            .await;
        match checked("GetAgent", answer) {
            Ok(found) => Ok(found.agent),
            Err(error) if error.is(Code::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A one-time secret that enrolls the agent of this id.
    pub(crate) async fn join_token(&self, agent: &Id) -> Result<SecretText, ApiError> {
        let request = v1::CreateJoinTokenRequest {
            join_token: Some(v1::JoinToken {
                agent_id: agent.to_string(),
                ..v1::JoinToken::default()
            }),
            ..v1::CreateJoinTokenRequest::default()
        };
        let answer = self.0.agents().create_join_token(request).await;
        Ok(SecretText::from(checked("CreateJoinToken", answer)?.token))
    }

    /// Submits a delivery; it is durable when this returns.
    pub(crate) async fn submit(
        &self,
        destination: &str,
        event: Event,
    ) -> Result<v1::Delivery, ApiError> {
        let request = v1::SubmitDeliveryRequest {
            destination: destination.to_owned(),
            payload: event.payload.into(),
            content_type: "application/json".to_owned(),
            event_type: event.kind.to_owned(),
            ..v1::SubmitDeliveryRequest::default()
        };
        let answer = self.0.deliveries().submit_delivery(request).await;
        let accepted = checked("SubmitDelivery", answer)?;
        present("SubmitDelivery", accepted.delivery)
    }

    /// A delivery as it is now.
    pub(crate) async fn delivery(&self, name: &str) -> Result<v1::Delivery, ApiError> {
        let name = name.to_owned();
        let request = v1::GetDeliveryRequest { name };
        let answer = self.0.deliveries().get_delivery(request).await;
        present("GetDelivery", checked("GetDelivery", answer)?.delivery)
    }

    /// A page of an account's deliveries, newest first, at most 1000; `token` is the page before's
    /// `next_page_token`.
    pub(crate) async fn deliveries(
        &self,
        account: &str,
        token: String,
    ) -> Result<v1::ListDeliveriesResponse, ApiError> {
        let request = v1::ListDeliveriesRequest {
            parent: account.to_owned(),
            page_size: 1000,
            page_token: token,
            ..v1::ListDeliveriesRequest::default()
        };
        let answer = self.0.deliveries().list_deliveries(request).await;
        checked("ListDeliveries", answer)
    }

    /// The attempts of a delivery, oldest first, at most 50.
    pub(crate) async fn attempts(&self, delivery: &str) -> Result<Vec<v1::Attempt>, ApiError> {
        let request = v1::ListAttemptsRequest {
            parent: delivery.to_owned(),
            ..v1::ListAttemptsRequest::default()
        };
        let answer = self.0.deliveries().list_attempts(request).await;
        Ok(checked("ListAttempts", answer)?.attempts)
    }
}

#[cfg(test)]
mod tests;
