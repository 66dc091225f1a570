//! A certificate authority for tests.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};

use countersign_shared::secret::SecretBytes;
use rustls_pki_types::CertificateDer;

use super::agent_identity::{Identity, Parts};

pub(crate) type Ca = CertifiedIssuer<'static, KeyPair>;

pub(crate) fn ca(name: &str) -> Ca {
    let mut parameters = CertificateParams::new(Vec::new()).unwrap();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap()
}

pub(crate) fn leaf_parameters(name: &str, usage: ExtendedKeyUsagePurpose) -> CertificateParams {
    let mut parameters = CertificateParams::new(Vec::new()).unwrap();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.extended_key_usages = vec![usage];
    parameters
}

/// A client certificate for `public`, as the control plane would sign it.
pub(crate) fn client_leaf(
    ca: &Ca,
    name: &str,
    public: &impl rcgen::PublicKeyData,
) -> CertificateDer<'static> {
    let parameters = leaf_parameters(name, ExtendedKeyUsagePurpose::ClientAuth);
    parameters.signed_by(public, ca).unwrap().der().clone()
}

pub(crate) fn identity(ca: &Ca, url: &str) -> Identity {
    let key = KeyPair::generate().unwrap();
    Identity::new(Parts {
        control_plane: url.parse().unwrap(),
        ca: ca.der().clone(),
        agent: "agents/edge".parse().unwrap(),
        region: "eu".to_owned(),
        chain: vec![client_leaf(ca, "edge", &key)],
        private_key: SecretBytes::from(key.serialize_der()),
    })
    .unwrap()
}
