//! Why the demonstration failed: what a part of it says, in words that stand on their own.

use std::io;

use countersign_shared::tls::PemError;
use thiserror::Error;

use crate::{
    local::{
        children::ChildError, commands::AccessError, provision::ApiError,
        trust_anchor::TrustAnchorError,
    },
    mutual_tls::TlsError,
};

/// Why.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    /// A child process.
    #[error(transparent)]
    Child(#[from] ChildError),
    /// No connection to the API.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// A call to the API.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The account's trust anchors.
    #[error(transparent)]
    TrustAnchor(#[from] TrustAnchorError),
    /// The receiver's TLS configuration.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The receiver's server certificate.
    #[error("can't make the receiver's server certificate: {0}")]
    ServerCertificate(#[from] rcgen::Error),
    /// A certificate of the API.
    #[error("the client certificate that the API returns {0}")]
    ClientCertificate(#[from] PemError),
    /// Something of the API that can't be read.
    #[error("{0} of the API can't be read: the versions do not fit together")]
    Unreadable(&'static str),
    /// A file or a socket.
    #[error("{what}: {error}")]
    Io {
        /// What was to be done with it.
        what: String,
        /// What the operating system says.
        error: io::Error,
    },
    /// The receiver ended.
    #[error("the receiver ended unexpectedly")]
    ReceiverEnded,
    /// The control plane gave up.
    #[error("the delivery was given up after {attempts} attempts{last}")]
    GivenUp {
        /// How many there were.
        attempts: i32,
        /// How the last one ended.
        last: String,
    },
    /// Both sides say that it worked, and differ in what they saw.
    #[error("receiver and control plane do not agree: {0}")]
    Disagreement(String),
    /// It took too long.
    #[error("not confirmed within {seconds} s, still waiting for {what}{last}{logs}")]
    Deadline {
        /// The deadline in seconds.
        seconds: u64,
        /// What was awaited.
        what: &'static str,
        /// How the last attempt ended.
        last: String,
        /// What the children said last.
        logs: String,
    },
    /// Something did not happen, or did, against what is promised.
    #[error("the promise was broken: {0}")]
    Promise(String),
    /// Stopped by a signal.
    #[error("stopped by {0} before the end")]
    Interrupted(&'static str),
}

impl Failure {
    /// For `map_err`: what was to be done.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |error| Self::Io { what, error }
    }
}
