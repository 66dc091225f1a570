//! A bundle: all that an agent needs for a destination, checked when it is taken in, so that what is
//! wrong with it is said once, before any delivery depends on it.

use std::{fmt, time::Duration};

use rustls_pki_types::CertificateDer;
use thiserror::Error;
use url::Url;

use crate::{address_range::AddressRange, name::DestinationName, secret::SecretBytes};

/// Lowest TLS version of a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum MinimumTls {
    /// TLS 1.2 (RFC 5246) or later.
    Tls12,
    /// TLS 1.3 (RFC 8446).
    #[default]
    Tls13,
}

/// What to do with a receiver that does not ask for the client certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum MtlsEnforcement {
    /// Deliver, and flag the attempt.
    #[default]
    Deliver,
    /// Refuse before the first byte of the payload.
    Refuse,
}

/// Shortest and longest time that one attempt may be given, and the default.
pub const ATTEMPT_TIMEOUT: (Duration, Duration, Duration) = (
    Duration::from_secs(1),
    Duration::from_secs(120),
    Duration::from_secs(30),
);
/// Smallest and largest concurrency limit, and the default.
pub const CONCURRENCY_LIMIT: (u32, u32, u32) = (1, 1024, 64);

/// A client certificate with its key.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// Version of the client certificate.
    pub version: u32,
    /// The certificate and its chain, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// PKCS#8 in DER.
    pub private_key: SecretBytes,
}

/// Without the key.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.version)
    }
}

/// All that an agent needs for a destination.
#[derive(Clone)]
pub struct Bundle {
    /// Which destination.
    pub destination: DestinationName,
    /// Grows with every change; the newest wins.
    pub generation: u64,
    /// SHA-256 of the content as it was sent.
    pub content_sha256: [u8; 32],
    /// Where to deliver.
    pub url: Url,
    /// What is presented.
    pub active: Credential,
    /// The next one: presented in probes alone.
    pub candidate: Option<Credential>,
    /// The one before: presented within the same attempt when the receiver refuses the active one.
    pub fallback: Option<Credential>,
    /// Authorities for the server's certificate. Empty: those of the agent's host.
    pub server_cas: Vec<CertificateDer<'static>>,
    /// Lowest TLS version.
    pub minimum_tls: MinimumTls,
    /// What to do when no client certificate is asked for.
    pub mtls_enforcement: MtlsEnforcement,
    /// Keys of the `v1` signatures, newest first.
    pub signing_secrets: Vec<SecretBytes>,
    /// Seeds of the keys of the `v1a` signatures, newest first. There is one of either at least.
    pub signing_seeds: Vec<SecretBytes>,
    /// How long one attempt may take.
    pub attempt_timeout: Duration,
    /// How many attempts may be in flight at once.
    pub concurrency_limit: u32,
    /// Where the destination's addresses have to lie. Empty: the agent's policy alone decides.
    pub allowed_ranges: Vec<AddressRange>,
    /// Whether the agent signs a receipt for each attempt.
    pub receipts: bool,
}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bundle")
            .field("destination", &self.destination)
            .field("generation", &self.generation)
            .field("active", &self.active)
            .field("candidate", &self.candidate)
            .field("fallback", &self.fallback)
            .finish_non_exhaustive()
    }
}

/// Why a text can't be a destination's URL.
#[derive(Debug, Error, PartialEq, Eq, Clone)]
pub enum UrlError {
    /// Too long.
    #[error("is longer than {MAX_URL_LENGTH} characters")]
    TooLong,
    /// Not a URL at all.
    #[error("is not an absolute URL ({0})")]
    Malformed(String),
    /// Not `https`.
    #[error("must start with https:// (got scheme '{0}'): a payload never travels unencrypted")]
    NotHttps(String),
    /// User name or password in it.
    #[error("must not contain a user name or password: they would end up in logs")]
    Credentials,
    /// `#…` in it.
    #[error("must not have a fragment (#…): it is never sent to a server")]
    Fragment,
    /// No host.
    #[error("has no host")]
    NoHost,
}

/// Longest URL of a destination, in characters.
pub const MAX_URL_LENGTH: usize = 2048;

/// Parses the URL of a destination: absolute, `https`, without credentials and fragment.
///
/// # Errors
/// [`UrlError`], naming the first thing that is wrong.
pub fn parse_destination_url(text: &str) -> Result<Url, UrlError> {
    if text.len() > MAX_URL_LENGTH {
        return Err(UrlError::TooLong);
    }
    let url = Url::parse(text).map_err(|error| UrlError::Malformed(error.to_string()))?;
    if url.scheme() != "https" {
        return Err(UrlError::NotHttps(url.scheme().to_owned()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(UrlError::Credentials);
    }
    if url.fragment().is_some() {
        return Err(UrlError::Fragment);
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(UrlError::NoHost);
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_that_would_leak_or_lie_are_refused_with_the_reason() {
        let cases = [
            ("http://a.example/", UrlError::NotHttps("http".into())),
            ("ftp://a.example/", UrlError::NotHttps("ftp".into())),
            ("https://user@a.example/", UrlError::Credentials),
            ("https://user:pw@a.example/", UrlError::Credentials),
            ("https://:pw@a.example/", UrlError::Credentials),
            ("https://a.example/#x", UrlError::Fragment),
            ("https://a.example/#", UrlError::Fragment),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_destination_url(text), Err(expected), "{text}");
        }
        for text in ["", "a.example", "/hook", "https://", "https:///"] {
            assert!(parse_destination_url(text).is_err(), "{text}");
        }
        let long = format!("https://a.example/{}", "x".repeat(2048));
        assert_eq!(parse_destination_url(&long), Err(UrlError::TooLong));
        for text in [
            "https://a.example",
            "https://a.example:8443/hook?x=1",
            "https://192.0.2.1/",
            "https://[2001:db8::1]:8443/",
        ] {
            assert!(parse_destination_url(text).is_ok(), "{text}");
        }
    }
}
