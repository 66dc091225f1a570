//! A bundle on its way: its private keys and secrets are sealed to the agent's key for the session. They
//! are bound to the hash of the whole bundle, so they open in no other bundle, and not in an older one.

use bytes::Bytes;
use countersign_proto::v1::{self, BundleSecrets};
use prost::Message as _;
use zeroize::Zeroizing;

use crate::{
    hpke::{HpkeError, PUBLIC_LENGTH, RecipientKey, Sealed, seal},
    secret::SecretBytes,
};

/// Takes the secrets out of a bundle and puts them in sealed.
///
/// # Errors
/// [`HpkeError::Key`] when `public` is no key.
pub fn seal_bundle(
    mut bundle: v1::Bundle,
    public: &[u8; PUBLIC_LENGTH],
) -> Result<v1::Bundle, HpkeError> {
    let standby = bundle.standby_certificates.iter_mut();
    let secrets = BundleSecrets {
        private_key: std::mem::take(&mut bundle.private_key),
        signing_secrets: std::mem::take(&mut bundle.signing_secrets),
        signing_seeds: std::mem::take(&mut bundle.signing_seeds),
        standby_private_keys: standby
            .map(|it| std::mem::take(&mut it.private_key))
            .collect(),
    };
    let plain = SecretBytes::from(secrets.encode_to_vec());
    let sealed = seal(public, &bound(&bundle), &plain)?;
    bundle.sealed_secrets = Some(v1::SealedSecrets {
        encapsulated_key: sealed.encapsulated_key.into(),
        ciphertext: sealed.ciphertext.into(),
    });
    Ok(bundle)
}

/// The inverse of [`seal_bundle`], with the key that it was sealed to.
///
/// # Errors
/// [`HpkeError::DoesNotOpen`]; also for a bundle whose secrets are not sealed.
pub fn open_bundle(mut bundle: v1::Bundle, key: &RecipientKey) -> Result<v1::Bundle, HpkeError> {
    let sealed = bundle.sealed_secrets.take();
    let sealed = sealed.ok_or(HpkeError::DoesNotOpen)?;
    let sealed = Sealed {
        encapsulated_key: sealed.encapsulated_key.to_vec(),
        ciphertext: sealed.ciphertext.to_vec(),
    };
    let plain = key.open(&sealed, &bound(&bundle))?;
    let secrets = BundleSecrets::decode(plain.expose()).map_err(|_| HpkeError::DoesNotOpen)?;
    if secrets.standby_private_keys.len() != bundle.standby_certificates.len() {
        return Err(HpkeError::DoesNotOpen);
    }
    let standby = bundle.standby_certificates.iter_mut();
    for (certificate, private_key) in standby.zip(secrets.standby_private_keys) {
        certificate.private_key = private_key;
    }
    bundle.private_key = secrets.private_key;
    bundle.signing_secrets = secrets.signing_secrets;
    bundle.signing_seeds = secrets.signing_seeds;
    Ok(bundle)
}

/// What the secrets are bound to: all of the bundle but them, and its hash, which covers them too.
fn bound(bundle: &v1::Bundle) -> Zeroizing<Vec<u8>> {
    let mut bare = bundle.clone();
    bare.sealed_secrets = None;
    bare.private_key = Bytes::new();
    (bare.signing_secrets, bare.signing_seeds) = (Vec::new(), Vec::new());
    for standby in &mut bare.standby_certificates {
        standby.private_key = Bytes::new();
    }
    Zeroizing::new(bare.encode_to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(generation: i64) -> v1::Bundle {
        v1::Bundle {
            destination: "accounts/acme/destinations/orders".to_owned(),
            generation,
            content_sha256: vec![generation.unsigned_abs() as u8; 32].into(),
            private_key: "a private key".into(),
            signing_secrets: vec!["a secret".into()],
            signing_seeds: vec!["a seed".into()],
            standby_certificates: vec![v1::StandbyCertificate {
                private_key: "a second private key".into(),
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    #[test]
    fn nothing_secret_is_on_the_wire_and_all_of_it_comes_out() {
        let key = RecipientKey::generate().unwrap();
        let sealed = seal_bundle(bundle(2), key.public()).unwrap();
        let wire = sealed.encode_to_vec();
        for secret in ["private key", "a secret", "a seed"] {
            let found = wire
                .windows(secret.len())
                .any(|some| some == secret.as_bytes());
            assert!(!found, "{secret}");
        }
        assert_eq!(open_bundle(sealed, &key).unwrap(), bundle(2));
    }

    #[test]
    fn secrets_open_in_their_own_bundle_alone() {
        let key = RecipientKey::generate().unwrap();
        let (old, new) = (bundle(1), bundle(2));
        let old = seal_bundle(old, key.public()).unwrap();
        let new = seal_bundle(new, key.public()).unwrap();
        let fails = |bundle: v1::Bundle| {
            assert_eq!(open_bundle(bundle, &key), Err(HpkeError::DoesNotOpen));
        };
        // An older one's secrets in the newer, an older bundle that says to be newer, another receiver.
        fails(v1::Bundle {
            sealed_secrets: old.sealed_secrets.clone(),
            ..new.clone()
        });
        fails(v1::Bundle {
            generation: 3,
            ..old.clone()
        });
        fails(v1::Bundle {
            url: "https://elsewhere.example/".to_owned(),
            ..new.clone()
        });
        fails(bundle(2));
        let later = RecipientKey::generate().unwrap();
        assert_eq!(open_bundle(new, &later), Err(HpkeError::DoesNotOpen));
    }
}
