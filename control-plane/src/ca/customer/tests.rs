//! Uploads, good and bad, from a receiver's CA.

use std::time::Duration;

use countersign_shared::tls::MAX_PEM_LENGTH;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, KeyPair,
    PublicKey, date_time_ymd,
};

use super::*;
use crate::ca::testing::{NOW, World, names, orders};
use crate::model::TrustModel;

type Ca = CertifiedIssuer<'static, KeyPair>;

/// A receiver's CA: a root and an intermediate under it.
fn receiver() -> (Ca, Ca) {
    let root = Ca::self_signed(ca("Receiver Root"), KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let intermediate = Ca::signed_by(ca("Receiver Issuing CA"), key, &root).unwrap();
    (root, intermediate)
}

fn ca(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished_name(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

struct Upload {
    held: NewRequest,
    key: PublicKey,
    /// What the receiver's CA makes of the request.
    params: CertificateParams,
    root: Ca,
    intermediate: Ca,
}

impl Upload {
    async fn new(key_algorithm: KeyAlgorithm) -> Self {
        let world = World::new().await;
        let (orders, names) = (orders(), names(TrustModel::Customer));
        let held = new_request(&orders, 2, &names, key_algorithm, &world.scope);
        let held = held.await.unwrap();
        let record = Record::ClientKey(&orders, 2);
        assert!(world.scope.open(&held.sealed_key, &record).is_ok());
        let der = held.der.as_slice().into();
        let request = CertificateSigningRequestParams::from_der(&der).unwrap();
        let (root, intermediate) = receiver();
        let mut params = request.params;
        assert_eq!(
            params.distinguished_name,
            distinguished_name("countersign-delivery.acme")
        );
        assert_eq!(params.subject_alt_names, alternative_names(&names).unwrap());
        assert_eq!(
            params.extended_key_usages,
            [ExtendedKeyUsagePurpose::ClientAuth]
        );
        params.not_before = date_time_ymd(2023, 11, 1);
        params.not_after = date_time_ymd(2024, 11, 1);
        Self {
            held,
            key: request.public_key,
            params,
            root,
            intermediate,
        }
    }

    fn leaf(&self) -> String {
        let leaf = self
            .params
            .signed_by(&self.key, &self.intermediate)
            .unwrap();
        leaf.pem()
    }

    fn check(&self, pem: &str) -> Result<Uploaded, UploadError> {
        check_upload(pem, &[[9; 32], self.held.public_key_sha256], NOW)
    }

    fn refused(&self) -> UploadError {
        self.check(&self.leaf()).unwrap_err()
    }
}

#[tokio::test]
async fn what_the_receivers_ca_signed_is_taken_with_its_chain_but_for_the_root() {
    use KeyAlgorithm::{EcdsaP256, EcdsaP384, Rsa2048};
    for algorithm in [EcdsaP256, EcdsaP384, Rsa2048] {
        let upload = Upload::new(algorithm).await;
        let leaf = upload.leaf();
        let alone = upload.check(&leaf).unwrap();
        assert_eq!(alone.public_key_sha256, upload.held.public_key_sha256);
        assert_eq!(
            (alone.chain.len(), alone.not_after.to_string().as_str()),
            (0, "2024-11-01T00:00:00Z")
        );
        let whole = leaf + &upload.intermediate.pem() + &upload.root.pem();
        let whole = upload.check(&whole).unwrap();
        assert_eq!(whole.certificate, alone.certificate);
        assert_eq!(whole.chain, [upload.intermediate.der().to_vec()]);
    }
}

#[tokio::test]
async fn what_is_not_for_a_held_key_is_refused_and_names_both() {
    let upload = Upload::new(KeyAlgorithm::EcdsaP256).await;
    let leaf = upload.leaf();
    let other = check_upload(&leaf, &[[9; 32]], NOW).unwrap_err();
    let text = other.to_string();
    assert!(
        text.contains(&hex(&upload.held.public_key_sha256)),
        "{text}"
    );
    assert!(text.contains(&"09".repeat(32)), "{text}");
    let none = check_upload(&leaf, &[], NOW).unwrap_err().to_string();
    assert!(none.contains("there is none"), "{none}");
    let turned = upload.intermediate.pem() + &leaf;
    assert_eq!(upload.check(&turned), Err(UploadError::NotFirst(2)));
}

#[tokio::test]
async fn what_is_not_valid_now_is_refused_with_its_time() {
    let mut upload = Upload::new(KeyAlgorithm::EcdsaP256).await;
    upload.params.not_before = date_time_ymd(2023, 12, 1);
    assert!(matches!(upload.refused(), UploadError::NotYetValid(..)));
    upload.params.not_before = date_time_ymd(2020, 1, 1);
    upload.params.not_after = date_time_ymd(2023, 11, 1);
    assert!(matches!(upload.refused(), UploadError::Expired(_)));
    // To the second.
    let leaf = upload.leaf();
    let held = [upload.held.public_key_sha256];
    let end = Timestamp::from(upload.params.not_after);
    assert!(check_upload(&leaf, &held, end.minus(Duration::from_secs(1))).is_ok());
    assert!(check_upload(&leaf, &held, end).is_err());
}

#[tokio::test]
async fn what_no_client_can_use_is_refused() {
    use ExtendedKeyUsagePurpose::{Any, ServerAuth};
    let mut upload = Upload::new(KeyAlgorithm::EcdsaP256).await;
    upload.params.extended_key_usages = vec![ServerAuth, Any];
    assert_eq!(upload.refused(), UploadError::Purpose);
    upload.params.extended_key_usages = vec![];
    upload.params.key_usages = vec![KeyUsagePurpose::KeyAgreement];
    assert_eq!(upload.refused(), UploadError::KeyUsage);
    upload.params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    assert_eq!(upload.refused(), UploadError::IsAuthority);
    // What is not there forbids nothing.
    upload.params.is_ca = IsCa::NoCa;
    upload.params.key_usages = vec![];
    assert!(upload.check(&upload.leaf()).is_ok());
}

#[tokio::test]
async fn each_certificate_must_be_signed_by_the_next() {
    let upload = Upload::new(KeyAlgorithm::EcdsaP256).await;
    let (leaf, intermediate) = (upload.leaf(), upload.intermediate.pem());
    // Of the same names, with other keys.
    let (other_root, other_intermediate) = receiver();
    for (wrong, at) in [
        (leaf.clone() + &upload.root.pem(), 1),
        (leaf.clone() + &other_intermediate.pem(), 1),
        (leaf.clone() + &leaf, 1),
        (leaf.clone() + &intermediate + &other_root.pem(), 2),
        (leaf.clone() + &upload.root.pem() + &intermediate, 1),
    ] {
        assert_eq!(upload.check(&wrong), Err(UploadError::Chain(at)));
    }
    let text = UploadError::Chain(2).to_string();
    assert!(text.contains("signed by certificate 3"), "{text}");
}

#[tokio::test]
async fn what_is_not_a_list_of_certificates_is_refused() {
    let upload = Upload::new(KeyAlgorithm::EcdsaP256).await;
    let leaf = upload.leaf();
    let many = upload.check(&leaf.repeat(MAX_UPLOADED + 1));
    assert_eq!(many, Err(UploadError::TooMany(9)));
    let key = KeyPair::generate().unwrap().serialize_pem();
    for (pem, expected) in [
        (String::new(), PemError::NoCertificate),
        (leaf.clone() + &key, PemError::PrivateKey),
        (" ".repeat(MAX_PEM_LENGTH + 1), PemError::TooLong),
    ] {
        assert_eq!(upload.check(&pem), Err(UploadError::Pem(expected)));
    }
    for length in (0..leaf.len()).step_by(7) {
        // The last cuts take only the line's end.
        let cut = leaf[..length].trim_end();
        if cut.len() < leaf.trim_end().len() {
            assert!(upload.check(cut).is_err(), "{length}");
        }
    }
}
