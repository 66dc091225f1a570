//! Client certificates as principals: whose authority has signed them, and what their identity may do,
//! as the configuration says. An identity counts only under the authority that it is configured with.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use countersign_shared::{
    time::Timestamp,
    tls::{self, PemError},
};
use rustls::{
    RootCertStore,
    server::{VerifierBuilderError, WebPkiClientVerifier, danger::ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, UnixTime};
use thiserror::Error;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::{principal::Principal, rate::Bucket};
use crate::model::{ClientIdentity, ClientRule};

/// Longest identity that is looked at, in bytes.
const MAX_IDENTITY: usize = 2048;

/// Why client certificates can't be used.
#[derive(Debug, Error)]
pub enum ClientsError {
    /// A file of authorities can't be read.
    #[error("access.clients: {0}: {1}")]
    Unreadable(PathBuf, std::io::Error),
    /// It does not hold certificates.
    #[error("access.clients: {0}: {1}")]
    NoCertificates(PathBuf, PemError),
    /// rustls refuses an authority.
    #[error("access.clients: {0}: {1}")]
    Authority(PathBuf, rustls::Error),
    /// The verifier can't be built.
    #[error("access.clients: {0}")]
    Verifier(#[from] VerifierBuilderError),
}

/// A rule with what checks its authority, and the bucket that all of its identities share.
struct Entry {
    rule: ClientRule,
    verifier: Arc<dyn ClientCertVerifier>,
    bucket: Arc<Bucket>,
}

/// The client certificates that are let in.
pub struct Clients {
    entries: Vec<Entry>,
    /// Every authority: what a listener asks certificates of.
    authorities: Vec<CertificateDer<'static>>,
}

impl Clients {
    /// As `rules` say; those without a rate of their own may make `calls_per_second`.
    ///
    /// # Errors
    /// [`ClientsError`].
    pub fn load(rules: &[ClientRule], calls_per_second: u32) -> Result<Self, ClientsError> {
        let (mut entries, mut authorities) = (Vec::new(), Vec::new());
        for rule in rules {
            let certificates = read(&rule.ca_file)?;
            let mut roots = RootCertStore::empty();
            for certificate in &certificates {
                let added = roots.add(certificate.clone());
                added.map_err(|error| ClientsError::Authority(rule.ca_file.clone(), error))?;
            }
            authorities.extend(certificates);
            let roots = Arc::new(roots);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, tls::provider());
            let calls = rule.calls_per_second.unwrap_or(calls_per_second);
            entries.push(Entry {
                rule: rule.clone(),
                verifier: verifier.build()?,
                bucket: Arc::new(Bucket::per_second(calls)),
            });
        }
        Ok(Self {
            entries,
            authorities,
        })
    }

    /// The authorities whose certificates a listener asks for; none: it does not ask.
    pub fn authorities(&self) -> &[CertificateDer<'static>] {
        &self.authorities
    }

    /// Whose certificate `chain` is, leaf first, by the first rule that fits; `None` when none does.
    pub fn identify(&self, chain: &[CertificateDer<'_>], now: Timestamp) -> Option<Arc<Principal>> {
        let (leaf, others) = chain.split_first()?;
        let seconds = u64::try_from(now.as_unix_seconds()).ok()?;
        let at = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let (_, parsed) = X509Certificate::from_der(leaf).ok()?;
        let end = parsed.validity().not_after.timestamp();
        let fitting = self.entries.iter().find_map(|entry| {
            let identity = identity(&parsed, &entry.rule.identity)?;
            let verified = entry.verifier.verify_client_cert(leaf, others, at);
            verified.ok().map(|_| (entry, identity))
        });
        let (entry, identity) = fitting?;
        Some(Arc::new(Principal::of_client(
            &identity,
            &entry.rule,
            Timestamp::from_unix_seconds(end),
            Arc::clone(&entry.bucket),
        )))
    }
}

fn read(path: &std::path::Path) -> Result<Vec<CertificateDer<'static>>, ClientsError> {
    let text = fs::read_to_string(path);
    let text = text.map_err(|error| ClientsError::Unreadable(path.to_owned(), error))?;
    tls::certificates_from_pem(&text)
        .map_err(|error| ClientsError::NoCertificates(path.to_owned(), error))
}

/// The certificate's identity of the kind that `wanted` is, if it fits: its only SPIFFE ID (X.509-SVID
/// section 2), or its only common name.
fn identity(certificate: &X509Certificate<'_>, wanted: &ClientIdentity) -> Option<String> {
    let mut found = match wanted {
        ClientIdentity::Spiffe(_) => {
            let names = certificate.subject_alternative_name().ok()??;
            let names = names.value.general_names.iter();
            let uris = names.filter_map(|name| match name {
                GeneralName::URI(uri) => Some(*uri),
                _ => None,
            });
            uris.collect::<Vec<_>>()
        }
        ClientIdentity::CommonName(_) => {
            let names = certificate.subject().iter_common_name();
            names
                .map(|name| name.as_str().ok())
                .collect::<Option<_>>()?
        }
    };
    let only = found.pop().filter(|_| found.is_empty())?;
    let plain = only.len() <= MAX_IDENTITY
        && only
            .bytes()
            .all(|byte| byte.is_ascii_graphic() || byte == b' ');
    (plain && wanted.fits(only)).then(|| only.to_owned())
}

#[cfg(test)]
mod tests;
