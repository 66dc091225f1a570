//! Between the vocabulary and its wire form: what comes from the other side is checked here, once,
//! and becomes a domain type or a [`WireError`] that names the field.

mod bundle;
mod job;
mod outcome;
mod probe;
mod records;
mod sealed_bundle;

use std::time::Duration;

use countersign_proto::v1;
use thiserror::Error;

pub use self::{
    bundle::{bundle_from_wire, bundle_to_wire},
    job::{job_from_wire, job_to_disk, job_to_wire},
    outcome::{
        handshake_from_wire, handshake_to_wire, outcome_from_wire, outcome_to_wire, outcome_with,
        refusal_to_wire, timings_from_wire, timings_to_wire,
    },
    probe::{probe_from_wire, probe_report_from_wire, probe_report_to_wire, probe_to_wire},
    records::Records,
    sealed_bundle::{open_bundle, seal_bundle},
};
use crate::{
    bundle::{MinimumTls, MtlsEnforcement, UrlError},
    class::FailureClass,
    job::LeaseId,
    name::{DeliveryId, NameError},
    time::Timestamp,
};

/// Why a message of the other side is not understood.
#[derive(Debug, Error, PartialEq, Eq, Clone)]
pub enum WireError {
    /// A field without which the message means nothing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A field with a value outside its range.
    #[error("{0} has a value that is not allowed")]
    Value(&'static str),
    /// A malformed resource name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A malformed URL.
    #[error("url {0}")]
    Url(#[from] UrlError),
}

/// To the wire.
pub fn timestamp_to_wire(at: Timestamp) -> prost_types::Timestamp {
    let micros = at.as_unix_micros();
    prost_types::Timestamp {
        seconds: micros.div_euclid(1_000_000),
        nanos: i32::try_from(micros.rem_euclid(1_000_000) * 1000).unwrap_or(0),
    }
}

/// From the wire; nanoseconds are cut to microseconds.
pub fn timestamp_from_wire(at: prost_types::Timestamp) -> Timestamp {
    let micros = at.seconds.saturating_mul(1_000_000);
    Timestamp::from_unix_micros(micros.saturating_add(i64::from(at.nanos) / 1000))
}

/// To the wire; saturates at the largest time that fits.
pub fn duration_to_wire(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}

/// From the wire; `None` for a negative or denormal one.
pub fn duration_from_wire(duration: prost_types::Duration) -> Option<Duration> {
    let seconds = u64::try_from(duration.seconds).ok()?;
    let nanos = u32::try_from(duration.nanos).ok()?;
    (nanos < 1_000_000_000).then(|| Duration::new(seconds, nanos))
}

/// Defines both directions between [`FailureClass`] and its wire form.
macro_rules! failure_classes {
    ($($name:ident),* $(,)?) => {
        /// To the wire.
        pub fn class_to_wire(class: FailureClass) -> v1::FailureClass {
            match class { $(FailureClass::$name => v1::FailureClass::$name,)* }
        }

        /// From the wire; `None` for an unknown or unspecified one.
        pub fn class_from_wire(class: i32) -> Option<FailureClass> {
            match v1::FailureClass::try_from(class).ok()? {
                v1::FailureClass::Unspecified => None,
                $(v1::FailureClass::$name => Some(FailureClass::$name),)*
            }
        }
    };
}

failure_classes!(
    Delivered,
    MtlsNotEnforced,
    ClientCertificateExpired,
    ClientCaNotTrusted,
    ClientCertificateRevoked,
    ClientCertificateRequired,
    ClientCertificateRejected,
    ClientIdentityForbidden,
    ServerCertificateExpired,
    ServerCaNotTrusted,
    ServerNameMismatch,
    ServerCertificateRevoked,
    TlsVersionUnsupported,
    TlsHandshakeFailed,
    DnsFailure,
    ConnectionRefused,
    ConnectionTimeout,
    ConnectionLost,
    RequestTimeout,
    EgressDenied,
    HttpRedirect,
    HttpGone,
    HttpRateLimited,
    HttpClientError,
    HttpServerError,
    NotAttempted,
);

/// To the wire.
pub fn minimum_tls_to_wire(version: MinimumTls) -> v1::TlsVersion {
    match version {
        MinimumTls::Tls12 => v1::TlsVersion::TlsVersion12,
        MinimumTls::Tls13 => v1::TlsVersion::TlsVersion13,
    }
}

/// From the wire; unspecified is the default, unknown is `None`.
pub fn minimum_tls_from_wire(version: i32) -> Option<MinimumTls> {
    Some(match v1::TlsVersion::try_from(version).ok()? {
        v1::TlsVersion::Unspecified => MinimumTls::default(),
        v1::TlsVersion::TlsVersion12 => MinimumTls::Tls12,
        v1::TlsVersion::TlsVersion13 => MinimumTls::Tls13,
    })
}

/// To the wire.
pub fn enforcement_to_wire(enforcement: MtlsEnforcement) -> v1::MtlsEnforcement {
    match enforcement {
        MtlsEnforcement::Deliver => v1::MtlsEnforcement::Deliver,
        MtlsEnforcement::Refuse => v1::MtlsEnforcement::Refuse,
    }
}

/// From the wire; unspecified is the default, unknown is `None`.
pub fn enforcement_from_wire(enforcement: i32) -> Option<MtlsEnforcement> {
    Some(match v1::MtlsEnforcement::try_from(enforcement).ok()? {
        v1::MtlsEnforcement::Unspecified => MtlsEnforcement::default(),
        v1::MtlsEnforcement::Deliver => MtlsEnforcement::Deliver,
        v1::MtlsEnforcement::Refuse => MtlsEnforcement::Refuse,
    })
}

/// To the wire.
pub fn lease_to_wire(lease: LeaseId) -> v1::HeldLease {
    v1::HeldLease {
        delivery_id: lease.delivery.as_bytes().to_vec().into(),
        epoch: i64::try_from(lease.epoch).unwrap_or(i64::MAX),
    }
}

/// From the wire.
///
/// # Errors
/// [`WireError::Value`].
pub fn lease_from_wire(lease: &v1::HeldLease) -> Result<LeaseId, WireError> {
    Ok(LeaseId {
        delivery: delivery_id(&lease.delivery_id)?,
        epoch: epoch(lease.epoch)?,
    })
}

/// A delivery id from its 16 bytes.
///
/// # Errors
/// [`WireError::Value`] for another length.
pub fn delivery_id(bytes: &[u8]) -> Result<DeliveryId, WireError> {
    DeliveryId::from_slice(bytes).ok_or(WireError::Value("delivery_id"))
}

/// A fencing token.
///
/// # Errors
/// [`WireError::Value`] for a negative one.
pub fn epoch(epoch: i64) -> Result<u64, WireError> {
    u64::try_from(epoch).map_err(|_| WireError::Value("epoch"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_keep_their_names_on_the_wire() {
        for &class in FailureClass::ALL {
            let wire = class_to_wire(class);
            assert_eq!(class_from_wire(wire.into()), Some(class));
            let name = format!("FAILURE_CLASS_{class}");
            assert_eq!(wire.as_str_name(), name);
        }
    }
}
