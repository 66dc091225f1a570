//! Bundles: what an agent must know of a destination, put together and opened only when it is sent.

use std::sync::Arc;

use countersign_proto::v1;
use countersign_shared::{
    bundle::{Bundle, Credential, parse_destination_url},
    digest::sha256,
    name::{DestinationName, Id},
    secret::SecretBytes,
    signature::SigningKeys,
    tls, wire,
};
use prost::Message as _;
use rustls_pki_types::CertificateDer;
use thiserror::Error;

use crate::{
    model::{ClientCertificate, SignatureSchemes},
    store::{BundleSource, Store, StoreError},
    vault::{Record, Vault, VaultError},
};

/// Why a bundle can't be put together.
#[derive(Debug, Error)]
pub enum BundleError {
    /// The store did not do its part.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A key does not open.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// What is stored was checked when it came in, and is not what it was.
    #[error("{0}: stored {1} is not usable")]
    Stored(DestinationName, &'static str),
}

/// A bundle, ready to be sent, and whom it is for.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// Agents of this region; `None`: any agent.
    pub region: Option<Id>,
    /// The bundle in its wire form, content hash included.
    pub bundle: v1::Bundle,
}

/// Puts bundles together.
#[derive(Clone)]
pub struct Bundles {
    /// The truth.
    pub store: Arc<dyn Store>,
    /// Opens keys and secrets.
    pub vault: Arc<Vault>,
}

impl Bundles {
    /// The newest bundle of a destination.
    ///
    /// # Errors
    /// [`BundleError`]; [`StoreError::NotFound`] through it when the destination is gone.
    pub async fn current(&self, name: &DestinationName) -> Result<Prepared, BundleError> {
        let source = self.store.bundle_source(name).await?;
        let scope = name.account_text();
        let scope = self.vault.scope(self.store.as_ref(), scope).await?;
        let open = |certificate: &ClientCertificate| -> Result<Credential, VaultError> {
            let record = Record::ClientKey(name, certificate.version);
            Ok(credential(
                certificate,
                scope.open(&certificate.sealed_key, &record)?,
            ))
        };
        let active = open(&source.active)?;
        let candidate = source.candidate.as_ref().map(open).transpose()?;
        let fallback = source.fallback.as_ref().map(open).transpose()?;
        let mut keys = Vec::with_capacity(source.secrets.len());
        for secret in &source.secrets {
            let record = Record::SigningSecret(name, secret.version);
            let raw = scope.open(&secret.sealed, &record)?;
            let stored = || BundleError::Stored(name.clone(), "signing_secrets");
            keys.push(SigningKeys::from_bytes(&raw).ok_or_else(stored)?);
        }
        let region = source.destination.config.region.clone();
        let mut bundle = assemble(source, active, keys)?;
        (bundle.candidate, bundle.fallback) = (candidate, fallback);
        Ok(Prepared {
            region,
            bundle: with_content_hash(wire::bundle_to_wire(&bundle)),
        })
    }
}

fn credential(certificate: &ClientCertificate, private_key: SecretBytes) -> Credential {
    let leaf = std::iter::once(&certificate.certificate);
    let presented = leaf.chain(&certificate.chain).cloned();
    Credential {
        version: certificate.version,
        chain: presented.map(CertificateDer::from).collect(),
        private_key,
    }
}

fn assemble(
    source: BundleSource,
    active: Credential,
    keys: Vec<SigningKeys>,
) -> Result<Bundle, BundleError> {
    let BundleSource { destination, .. } = source;
    let config = &destination.config;
    let stored = |what| BundleError::Stored(destination.name.clone(), what);
    let server_cas = match config.server_ca_pem.as_str() {
        "" => Vec::new(),
        pem => tls::certificates_from_pem(pem).map_err(|_| stored("server_ca_pem"))?,
    };
    let (secrets, seeds) = keys
        .into_iter()
        .map(|keys| (keys.secret, keys.seed))
        .unzip();
    let (signing_secrets, signing_seeds) = match config.signatures {
        SignatureSchemes::V1 => (secrets, Vec::new()),
        SignatureSchemes::V1a => (Vec::new(), seeds),
        SignatureSchemes::Both => (secrets, seeds),
    };
    Ok(Bundle {
        url: parse_destination_url(&config.url).map_err(|_| stored("url"))?,
        destination: destination.name.clone(),
        generation: destination.generation,
        // Filled in over the wire form.
        content_sha256: [0; 32],
        active,
        candidate: None,
        fallback: None,
        server_cas,
        minimum_tls: config.minimum_tls,
        mtls_enforcement: config.mtls_enforcement,
        signing_secrets,
        signing_seeds,
        attempt_timeout: config.attempt_timeout,
        concurrency_limit: config.concurrency_limit,
        allowed_ranges: config.allowed_ranges.clone(),
        receipts: config.delivery_receipts,
    })
}

fn with_content_hash(mut bundle: v1::Bundle) -> v1::Bundle {
    bundle.content_sha256 = Vec::new().into();
    let encoded = zeroize::Zeroizing::new(bundle.encode_to_vec());
    bundle.content_sha256 = sha256(&encoded).to_vec().into();
    bundle
}
