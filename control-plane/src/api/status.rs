//! The one place where errors become gRPC status, with `google.rpc` details: a reason for programs,
//! and what to do for people. What is ours alone to know goes to the log, under a number that the
//! caller is told.

use std::time::Duration;

use countersign_shared::{digest::hex, name::ApiKeyName, random};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::violations::clipped;
use crate::{
    agents::EnrollError,
    auth::Denied,
    ca::CaError,
    deliveries::{Full, Scope, SubmitError},
    destinations::ReceiverConfigurationError,
    rewrapping::RewrapError,
    store::StoreError,
    vault::VaultError,
};

/// Domain of every `google.rpc.ErrorInfo`.
const DOMAIN: &str = "countersign";
/// Longest message, in characters: it travels in a header.
const MESSAGE: usize = 1000;
/// `ErrorInfo` has no metadata of ours.
const NO_METADATA: [(String, String); 0] = [];
/// When trying again can help.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// When a key service may serve again.
const KEY_RETRY_AFTER: Duration = Duration::from_secs(5);
/// When there may be room in a backlog again.
const BACKLOG_RETRY_AFTER: Duration = Duration::from_secs(5);

/// A status with a reason for programs.
pub(super) fn status(code: Code, reason: &str, message: impl Into<String>) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info(reason, DOMAIN, NO_METADATA);
    Status::with_error_details(code, clipped(&message.into(), MESSAGE), details)
}

/// As [`status`], with how long to wait before trying again.
fn status_with_retry(code: Code, reason: &str, message: String, wait: Duration) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info(reason, DOMAIN, NO_METADATA);
    details.set_retry_info(Some(wait));
    Status::with_error_details(code, clipped(&message, MESSAGE), details)
}

pub(super) fn no_key() -> Status {
    let text = "no valid API key: send the header 'authorization: Bearer <API key>', or connect with a \
                client certificate that the configuration names";
    status(Code::Unauthenticated, "API_KEY_REFUSED", text)
}

pub(super) fn certificate_expired(client: &str) -> Status {
    let text = format!("the certificate of {client} has expired: connect with a new one");
    status(Code::Unauthenticated, "CLIENT_CERTIFICATE_EXPIRED", text)
}

pub(super) fn own_key(name: &ApiKeyName) -> Status {
    let text = format!("{name} makes this call: revoke it with another administrator's key");
    status(Code::FailedPrecondition, "OWN_API_KEY", text)
}

pub(super) fn too_many_failures(wait: Duration) -> Status {
    let text = format!(
        "too many calls with wrong keys or tokens came from this address: try again in {} s",
        wait.as_secs() + 1
    );
    let code = Code::ResourceExhausted;
    status_with_retry(code, "TOO_MANY_FAILED_ATTEMPTS", text, wait)
}

pub(super) fn too_many_calls(principal: &str, wait: Duration) -> Status {
    let text = format!("{principal} makes more calls a second than it may: slow down");
    status_with_retry(Code::ResourceExhausted, "TOO_MANY_CALLS", text, wait)
}

pub(super) fn denied(denied: &Denied) -> Status {
    let (code, reason) = match denied {
        Denied::Role { .. } => (Code::PermissionDenied, "ROLE_REFUSED"),
        Denied::Account(_) | Denied::AllAccounts(_) => (Code::PermissionDenied, "ACCOUNT_REFUSED"),
        Denied::Unreadable(_) => (Code::InvalidArgument, "REQUEST_UNREADABLE"),
    };
    status(code, reason, denied.to_string())
}

pub(super) fn internal(error: &dyn std::fmt::Display) -> Status {
    let number = hex(&random::bytes::<6>());
    tracing::error!(%number, %error, "internal error");
    let message = format!("internal error; the control plane's log says more under {number}");
    status(Code::Internal, "INTERNAL", message)
}

pub(super) fn store(error: StoreError) -> Status {
    let message = error.to_string();
    match error {
        StoreError::NotFound(_) => status(Code::NotFound, "RESOURCE_NOT_FOUND", message),
        StoreError::AlreadyExists(_) => status(Code::AlreadyExists, "RESOURCE_EXISTS", message),
        StoreError::Changed(_) => status(Code::Aborted, "ETAG_MISMATCH", message),
        StoreError::Precondition(_) => {
            status(Code::FailedPrecondition, "FAILED_PRECONDITION", message)
        }
        StoreError::RequestIdReused { .. } => {
            status(Code::AlreadyExists, "REQUEST_ID_REUSED", message)
        }
        StoreError::Unavailable(_) => {
            tracing::warn!(%message, "store unavailable");
            unavailable("the store does not answer now; try again")
        }
        StoreError::Corrupt(_) => internal(&message),
    }
}

/// What was under way goes no further here.
pub(super) fn stopping() -> Status {
    let text = "the control plane stops: call again";
    let (code, reason) = (Code::Unavailable, "STOPPING");
    status_with_retry(code, reason, text.to_owned(), RETRY_AFTER)
}

