//! Certificate authorities and certificates of receivers and of the benchmark's bare client, made
//! anew with every run and kept in memory only.

use std::{fmt, net::Ipv4Addr, time::Duration};

use countersign_shared::{random, secret::SecretText, time::Timestamp};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

/// Receivers' clocks differ: certificates begin this much earlier, or a tenth of their life.
const BACKDATED: Duration = Duration::from_secs(600);
const LIFE: Duration = Duration::from_secs(30 * 24 * 3600);
const AUTHORITY_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);

/// A server's certificate and key, and what its clients trust.
pub(crate) struct ServerIdentity {
    /// The authority in PEM: `server_ca_pem` of a destination.
    pub(crate) ca_pem: String,
    /// The server's certificate.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// Its private key.
    pub(crate) key: PrivateKeyDer<'static>,
}

/// The key is secret.
impl fmt::Debug for ServerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerIdentity").finish_non_exhaustive()
    }
}

/// Makes an authority and a certificate for `127.0.0.1` and `localhost`, good for 30 days.
///
/// # Errors
/// When the crypto library makes no key or signature.
pub(crate) fn server_for_loopback(now: Timestamp) -> Result<ServerIdentity, rcgen::Error> {
    ReceiverAuthority::new(now)?.server_for_loopback(LIFE, now)
}

/// The certificate authority of a receiver: of its server, and of client certificates that it wants to
/// sign itself.
pub(crate) struct ReceiverAuthority {
    certificate: Certificate,
    parameters: CertificateParams,
    key: KeyPair,
}

/// The key is secret.
impl fmt::Debug for ReceiverAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiverAuthority").finish_non_exhaustive()
    }
}

impl ReceiverAuthority {
    /// A new one, good for a year.
    ///
    /// # Errors
    /// When the crypto library makes no key or signature.
    pub(crate) fn new(now: Timestamp) -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate()?;
        let parameters = authority("Demonstration Receiver CA", now);
        Ok(Self {
            certificate: parameters.self_signed(&key)?,
            parameters,
            key,
        })
    }

    /// What those trust whom it vouches to.
    pub(crate) fn anchor(&self) -> CertificateDer<'static> {
        self.certificate.der().clone()
    }

    /// Its own certificate in PEM.
    pub(crate) fn anchor_pem(&self) -> String {
        self.certificate.pem()
    }

    /// A server's certificate for `127.0.0.1` and `localhost`, good for `life`.
    ///
    /// # Errors
    /// When the crypto library makes no key or signature.
    pub(crate) fn server_for_loopback(
        &self,
        life: Duration,
        now: Timestamp,
    ) -> Result<ServerIdentity, rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut parameters = named("Demonstration Receiver", life, now);
        parameters.subject_alt_names = vec![
            SanType::IpAddress(Ipv4Addr::LOCALHOST.into()),
            SanType::DnsName("localhost".try_into()?),
        ];
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        parameters.use_authority_key_identifier_extension = true;
        let issuer = Issuer::from_params(&self.parameters, &self.key);
        let certificate = parameters.signed_by(&key, &issuer)?;
        Ok(ServerIdentity {
            ca_pem: self.anchor_pem(),
            chain: vec![certificate.der().clone()],
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        })
    }

    /// The client certificate, in PEM, that a PKCS#10 request (RFC 2986) in PEM asks for, good for
    /// `life`.
    ///
    /// # Errors
    /// When it is no request.
    pub(crate) fn sign_client(
        &self,
        request_pem: &str,
        life: Duration,
        now: Timestamp,
    ) -> Result<String, rcgen::Error> {
        let mut request = CertificateSigningRequestParams::from_pem(request_pem)?;
        let mut parameters = named("", life, now);
        parameters.distinguished_name = request.params.distinguished_name;
        parameters.subject_alt_names = request.params.subject_alt_names;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        parameters.use_authority_key_identifier_extension = true;
        request.params = parameters;
        let issuer = Issuer::from_params(&self.parameters, &self.key);
        Ok(request.signed_by(&issuer)?.pem())
    }
}

/// An authority that issues and keeps nothing: what a benchmark compares with.
pub(crate) struct BareAuthority {
    issuer: Issuer<'static, KeyPair>,
    now: Timestamp,
}

/// The key is secret.
impl fmt::Debug for BareAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BareAuthority").finish_non_exhaustive()
    }
}

impl BareAuthority {
    /// Makes its key.
    ///
    /// # Errors
    /// When the crypto library makes no key.
    pub(crate) fn new(now: Timestamp) -> Result<Self, rcgen::Error> {
        let parameters = authority("Benchmark CA", now);
        Ok(Self {
            issuer: Issuer::new(parameters, KeyPair::generate()?),
            now,
        })
    }

