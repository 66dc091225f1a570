//! Signatures with an EC key in a token, of the shape that X.509 has: the digest is made here, the
//! token signs it (`CKM_ECDSA`, PKCS #11 v2.40 section 2.3.6), and its two numbers become DER.

use cryptoki::{
    mechanism::Mechanism,
    object::{Attribute, AttributeType, ObjectClass},
};
use sha2::{Digest as _, Sha256, Sha384};

use super::{Kind, Token, TokenError};
use crate::model::TokenKey;

/// Object identifiers of curves in DER (RFC 5480 section 2.1.1.1).
const P256: &[u8] = &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
const P384: &[u8] = &[6, 5, 0x2b, 0x81, 4, 0, 0x22];

/// The curves that are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Curve {
    /// NIST P-256, signed with SHA-256.
    P256,
    /// NIST P-384, signed with SHA-384.
    P384,
}

impl Curve {
    /// Bytes of a coordinate.
    fn bytes(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
        }
    }

    fn digest(self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::P256 => Sha256::digest(message).to_vec(),
            Self::P384 => Sha384::digest(message).to_vec(),
        }
    }
}

/// Signs with an EC key that stays in its token.
#[derive(Debug)]
pub struct TokenSigner {
    token: Token,
    curve: Curve,
    point: Vec<u8>,
}

impl TokenSigner {
    /// Finds the key pair. Blocks.
    ///
    /// # Errors
    /// [`TokenError`], which says what to do.
    pub fn open(settings: TokenKey) -> Result<Self, TokenError> {
        let label = settings.key.as_bytes().to_vec();
        let named = format!("'{}' in the token '{}'", settings.key, settings.token);
        let token = Token::open(settings, Kind::Ec)?;
        let attributes = token.with(|open| {
            let wanted = [
                Attribute::Class(ObjectClass::PUBLIC_KEY),
                Attribute::Label(label.clone()),
            ];
            let found = open.session.find_objects(&wanted)?;
            let asked = [AttributeType::EcParams, AttributeType::EcPoint];
            let first = found.first().copied().unwrap_or(open.key);
            open.session.get_attributes(first, &asked)
        })?;
        let (mut curve, mut point) = (None, None);
        for attribute in attributes {
            match attribute {
                Attribute::EcParams(params) if params == P256 => curve = Some(Curve::P256),
                Attribute::EcParams(params) if params == P384 => curve = Some(Curve::P384),
                Attribute::EcPoint(wrapped) => point = Some(wrapped),
                _ => {}
            }
        }
        let curve = curve.ok_or_else(|| {
            TokenError::Setup(format!(
                "the key {named} is neither a P-256 nor a P-384 key"
            ))
        })?;
        let point = point.and_then(|point| plain_point(point, curve));
        let point = point.ok_or_else(|| {
            TokenError::Setup(format!(
                "the token does not tell the public half of the key {named}"
            ))
        })?;
        Ok(Self {
            token,
            curve,
            point,
        })
    }

    /// The key's curve.
    pub fn curve(&self) -> Curve {
        self.curve
    }

    /// The public key as a point without compression (SEC 1 section 2.3.3).
    pub fn point(&self) -> &[u8] {
        &self.point
    }

    /// Signs a message: an ECDSA-Sig-Value in DER (RFC 3279 section 2.2.3). Blocks for as long as the
    /// token takes.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, TokenError> {
        let digest = self.curve.digest(message);
        let signature = self
            .token
            .with(|open| open.session.sign(&Mechanism::Ecdsa, open.key, &digest))?;
        if signature.len() != 2 * self.curve.bytes() {
            let length = signature.len();
            return Err(TokenError::Failed(format!(
                "the token's signature has {length} bytes, which is not of this curve"
            )));
        }
        let (r, s) = signature.split_at(self.curve.bytes());
        Ok(sequence(&[integer(r), integer(s)].concat()))
    }
}

/// The point, which most tokens tell in an OCTET STRING and some as it is.
fn plain_point(told: Vec<u8>, curve: Curve) -> Option<Vec<u8>> {
    const UNCOMPRESSED: u8 = 4;
    let length = 1 + 2 * curve.bytes();
    let point = match told.as_slice() {
        // P-256's and P-384's lengths fit into one byte.
        [4, inner, rest @ ..] if usize::from(*inner) == length && rest.len() == length => rest,
        whole => whole,
    };
    (point.len() == length && point.first() == Some(&UNCOMPRESSED)).then(|| point.to_vec())
}

/// An INTEGER of DER from an unsigned number, which has fewer than 127 bytes (X.690 section 8.3).
fn integer(number: &[u8]) -> Vec<u8> {
    let start = number.iter().position(|byte| *byte != 0);
    let digits = start.map_or(&[0][..], |start| &number[start..]);
    // The highest bit is the sign.
    let sign = digits.first().is_some_and(|first| *first >= 0x80);
    let content = [&[0][..usize::from(sign)], digits].concat();
    tagged(2, &content)
}

/// A SEQUENCE of DER, of fewer than 127 bytes: two numbers of P-384 have 104 at most.
fn sequence(content: &[u8]) -> Vec<u8> {
    tagged(0x30, content)
}

fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    // The callers' lengths fit.
    let length = u8::try_from(content.len()).unwrap_or(u8::MAX);
    [&[tag, length], content].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pkcs11::testing::{in_a_process_of_its_own, log_out, make_token, settings};

    #[test]
    fn numbers_become_der_integers() {
        assert_eq!(integer(&[0, 0, 1]), [2, 1, 1]);
        assert_eq!(integer(&[0x80]), [2, 2, 0, 0x80]);
        assert_eq!(integer(&[0, 0x7f, 0]), [2, 2, 0x7f, 0]);
        assert_eq!(integer(&[0, 0]), [2, 1, 0]);
        let longest = sequence(&[integer(&[0xff; 48]), integer(&[0xff; 48])].concat());
        assert_eq!((longest[1], longest.len()), (102, 104));
    }

    #[test]
    fn points_are_told_wrapped_or_as_they_are() {
        let mut point = vec![7; 65];
        point[0] = 4;
        let wrapped = [&[4, 65], point.as_slice()].concat();
        assert_eq!(plain_point(wrapped, Curve::P256), Some(point.clone()));
        assert_eq!(plain_point(point.clone(), Curve::P256), Some(point.clone()));
        assert_eq!(plain_point(point.clone(), Curve::P384), None);
        point[0] = 2;
        assert_eq!(plain_point(point, Curve::P256), None);
    }

    #[test]
    fn what_it_signs_is_accepted() {
        in_a_process_of_its_own("pkcs11::signer::tests::what_it_signs_is_accepted", signs());
    }

    async fn signs() {
        let module = make_token(&[], &["root"]);
        let signer = TokenSigner::open(settings("root")).unwrap();
        assert_eq!(signer.curve(), Curve::P256);
        let key = signer.point();
        let check = |message: &[u8], signature: &[u8]| {
            rustls::crypto::aws_lc_rs::default_provider()
                .signature_verification_algorithms
                .all
                .iter()
                .any(|algorithm| algorithm.verify_signature(key, message, signature).is_ok())
        };
        // Some have numbers that begin with zeros, or with the highest bit.
        for number in 0..64_u8 {
            let signature = signer.sign(&[number; 9]).unwrap();
            assert!(check(&[number; 9], &signature), "{signature:?}");
            assert!(!check(&[number; 8], &signature));
        }
        log_out(&module);
        assert!(check(b"later", &signer.sign(b"later").unwrap()));
    }
}
