//! Why there is no result, in words that stand on their own.

use std::io;

use thiserror::Error;

use crate::local::{
    children::ChildError, commands::AccessError, provision::ApiError,
    trust_anchor::TrustAnchorError,
};

/// Why.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    /// A child process.
    #[error(transparent)]
    Child(#[from] ChildError),
    /// No way to the API.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// A call to the API.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// An account's trust anchors.
    #[error(transparent)]
    TrustAnchor(#[from] TrustAnchorError),
    /// The metrics page.
    #[error("the control plane's metrics: {0}")]
    Metrics(#[from] reqwest::Error),
    /// A certificate of the benchmark.
    #[error("can't make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// A file, a socket or `/proc`.
    #[error("{what}: {error}")]
    Io {
        /// What was to be done with it.
        what: &'static str,
        /// What the operating system says.
        error: io::Error,
    },
    /// The data directory has something in it.
    #[error("the data directory is not empty: give an empty or new one with --data-dir")]
    NotEmpty,
    /// The embedded store serves one control plane.
    #[error("several control planes need a store that they can share: add --store postgres")]
    NotShared,
    /// Every destination is slow or dead.
    #[error("no live destination is left: give smaller shares of slow and dead ones")]
    NothingLive,
    /// Something that the API says can't be read.
    #[error("{0} of the API can't be read: the versions do not fit together")]
    Unreadable(&'static str),
    /// It took too long.
    #[error("gave up after {seconds} s of waiting for {what}; --data-dir keeps the logs")]
    Deadline {
        /// How long.
        seconds: u64,
        /// What was awaited.
        what: &'static str,
    },
    /// Stopped by a signal.
    #[error("stopped by {0}")]
    Interrupted(&'static str),
}

impl Failure {
    /// For `map_err`: what was to be done.
    pub(crate) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Io { what, error }
    }
}