    /// A fresh P-256 key and a certificate for it.
    ///
    /// # Errors
    /// When the crypto library makes no key or signature.
    pub(crate) fn issue(&self) -> Result<Certificate, rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut parameters = named("countersign-delivery.bench", LIFE, self.now);
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        parameters.use_authority_key_identifier_extension = true;
        parameters.signed_by(&key, &self.issuer)
    }
}

fn authority(name: &str, now: Timestamp) -> CertificateParams {
    let mut parameters = named(name, AUTHORITY_LIFE, now);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters
}

fn named(name: &str, life: Duration, now: Timestamp) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.serial_number = Some(serial());
    if let (Some(from), Some(to)) = (
        now.minus(BACKDATED.min(life / 10)).to_date_time(),
        now.plus(life).to_date_time(),
    ) {
        parameters.not_before = from;
        parameters.not_after = to;
    }
    parameters
}

/// 127 random bits, positive (RFC 5280 section 4.1.2.2).
fn serial() -> SerialNumber {
    let mut bytes = random::bytes::<16>();
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes)
}

/// A client's certificate and key, and what its servers trust.
pub(crate) struct ClientIdentity {
    /// The authority in PEM.
    pub(crate) ca_pem: String,
    /// The certificate and its private key, in PEM.
    pub(crate) pem: SecretText,
}

/// The key is secret.
impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientIdentity").finish_non_exhaustive()
    }
}

/// Makes an authority of its own and a client certificate, good for 30 days.
///
/// # Errors
/// When the crypto library makes no key or signature.
pub(crate) fn client(now: Timestamp) -> Result<ClientIdentity, rcgen::Error> {
    let name = "Demonstration Client";
    let (ca, certificate, key) = signed_client(name, "spiffe://demonstration/client", now)?;
    let key = Zeroizing::new(key.serialize_pem());
    Ok(ClientIdentity {
        ca_pem: ca.pem(),
        pem: SecretText::from(format!("{}{}", certificate.pem(), *key)),
    })
}

/// An authority, and a client certificate of it with `uri` in its names.
fn signed_client(
    common_name: &str,
    uri: &str,
    now: Timestamp,
) -> Result<(Certificate, Certificate, KeyPair), rcgen::Error> {
    let ca_key = KeyPair::generate()?;
    let ca_parameters = authority("Demonstration Client CA", now);
    let ca = ca_parameters.self_signed(&ca_key)?;
    let key = KeyPair::generate()?;
    let mut parameters = named(common_name, LIFE, now);
    parameters.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = parameters.signed_by(&key, &Issuer::from_params(&ca_parameters, &ca_key))?;
    Ok((ca, certificate, key))
}

/// Client certificates for tests.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// A client's certificate, its key, and the anchor that it chains to.
    pub(crate) struct Client {
        pub(crate) anchor: CertificateDer<'static>,
        pub(crate) chain: Vec<CertificateDer<'static>>,
        pub(crate) key: PrivateKeyDer<'static>,
    }

    /// An authority of its own and a client certificate with `uri` in its names.
    pub(crate) fn client(common_name: &str, uri: &str, now: Timestamp) -> Client {
        let (ca, certificate, key) = signed_client(common_name, uri, now).unwrap();
        Client {
            anchor: ca.der().clone(),
            chain: vec![certificate.der().clone()],
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_certificate_is_of_the_authority_and_for_a_month() {
        let now = Timestamp::from_unix_seconds(1_700_000_000);
        let identity = server_for_loopback(now).unwrap();
        let ca = countersign_shared::tls::certificates_from_pem(&identity.ca_pem).unwrap();
        let ca = countersign_shared::tls::certificate_facts(&ca[0]).unwrap();
        let leaf = countersign_shared::tls::certificate_facts(&identity.chain[0]).unwrap();
        assert_eq!(leaf.issuer, ca.subject);
        assert_eq!(leaf.not_before, now.minus(BACKDATED));
        assert_eq!(leaf.not_after, now.plus(LIFE));
        assert_eq!(leaf.serial.len(), 32);
    }

    #[test]
    fn a_request_gets_the_life_that_the_authority_gives_it_and_its_own_name() {
        let now = Timestamp::from_unix_seconds(1_700_000_000);
        let authority = ReceiverAuthority::new(now).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut asked = CertificateParams::default();
        asked.distinguished_name = named("countersign-delivery.demo", LIFE, now).distinguished_name;
        let request = asked.serialize_request(&key).unwrap().pem().unwrap();
        let life = Duration::from_secs(30);
        let pem = authority.sign_client(&request, life, now).unwrap();
        let signed = countersign_shared::tls::certificates_from_pem(&pem).unwrap();
        let signed = countersign_shared::tls::certificate_facts(&signed[0]).unwrap();
        assert_eq!(signed.subject, "CN=countersign-delivery.demo");
        assert_eq!(signed.not_after, now.plus(life));
        assert_eq!(signed.not_before, now.minus(life / 10));
        assert!(authority.sign_client("no request", life, now).is_err());
    }
}
