//! EC key pairs that are made in a token, and found there again by their public halves. One session serves all of
//! them, one call at a time.

use std::sync::Arc;

use countersign_shared::random;
use cryptoki::{
    mechanism::Mechanism,
    object::{Attribute, AttributeType},
};

use super::{
    Curve, Kind, Token, TokenError, TokenSigner,
    signer::{plain_point, private_of, public_of},
};
use crate::model::{TokenKey, TokenPlace};

/// Bytes of a CKA_ID.
const ID: usize = 20;

/// Key pairs in a token.
#[derive(Debug)]
pub struct TokenKeys {
    token: Arc<Token>,
}

impl TokenKeys {
    /// Opens the token. Blocks.
    ///
    /// # Errors
    /// [`TokenError`], which says what to do.
    pub fn open(place: TokenPlace) -> Result<Self, TokenError> {
        let settings = TokenKey {
            place,
            key: String::new(),
        };
        let token = Arc::new(Token::open(settings, Kind::Many)?);
        Ok(Self { token })
    }

    /// Makes a key pair that never leaves the token. `label` is for those who look into it. Blocks.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn make(&self, label: &str, curve: Curve) -> Result<TokenSigner, TokenError> {
        // By which the one half is found from the other.
        let unique = random::bytes::<ID>().to_vec();
        let both = [
            Attribute::Token(true),
            Attribute::Label(label.as_bytes().to_vec()),
            Attribute::Id(unique),
        ];
        let public = [
            Attribute::Verify(true),
            Attribute::EcParams(curve.oid().to_vec()),
        ];
        let private = [
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Sign(true),
        ];
        let public: Vec<_> = both.iter().chain(&public).cloned().collect();
        let private: Vec<_> = both.iter().chain(&private).cloned().collect();
        let told = self.token.with(|open| {
            let make = Mechanism::EccKeyPairGen;
            let (public, private) = open.session.generate_key_pair(&make, &public, &private)?;
            let told = open
                .session
                .get_attributes(public, &[AttributeType::EcPoint])?;
            let point = told.into_iter().find_map(|it| match it {
                Attribute::EcPoint(point) => plain_point(point, curve),
                _ => None,
            });
            if let Some(point) = &point {
                open.found.borrow_mut().insert(point.clone(), private);
            }
            Ok(point)
        })?;
        let point = told.ok_or_else(|| {
            let token = self.token.label();
            TokenError::Setup(format!(
                "the token '{token}' does not tell the public half of a key that it has made"
            ))
        })?;
        Ok(self.signer(curve, point))
    }

    /// The key pair with this public half, a point without compression (SEC 1 section 2.3.3).
    pub fn signer(&self, curve: Curve, point: Vec<u8>) -> TokenSigner {
        TokenSigner::by_point(Arc::clone(&self.token), curve, point)
    }

    /// Destroys the key pair with this public half; false when there is none. Blocks.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn destroy(&self, point: &[u8]) -> Result<bool, TokenError> {
        self.token.with(|open| {
            let private = private_of(open, point)?;
            let public = public_of(open, point)?;
            for object in private.iter().chain(&public) {
                open.session.destroy_object(*object)?;
            }
            open.found.borrow_mut().remove(point);
            Ok(private.is_some())
        })
    }
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::alg_id;

    use super::*;
    use crate::pkcs11::testing::{in_a_process_of_its_own, log_out, make_token, settings};

    #[test]
    fn keys_are_made_found_again_and_destroyed() {
        in_a_process_of_its_own(
            "pkcs11::keys::tests::keys_are_made_found_again_and_destroyed",
            life_of_keys(),
        );
    }

    async fn life_of_keys() {
        let module = make_token(&[], &[]);
        let open = || TokenKeys::open(settings("").place).unwrap();
        let keys = open();
        let accepted = |signer: &TokenSigner| {
            let signature = signer.sign(b"message").unwrap();
            let all = rustls::crypto::aws_lc_rs::default_provider();
            let all = all.signature_verification_algorithms.all;
            let (of_key, of_signature) = match signer.curve() {
                Curve::P256 => (alg_id::ECDSA_P256, alg_id::ECDSA_SHA256),
                Curve::P384 => (alg_id::ECDSA_P384, alg_id::ECDSA_SHA384),
            };
            let algorithm = all.iter().find(|it| {
                it.public_key_alg_id() == of_key && it.signature_alg_id() == of_signature
            });
            let verified = algorithm.unwrap();
            verified
                .verify_signature(signer.point(), b"message", &signature)
                .is_ok()
        };
        let first = keys.make("accounts/acme G1", Curve::P256).unwrap();
        let second = keys.make("accounts/acme G1", Curve::P384).unwrap();
        assert!(accepted(&first) && accepted(&second));
        assert_ne!(first.point(), second.point());
        // With another session, and with the same one after the token has ended it.
        let again = open().signer(Curve::P256, first.point().to_vec());
        assert!(accepted(&again));
        log_out(&module);
        assert!(accepted(&first) && accepted(&second));

        assert!(keys.destroy(first.point()).unwrap());
        assert!(!keys.destroy(first.point()).unwrap());
        assert!(accepted(&second), "the other one is still there");
        let gone = first.sign(b"message").unwrap_err().to_string();
        assert!(gone.contains("does not have the key"), "{gone}");
    }
}