fn unavailable(message: &str) -> Status {
    let (code, reason) = (Code::Unavailable, "STORE_UNAVAILABLE");
    status_with_retry(code, reason, message.to_owned(), RETRY_AFTER)
}

pub(super) fn vault(error: VaultError) -> Status {
    match error {
        VaultError::Store(error) => store(error),
        outage if outage.is_outage() => {
            // The provider's failures are in the log already, and these can be many.
            tracing::debug!(error = %outage, "no data key");
            let text = "the key-encryption key can't be used now; the control plane's log says why";
            let (code, reason) = (Code::Unavailable, "KEY_PROVIDER_UNAVAILABLE");
            status_with_retry(code, reason, text.to_owned(), KEY_RETRY_AFTER)
        }
        other => internal(&other),
    }
}

pub(super) fn rewrap(error: RewrapError) -> Status {
    match error {
        RewrapError::Store(error) => store(error),
        RewrapError::Vault(error) => vault(error),
    }
}

pub(super) fn ca(error: CaError) -> Status {
    match error {
        CaError::Store(error) => store(error),
        CaError::Vault(error) => vault(error),
        CaError::Request(_) => status(
            Code::InvalidArgument,
            "SIGNING_REQUEST_INVALID",
            error.to_string(),
        ),
        CaError::TokenAway => status(Code::Unavailable, "TOKEN_UNAVAILABLE", error.to_string()),
        CaError::InToken(..) => {
            let reason = "AUTHORITY_KEY_IN_TOKEN";
            status(Code::FailedPrecondition, reason, error.to_string())
        }
        other => internal(&other),
    }
}

pub(super) fn submit(error: SubmitError) -> Status {
    match error {
        SubmitError::Store(error) => store(error),
        SubmitError::Vault(error) => vault(error),
        SubmitError::Full(full) => backlog_full(&full),
        SubmitError::TooLarge { .. } => {
            let message = error.to_string();
            let mut details = ErrorDetails::new();
            details.set_error_info("PAYLOAD_TOO_LARGE", DOMAIN, NO_METADATA);
            details.add_bad_request_violation("payload", message.clone());
            Status::with_error_details(Code::InvalidArgument, message, details)
        }
    }
}

fn backlog_full(full: &Full) -> Status {
    let reason = match full.scope {
        Scope::Destination => "DESTINATION_BACKLOG_FULL",
        Scope::Account => "ACCOUNT_BACKLOG_FULL",
        Scope::Installation => "INSTALLATION_BACKLOG_FULL",
    };
    let metadata = [
        ("deliveries", full.load.deliveries.to_string()),
        ("max_deliveries", full.bound.deliveries.to_string()),
        ("bytes", full.load.bytes.to_string()),
        ("max_bytes", full.bound.bytes.to_string()),
    ];
    let mut details = ErrorDetails::new();
    let metadata = metadata.map(|(name, value)| (name.to_owned(), value));
    details.set_error_info(reason, DOMAIN, metadata);
    details.set_retry_info(Some(BACKLOG_RETRY_AFTER));
    Status::with_error_details(Code::ResourceExhausted, full.to_string(), details)
}

pub(super) fn enroll(error: EnrollError) -> Status {
    let message = error.to_string();
    match error {
        EnrollError::Token(_) => status(Code::Unauthenticated, "JOIN_TOKEN_REFUSED", message),
        EnrollError::Name(_) => status(Code::PermissionDenied, "AGENT_NAME_REFUSED", message),
        EnrollError::NameTaken(_) => status(Code::AlreadyExists, "AGENT_EXISTS", message),
        EnrollError::Evicted(_) => status(Code::PermissionDenied, "AGENT_EVICTED", message),
        EnrollError::Source => status(Code::PermissionDenied, "SOURCE_REFUSED", message),
        EnrollError::NothingToRecover(_) => status(Code::NotFound, "AGENT_UNKNOWN", message),
        EnrollError::Suspended(_) => status(Code::PermissionDenied, "AGENT_SUSPENDED", message),
        EnrollError::Replaced(_) => status(Code::PermissionDenied, "AGENT_REPLACED", message),
        EnrollError::Cloned(..) => status(Code::PermissionDenied, "AGENT_IDENTITY_CLONED", message),
        EnrollError::Ca(error) => ca(error),
    }
}

pub(super) fn receiver_configuration(error: ReceiverConfigurationError) -> Status {
    // Ids and the trust domain were checked when they came in.
    internal(&error)
}

/// The reason of a status that [`status`] made.
pub(super) fn reason(status: &Status) -> String {
    status
        .get_error_details()
        .error_info()
        .map_or_else(String::new, |info| info.reason.clone())
}

/// After what time a status says that trying again can help.
pub(super) fn retry_after(status: &Status) -> Option<Duration> {
    status.get_error_details().retry_info()?.retry_delay
}
