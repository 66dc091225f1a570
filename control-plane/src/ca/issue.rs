//! Issuing what is presented in handshakes: client certificates of destinations, identities of
//! agents, the control plane's server certificate.

use std::{net::IpAddr, time::Duration};

use countersign_shared::{
    name::{AgentName, DestinationName},
    time::Timestamp,
};
use rcgen::SanType;
use rustls_pki_types::PrivateKeyDer;

use super::{
    CaError, SigningAuthority, SigningRequest,
    authority::new_serials,
    check,
    keys::{new_key, new_key_of},
    names::{ClientNames, MAX_COMMON_NAME, agent_uri},
    profile::{Contents, IDENTITY_LIFE, Profile, SERVER_LIFE, Validity, backdate},
};
use crate::{
    model::{AuthorityOwner, ClientCertificate, ClientCertificateState, KeyAlgorithm, TrustModel},
    store::CertificateStore,
    vault::{Record, ScopeKey},
};

/// A client certificate that is wanted.
#[derive(Debug, Clone, Copy)]
pub struct NewClient<'a> {
    /// Whom it is for.
    pub destination: &'a DestinationName,
    /// Its version: one that the destination does not have yet.
    pub version: u32,
    /// The names in it.
    pub names: &'a ClientNames,
    /// The kind of key in it.
    pub key_algorithm: KeyAlgorithm,
    /// How long it is valid from now on; it never outlives its authority. See
    /// [`CLIENT_LIFE`](super::CLIENT_LIFE).
    pub life: Duration,
    /// The state in which it starts.
    pub state: ClientCertificateState,
    /// Whether the authority's cross certificate, if it has one, is presented with it: receivers that
    /// trust only the generation before then accept it.
    pub with_cross: bool,
}

/// A new client certificate with a key of its own, signed by an account's authority (`DEDICATED`) or
/// the shared one (`SHARED`). `scope` is the account's. Neither certificate nor key is stored yet.
///
/// # Errors
/// [`CaError`]; [`CaError::WrongAuthority`] for an authority of another account, or of a kind that
/// signs no client certificates.
pub async fn issue_client(
    new: &NewClient<'_>,
    authority: &SigningAuthority,
    scope: &ScopeKey,
    store: &dyn CertificateStore,
    now: Timestamp,
) -> Result<ClientCertificate, CaError> {
    let signer = &authority.authority;
    let trust_model = trust_model(&signer.owner, new.destination)?;
    let validity = Validity::from_now(now, new.life).until(signer.not_after);
    if validity.not_after <= now {
        return Err(CaError::Profile("it would have ended already"));
    }
    let [serial] = new_serials::<1>(store, now).await?;
    let (key, secret) = new_key_of(new.key_algorithm).await?;
    let contents = Contents {
        profile: Profile::Client(new.key_algorithm),
        common_name: new.names.common_name.clone(),
        like: None,
        alternative_names: alternative_names(new.names)?,
        serial,
        validity,
    };
    let certificate = authority.sign(&contents, &key)?;
    let cross = signer.cross.clone().filter(|_| new.with_cross);
    Ok(ClientCertificate {
        version: new.version,
        state: new.state,
        trust_model,
        key_algorithm: new.key_algorithm,
        serial: serial.to_hex(),
        certificate,
        chain: Vec::from_iter(cross),
        issuer_generation: Some(signer.generation),
        sealed_key: scope.seal(&secret, &Record::ClientKey(new.destination, new.version))?,
        not_before: validity.not_before,
        not_after: validity.not_after,
        activated_at: None,
        confirmed_at: None,
        replaced_at: None,
        revoked_at: None,
    })
}

/// As which trust model `owner` signs for a destination.
fn trust_model(
    owner: &AuthorityOwner,
    destination: &DestinationName,
) -> Result<TrustModel, CaError> {
    match owner {
        AuthorityOwner::Account(account) if *account == destination.account_name() => {
            Ok(TrustModel::Dedicated)
        }
        AuthorityOwner::Shared => Ok(TrustModel::Shared),
        other => Err(CaError::WrongAuthority(other.clone(), destination.clone())),
    }
}

/// The names as they stand in a certificate.
pub(super) fn alternative_names(names: &ClientNames) -> Result<Vec<SanType>, CaError> {
    let mut all = Vec::with_capacity(2);
    if let Some(dns) = &names.dns {
        all.push(SanType::DnsName(dns.as_str().try_into()?));
    }
    all.push(SanType::URI(names.uri.as_str().try_into()?));
    Ok(all)
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
    let contents = Contents {
        // What `parse_request` takes.
        profile: Profile::Client(KeyAlgorithm::EcdsaP256),
        common_name: agent.id().to_string(),
        like: None,
        alternative_names: vec![uri],
        serial,
        validity,
    };
    let signed = authority.sign(&contents, &request.public_key)?;
    Ok((signed, validity.not_after))
}

/// When an identity certificate was made, to the second; `None` for what is no certificate.
pub fn identity_issued_at(der: &[u8]) -> Option<Timestamp> {
    let not_before = check::parse(der)?.validity().not_before.timestamp();
    Some(Timestamp::from_unix_seconds(not_before).plus(backdate(IDENTITY_LIFE)))
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
    let mut alternative_names = Vec::with_capacity(names.len());
    for name in names {
        alternative_names.push(match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(name.as_str().try_into()?),
        });
    }
    // Clients look at the alternative names; a longer name does not fit here (RFC 5280 appendix A.1).
    let mut fitting = names.iter().filter(|name| name.len() <= MAX_COMMON_NAME);
    let common_name = fitting.next().map_or("countersign", String::as_str);
    let contents = Contents {
        profile: Profile::Server,
        common_name: common_name.to_owned(),
        like: None,
        alternative_names,
        serial,
        validity,
    };
    let signed = authority.sign(&contents, &key)?;
    Ok((
        signed,
        PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        validity.not_after,
    ))
}
