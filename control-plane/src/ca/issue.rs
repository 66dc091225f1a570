//! Issuing what is presented in handshakes: client certificates of destinations, identities of
//! agents, the control plane's server certificate.

use std::net::IpAddr;

use countersign_shared::{
    name::{AgentName, DestinationName},
    secret::SecretBytes,
    time::Timestamp,
};
use rcgen::SanType;
use rustls_pki_types::PrivateKeyDer;

use super::{
    CaError, SigningAuthority, SigningRequest,
    authority::{new_key, new_serials},
    profile::{
        CLIENT_LIFE, ClientNames, IDENTITY_LIFE, MAX_COMMON_NAME, Profile, SERVER_LIFE, Validity,
        agent_uri,
    },
};
use crate::{
    model::{ClientCertificate, ClientCertificateState, KeyAlgorithm, Serial, TrustModel},
    store::CertificateStore,
    vault::{Record, ScopeKey},
};

/// A client certificate whose key is still to be sealed.
#[derive(Debug)]
pub struct IssuedClientCertificate {
    serial: Serial,
    certificate: Vec<u8>,
    key: SecretBytes,
    issuer_generation: u32,
    validity: Validity,
}

/// A client certificate for a destination, signed by its account's authority.
///
/// # Errors
/// [`CaError`].
pub async fn issue_client(
    names: &ClientNames,
    authority: &SigningAuthority,
    store: &dyn CertificateStore,
    now: Timestamp,
) -> Result<IssuedClientCertificate, CaError> {
    let [serial] = new_serials::<1>(store, now).await?;
    let (key, secret) = new_key()?;
    let validity = Validity::from_now(now, CLIENT_LIFE).until(authority.authority.not_after);
    let uri = SanType::URI(names.uri.as_str().try_into()?);
    let params = Profile::Client.params(&names.common_name, vec![uri], serial, validity)?;
    Ok(IssuedClientCertificate {
        serial,
        certificate: authority.sign(Profile::Client, &params, serial, validity, &key)?,
        key: secret,
        issuer_generation: authority.authority.generation,
        validity,
    })
}

impl IssuedClientCertificate {
    /// Seals the key: this is what the store gets.
    ///
    /// # Errors
    /// [`CaError`].
    pub fn seal(
        self,
        destination: &DestinationName,
        version: u32,
        scope: &ScopeKey,
    ) -> Result<ClientCertificate, CaError> {
        Ok(ClientCertificate {
            version,
            state: ClientCertificateState::Active,
            trust_model: TrustModel::Dedicated,
            key_algorithm: KeyAlgorithm::EcdsaP256,
            serial: self.serial.to_hex(),
            sealed_key: scope.seal(&self.key, &Record::ClientKey(destination, version))?,
            certificate: self.certificate,
            chain: Vec::new(),
            issuer_generation: Some(self.issuer_generation),
            not_before: self.validity.not_before,
            not_after: self.validity.not_after,
            activated_at: None,
            confirmed_at: None,
            replaced_at: None,
            revoked_at: None,
        })
    }
}

/// An identity certificate for an agent: the certificate in DER, and its end of validity.
///
/// # Errors
/// [`CaError`].
pub async fn issue_agent_identity(
    agent: &AgentName,
    trust_domain: &str,
    request: &SigningRequest,
    authority: &SigningAuthority,
    store: &dyn CertificateStore,
    now: Timestamp,
) -> Result<(Vec<u8>, Timestamp), CaError> {
    let [serial] = new_serials::<1>(store, now).await?;
    let validity = Validity::from_now(now, IDENTITY_LIFE).until(authority.authority.not_after);
    let uri = SanType::URI(agent_uri(trust_domain, agent).as_str().try_into()?);
    let name = agent.id().as_str();
    let params = Profile::Client.params(name, vec![uri], serial, validity)?;
    let signed = authority.sign(
        Profile::Client,
        &params,
        serial,
        validity,
        &request.public_key,
    )?;
    Ok((signed, validity.not_after))
}

/// A server certificate for the control plane: the certificate in DER, its key, its end of validity.
///
/// # Errors
/// [`CaError`].
pub async fn issue_server(
    names: &[String],
    authority: &SigningAuthority,
    store: &dyn CertificateStore,
    now: Timestamp,
) -> Result<(Vec<u8>, PrivateKeyDer<'static>, Timestamp), CaError> {
    let [serial] = new_serials::<1>(store, now).await?;
    let (key, _) = new_key()?;
    let validity = Validity::from_now(now, SERVER_LIFE).until(authority.authority.not_after);
    let mut alternatives = Vec::with_capacity(names.len());
    for name in names {
        alternatives.push(match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(name.as_str().try_into()?),
        });
    }
    // Clients look at the alternative names; a longer name does not fit here (RFC 5280 appendix A.1).
    let mut fitting = names.iter().filter(|name| name.len() <= MAX_COMMON_NAME);
    let common_name = fitting.next().map_or("countersign", String::as_str);
    let params = Profile::Server.params(common_name, alternatives, serial, validity)?;
    let signed = authority.sign(Profile::Server, &params, serial, validity, &key)?;
    Ok((
        signed,
        PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        validity.not_after,
    ))
}
