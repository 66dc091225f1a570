//! Certificates as a test wants them, which the control plane would never sign: ended, not yet valid,
//! of another account, in another's name.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SanType, SerialNumber, date_time_ymd,
};
use rustls_pki_types::CertificateDer;

/// A certificate authority.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    parameters: CertificateParams,
}

/// A certificate with its key and what goes between it and its trust anchor.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// Leaf first, in DER.
    pub chain: Vec<CertificateDer<'static>>,
    /// PKCS#8 in DER.
    pub key: Vec<u8>,
    pem: String,
    key_pem: String,
    serial: SerialNumber,
}

/// First and last year of a certificate's validity.
pub type Years = (i32, i32);

/// Valid for as long as anybody runs this test.
pub const NOW: Years = (2022, 2190);

impl Authority {
    /// A self-signed one.
    ///
    /// # Panics
    /// When it can't be made.
    pub fn new(name: &str) -> Self {
        let mut parameters = parameters(name, NOW);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(parameters.clone(), key);
        Self {
            issuer: issuer.expect("a certificate"),
            parameters,
        }
    }

    /// The self-signed certificate.
    pub fn der(&self) -> CertificateDer<'static> {
        self.issuer.der().clone()
    }

    /// The self-signed certificate, in PEM.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A client certificate.
    pub fn client(&self, common_name: &str, uri: &str, years: Years) -> Leaf {
        let mut parameters = parameters(common_name, years);
        let uri = uri.try_into().expect("a URI is ASCII");
        parameters.subject_alt_names = vec![SanType::URI(uri)];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(parameters)
    }

    /// A server certificate for the DNS name `localhost`.
    pub fn server(&self, years: Years) -> Leaf {
        let mut parameters = parameters("localhost", years);
        let name = "localhost".try_into().expect("a name is ASCII");
        parameters.subject_alt_names = vec![SanType::DnsName(name)];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(parameters)
    }

    fn issue(&self, mut parameters: CertificateParams) -> Leaf {
        let key = KeyPair::generate().expect("a key");
        let serial = SerialNumber::from(countersign_shared::random::bytes::<15>().to_vec());
        parameters.serial_number = Some(serial.clone());
        parameters.is_ca = IsCa::ExplicitNoCa;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.use_authority_key_identifier_extension = true;
        let certificate = parameters.signed_by(&key, &self.issuer);
        let certificate = certificate.expect("a certificate");
        Leaf {
            chain: vec![certificate.der().clone()],
            key: key.serialize_der(),
            pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            serial,
        }
    }

    /// This authority's key and subject in a certificate that `older` signed, for receivers that
    /// know `older` only.
    ///
    /// # Panics
    /// When it can't be made.
    pub fn cross_signed_by(&self, older: &Self) -> CertificateDer<'static> {
        let mut parameters = self.parameters.clone();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.use_authority_key_identifier_extension = true;
        let signed = parameters.signed_by(self.issuer.key(), &older.issuer);
        signed.expect("a certificate").der().clone()
    }

    /// A revocation list, in PEM, with `revoked` on it and no update to come after `until`.
    ///
    /// # Panics
    /// When it can't be made.
    pub fn revocation_list(&self, revoked: &[&Leaf], until: i32) -> String {
        let entry = |leaf: &&Leaf| RevokedCertParams {
            serial_number: leaf.serial.clone(),
            revocation_time: date_time_ymd(2023, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2023, 1, 1),
            next_update: date_time_ymd(until, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let signed = list.signed_by(&self.issuer).expect("a revocation list");
        signed.pem().expect("PEM")
    }
}

impl Leaf {
    /// The certificate in PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The key in PEM.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }
}

fn parameters(common_name: &str, (first, last): Years) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    let name = &mut parameters.distinguished_name;
    name.push(DnType::CommonName, common_name);
    parameters.not_before = date_time_ymd(first, 1, 1);
    parameters.not_after = date_time_ymd(last, 12, 31);
    parameters
}
