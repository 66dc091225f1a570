//! Signatures with an EC key in a token, of the shape that X.509 has: the digest is made here, the
//! token signs it (`CKM_ECDSA`, PKCS #11 v2.40 section 2.3.6), and its two numbers become DER.

use std::sync::Arc;

use cryptoki::{
    error::Error,
    mechanism::Mechanism,
    object::{Attribute, AttributeType, ObjectClass, ObjectHandle},
};
use sha2::{Digest as _, Sha256, Sha384};

use super::{Kind, Token, TokenError, token::Open};
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
    const ALL: [Self; 2] = [Self::P256, Self::P384];

    /// Its object identifier in DER (RFC 5480 section 2.1.1.1).
    pub(super) fn oid(self) -> &'static [u8] {
        match self {
            Self::P256 => P256,
            Self::P384 => P384,
        }
    }

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
    token: Arc<Token>,
    curve: Curve,
    point: Vec<u8>,
    /// Which of the token's keys it is.
    which: Which,
}

#[derive(Debug)]
enum Which {
    /// The one that the session was opened for.
    Own,
    /// The one with this point.
    ByPoint,
}

impl TokenSigner {
    /// Finds the key pair. Blocks.
    ///
    /// # Errors
    /// [`TokenError`], which says what to do.
    pub fn open(settings: TokenKey) -> Result<Self, TokenError> {
        let label = settings.key.as_bytes().to_vec();
        let named = format!("'{}' in the token '{}'", settings.key, settings.place.token);
        let token = Token::open(settings, Kind::Ec)?;
        let attributes = token.with(|open| {
            let wanted = [
                Attribute::Class(ObjectClass::PUBLIC_KEY),
                Attribute::Label(label.clone()),
            ];
            let found = open.session.find_objects(&wanted)?;
            let asked = [AttributeType::EcParams, AttributeType::EcPoint];
            let first = found.first().copied().map_or_else(|| open.key(), Ok)?;
            open.session.get_attributes(first, &asked)
        })?;
        let (mut curve, mut point) = (None, None);
        for attribute in attributes {
            match attribute {
                Attribute::EcParams(params) => {
                    curve = Curve::ALL.into_iter().find(|it| it.oid() == params)
                }
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
            token: Arc::new(token),
            curve,
            point,
            which: Which::Own,
        })
    }

    /// The key pair with this public half, which is looked for when it signs.
    pub(super) fn by_point(token: Arc<Token>, curve: Curve, point: Vec<u8>) -> Self {
        let which = Which::ByPoint;
        Self {
            token,
            curve,
            point,
            which,
        }
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
        let signature = self.token.with(|open| {
            let key = match self.which {
                Which::Own => Some(open.key()?),
                Which::ByPoint => private_of(open, &self.point)?,
            };
            let sign = |key| open.session.sign(&Mechanism::Ecdsa, key, &digest);
            key.map(sign).transpose()
        })?;
        let signature = signature.ok_or_else(|| {
            TokenError::Setup(format!(
                "the token '{}' does not have the key of this authority: is it the token that the key was made \
                 in, or was the key removed?",
                self.token.label()
            ))
        })?;
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

/// The public halves with a point, written in either of the two ways.
pub(super) fn public_of(open: &Open, point: &[u8]) -> Result<Vec<ObjectHandle>, Error> {
    for written in [tagged(4, point), point.to_vec()] {
        let wanted = [
            Attribute::Class(ObjectClass::PUBLIC_KEY),
            Attribute::EcPoint(written),
        ];
        let found = open.session.find_objects(&wanted)?;
        if !found.is_empty() {
            return Ok(found);
        }
    }
    Ok(Vec::new())
}

/// The private key whose public half has this point; the two have the same CKA_ID.
pub(super) fn private_of(open: &Open, point: &[u8]) -> Result<Option<ObjectHandle>, Error> {
    if let Some(known) = open.found.borrow().get(point) {
        return Ok(Some(*known));
    }
    for public in public_of(open, point)? {
        let told = open.session.get_attributes(public, &[AttributeType::Id])?;
        let Some(id @ Attribute::Id(_)) = told.into_iter().next() else {
            continue;
        };
        let wanted = [Attribute::Class(ObjectClass::PRIVATE_KEY), id];
        if let [key] = open.session.find_objects(&wanted)?[..] {
            open.found.borrow_mut().insert(point.to_vec(), key);
            return Ok(Some(key));
        }
    }
    Ok(None)
}

/// The point, which most tokens tell in an OCTET STRING and some as it is.
pub(super) fn plain_point(told: Vec<u8>, curve: Curve) -> Option<Vec<u8>> {
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
