//! Certificate authorities and leaves, valid as the test wants them.

use countersign_shared::tls;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SanType, SerialNumber, date_time_ymd,
};
use rustls_pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, PrivatePkcs8KeyDer,
};

/// A certificate authority.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A leaf with its key.
pub(crate) struct Leaf {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) key: Vec<u8>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(parameters, key).unwrap())
    }

    /// An authority whose certificate this one signs.
    pub(crate) fn subordinate(&self, name: &str) -> Self {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::signed_by(parameters, key, &self.0).unwrap())
    }

    pub(crate) fn der(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    pub(crate) fn pin(&self) -> [u8; 32] {
        let facts = tls::certificate_facts(self.0.der()).unwrap();
        facts.public_key_sha256
    }

    pub(crate) fn client(&self) -> Leaf {
        self.issue(client_parameters())
    }

    /// Its validity ended at the end of 2022.
    pub(crate) fn expired_client(&self) -> Leaf {
        let mut parameters = client_parameters();
        parameters.not_before = date_time_ymd(2022, 1, 1);
        parameters.not_after = date_time_ymd(2022, 12, 31);
        self.issue(parameters)
    }

    /// For `localhost` and 127.0.0.1.
    pub(crate) fn server(&self) -> Leaf {
        self.issue(server_parameters(&[
            SanType::DnsName("localhost".try_into().unwrap()),
            SanType::IpAddress("127.0.0.1".parse().unwrap()),
        ]))
    }

    pub(crate) fn server_for(&self, name: &str) -> Leaf {
        let names = [SanType::DnsName(name.to_owned().try_into().unwrap())];
        self.issue(server_parameters(&names))
    }

    pub(crate) fn expired_server(&self) -> Leaf {
        let names = [SanType::IpAddress("127.0.0.1".parse().unwrap())];
        let mut parameters = server_parameters(&names);
        parameters.not_before = date_time_ymd(2022, 1, 1);
        parameters.not_after = date_time_ymd(2022, 12, 31);
        self.issue(parameters)
    }

    /// A client certificate for somebody else's public key.
    pub(crate) fn sign(&self, public: &impl rcgen::PublicKeyData) -> CertificateDer<'static> {
        let signed = client_parameters().signed_by(public, &self.0);
        signed.unwrap().der().clone()
    }

    fn issue(&self, parameters: CertificateParams) -> Leaf {
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.signed_by(&key, &self.0).unwrap();
        Leaf {
            certificate: certificate.der().clone(),
            key: key.serialize_der(),
        }
    }

    /// A list that revokes `leaf`.
    pub(crate) fn revocation_list(&self, leaf: &Leaf) -> CertificateRevocationListDer<'static> {
        let (_, parsed) = x509_parser::parse_x509_certificate(&leaf.certificate).unwrap();
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from_slice(parsed.raw_serial()),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2999, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.0).unwrap().der().clone()
    }
}

impl Leaf {
    /// Its serial number in lower-case hexadecimal.
    pub(crate) fn serial(&self) -> String {
        tls::certificate_facts(&self.certificate).unwrap().serial
    }

    pub(crate) fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.clone()).into()
    }
}

fn client_parameters() -> CertificateParams {
    let mut parameters = CertificateParams::new(Vec::new()).unwrap();
    let name = &mut parameters.distinguished_name;
    name.push(DnType::CommonName, "countersign-delivery.acme");
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    parameters
}

fn server_parameters(names: &[SanType]) -> CertificateParams {
    let mut parameters = CertificateParams::new(Vec::new()).unwrap();
    let name = &mut parameters.distinguished_name;
    name.push(DnType::CommonName, "receiver");
    parameters.subject_alt_names = names.to_vec();
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    parameters
}
