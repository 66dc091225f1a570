//! A client certificate made ready: checked against its key, with all that is said of it computed
//! once, and with the client that presents it.

use std::{fmt, sync::Arc};

use countersign_shared::{
    bundle::{Bundle, Credential},
    outcome::PresentedCertificate,
    time::Timestamp,
    tls::{self, certificate_facts},
};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::{
    client::Client,
    clients::Clients,
    distinguished_name::issuer,
    facts::Validity,
    prepare_error::{CredentialError, PrepareError},
};

/// A client certificate with its key, as TLS wants them.
#[derive(Clone)]
pub(super) struct Certified {
    /// Chain and key.
    pub(super) key: Arc<CertifiedKey>,
    /// Version and serial number.
    pub(super) presented: PresentedCertificate,
    /// Names of the authorities in the chain, in DER.
    pub(super) issuers: Vec<Vec<u8>>,
    /// Start of validity.
    not_before: Timestamp,
    /// End of validity.
    not_after: Timestamp,
}

impl Certified {
    /// Checks `credential`.
    ///
    /// # Errors
    /// [`CredentialError`].
    pub(super) fn new(credential: &Credential) -> Result<Self, CredentialError> {
        let leaf = credential.chain.first();
        let facts = leaf
            .and_then(|leaf| certificate_facts(leaf))
            .ok_or(CredentialError::NotACertificate)?;
        let key = PrivatePkcs8KeyDer::from(credential.private_key.expose());
        let signing = tls::provider()
            .key_provider
            .load_private_key(PrivateKeyDer::Pkcs8(key).clone_key())
            .map_err(|_| CredentialError::Key)?;
        let key = CertifiedKey::new(credential.chain.clone(), signing);
        key.keys_match().map_err(|_| CredentialError::OtherKey)?;
        Ok(Self {
            key: Arc::new(key),
            presented: PresentedCertificate {
                version: credential.version,
                serial: facts.serial,
            },
            issuers: credential
                .chain
                .iter()
                .filter_map(|it| issuer(it))
                .collect(),
            not_before: facts.not_before,
            not_after: facts.not_after,
        })
    }
}

/// A client certificate of a bundle, ready to be presented.
pub(super) struct Ready {
    pub(super) version: u32,
    not_before: Timestamp,
    not_after: Timestamp,
    pub(super) client: Arc<Client>,
}

/// Whether a certificate can be presented, as far as the agent knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Usability {
    /// It can: it is within its validity, or not yet (the receiver's clock decides).
    Usable,
    /// Its validity is over.
    Expired,
    /// The control plane has revoked it.
    Revoked,
}

impl Ready {
    /// Makes `credential` of `bundle` ready; `named` says which of the bundle's it is.
    ///
    /// # Errors
    /// [`PrepareError`].
    pub(super) fn new(
        bundle: &Bundle,
        credential: &Credential,
        clients: &Clients,
        named: fn(CredentialError) -> PrepareError,
    ) -> Result<Self, PrepareError> {
        let certified = Certified::new(credential).map_err(named)?;
        Ok(Self {
            version: certified.presented.version,
            not_before: certified.not_before,
            not_after: certified.not_after,
            client: clients.get(bundle, certified)?,
        })
    }

    /// Where `now` lies in its validity.
    pub(super) fn validity(&self, now: Timestamp) -> Validity {
        Validity::at(now, self.not_before, self.not_after)
    }

    /// Whether it can be presented at `now`.
    pub(super) fn usability(&self, now: Timestamp) -> Usability {
        if self.client.http.standing().is_revoked() {
            Usability::Revoked
        } else if self.validity(now) == Validity::Over {
            Usability::Expired
        } else {
            Usability::Usable
        }
    }
}

impl fmt::Debug for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.version)
    }
}
