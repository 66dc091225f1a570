//! Delivery receipts: an agent's signed word on one attempt, which anybody can verify later without us.
//!
//! A receipt is a JSON Web Signature in compact form (RFC 7515) with ES256 (RFC 7518 section 3.4), and its
//! header carries the agent's identity certificate (`x5c`). The receipts of an agent for a destination are a
//! chain: each names the hash of the one before, so that one that is left out is missed.

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    digest::{hex, sha256},
    random,
};

/// Type of the signed object (RFC 7515 section 4.1.9).
const TYPE: &str = "countersign-receipt+jws";
/// Longest receipt, in characters.
pub const MAX_LENGTH: usize = 16 * 1024;
/// Bytes of each of the two numbers of a P-256 signature.
const NUMBER: usize = 32;

/// Why a text is no receipt.
#[derive(Debug, Error, PartialEq, Eq, Clone, Copy)]
pub enum ReceiptError {
    /// Not three parts of Base64url, or too long.
    #[error("is not a JSON Web Signature in compact form")]
    Form,
    /// The header is another one.
    #[error(
        "is not signed as receipts are: its header has another type, algorithm or no certificate"
    )]
    Header,
    /// The content is another one.
    #[error("does not hold what a receipt holds")]
    Content,
}

/// What a receipt says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// Who made the attempt: `agents/{agent}`.
    pub agent: String,
    /// Where to: `accounts/{account}/destinations/{destination}`.
    pub destination: String,
    /// The URL without its query.
    pub url: String,
    /// The delivery's id, which is the `webhook-id` that the receiver got.
    pub delivery: String,
    /// Which of its attempts, counted from 1.
    pub attempt: u32,
    /// When it began, by the agent's clock (RFC 3339).
    pub started_at: String,
    /// How it ended: a failure class, or DELIVERED.
    pub class: String,
    /// Status of the HTTP answer, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_status: Option<u16>,
    /// SHA-256 of the payload, in hex.
    pub payload_sha256: String,
    /// Serial number of the client certificate that was presented, if one was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate_serial: Option<String>,
    /// Which chain of receipts: 128 random bits in hex.
    pub chain: String,
    /// Its place in the chain: 1, 2, …
    pub sequence: u64,
    /// SHA-256 of the receipt before, as it was written, in hex; zeros for the first.
    pub previous_sha256: String,
}

/// A chain that goes on.
#[derive(Debug)]
pub struct Chain {
    id: String,
    next: u64,
    previous: String,
}

impl Default for Chain {
    fn default() -> Self {
        Self {
            id: hex(&random::bytes::<16>()),
            next: 1,
            previous: "0".repeat(64),
        }
    }
}

impl Chain {
    /// Gives a receipt its place.
    pub fn place(&self, receipt: Receipt) -> Receipt {
        Receipt {
            chain: self.id.clone(),
            sequence: self.next,
            previous_sha256: self.previous.clone(),
            ..receipt
        }
    }

    /// The receipt that had that place is signed.
    pub fn went_on(&mut self, signed: &str) {
        self.next += 1;
        self.previous = link(signed);
    }
}

/// What the next receipt of a chain names.
pub fn link(signed: &str) -> String {
    hex(&sha256(signed.as_bytes()))
}

#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    typ: String,
    x5c: Vec<String>,
}

/// What is to be signed: header and content as they are written.
pub fn to_sign(receipt: &Receipt, certificate: &CertificateDer<'_>) -> String {
    let header = Header {
        alg: "ES256".to_owned(),
        typ: TYPE.to_owned(),
        x5c: vec![STANDARD.encode(certificate)],
    };
    // Texts and numbers have a JSON form.
    let json =
        |value: serde_json::Result<Vec<u8>>| URL_SAFE_NO_PAD.encode(value.unwrap_or_default());
    let (header, receipt) = (serde_json::to_vec(&header), serde_json::to_vec(receipt));
    format!("{}.{}", json(header), json(receipt))
}

/// The receipt, from what was signed and the signature as ECDSA has it in DER; `None` when that is none.
pub fn sealed(signed: &str, signature: &[u8]) -> Option<String> {
    Some(format!(
        "{signed}.{}",
        URL_SAFE_NO_PAD.encode(raw_of_der(signature)?)
    ))
}

/// A receipt that was read. It is not verified.
#[derive(Debug, Clone)]
pub struct Read {
    /// What it says.
    pub receipt: Receipt,
    /// Who signed it, if the signature is right.
    pub certificate: CertificateDer<'static>,
    /// What was signed.
    pub signed: String,
    /// ECDSA P-256 with SHA-256, in DER.
    pub signature: Vec<u8>,
}

/// Reads a receipt.
///
/// # Errors
/// [`ReceiptError`].
pub fn read(text: &str) -> Result<Read, ReceiptError> {
    if text.len() > MAX_LENGTH {
        return Err(ReceiptError::Form);
    }
    let (signed, signature) = text.rsplit_once('.').ok_or(ReceiptError::Form)?;
    let (header, content) = signed.split_once('.').ok_or(ReceiptError::Form)?;
    let decoded = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| ReceiptError::Form);
    let (header, content, signature) = (decoded(header)?, decoded(content)?, decoded(signature)?);
    let header: Header = serde_json::from_slice(&header).map_err(|_| ReceiptError::Header)?;
    let expected = header.alg == "ES256" && header.typ == TYPE;
    let certificate = header.x5c.first().filter(|_| expected);
    let certificate = certificate.and_then(|it| STANDARD.decode(it).ok());
    let receipt = serde_json::from_slice(&content);
    Ok(Read {
        certificate: certificate.ok_or(ReceiptError::Header)?.into(),
        receipt: receipt.map_err(|_| ReceiptError::Content)?,
        signed: signed.to_owned(),
        signature: der_of_raw(&signature).ok_or(ReceiptError::Form)?,
    })
}

/// The two numbers one after the other (RFC 7518 section 3.4), from `SEQUENCE { INTEGER, INTEGER }` (RFC 3279
/// section 2.2.3).
fn raw_of_der(der: &[u8]) -> Option<[u8; 2 * NUMBER]> {
    let [0x30, length, rest @ ..] = der else {
        return None;
    };
    let rest = (usize::from(*length) == rest.len()).then_some(rest)?;
    let (first, rest) = integer(rest)?;
    let (second, rest) = integer(rest)?;
    if !rest.is_empty() {
        return None;
    }
    let mut raw = [0; 2 * NUMBER];
    raw[NUMBER - first.len()..NUMBER].copy_from_slice(first);
    raw[2 * NUMBER - second.len()..].copy_from_slice(second);
    Some(raw)
}

/// A positive integer without leading zeros, of at most 32 bytes, and what follows it.
fn integer(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let [0x02, length, rest @ ..] = der else {
        return None;
    };
    let (number, rest) = rest.split_at_checked(usize::from(*length))?;
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    let number = &number[zeros..];
    (number.len() <= NUMBER).then_some((number, rest))
}

/// The inverse of [`raw_of_der`].
fn der_of_raw(raw: &[u8]) -> Option<Vec<u8>> {
    let raw: &[u8; 2 * NUMBER] = raw.try_into().ok()?;
    let mut content = Vec::with_capacity(2 * NUMBER + 6);
    for number in raw.chunks(NUMBER) {
        let zeros = number.iter().take_while(|byte| **byte == 0).count();
        let number = &number[zeros.min(NUMBER - 1)..];
        let sign = usize::from(number[0] >= 0x80);
        // At most 33.
        content.extend([0x02, (number.len() + sign) as u8]);
        content.extend(std::iter::repeat_n(0, sign));
        content.extend_from_slice(number);
    }
    // At most 70: the short form.
    Some([&[0x30, content.len() as u8], content.as_slice()].concat())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn receipt() -> Receipt {
        Receipt {
            agent: "agents/edge-1".to_owned(),
            destination: "accounts/acme/destinations/orders".to_owned(),
            url: "https://receiver.example/hooks".to_owned(),
            delivery: "018fc58e-37d7-7082-beaa-78560d3a341e".to_owned(),
            attempt: 1,
            started_at: "2026-01-02T03:04:05Z".to_owned(),
            class: "DELIVERED".to_owned(),
            http_status: Some(204),
            payload_sha256: "00".repeat(32),
            client_certificate_serial: None,
            chain: String::new(),
            sequence: 0,
            previous_sha256: String::new(),
        }
    }

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let mut chain = Chain::default();
        let certificate = CertificateDer::from(vec![1, 2, 3]);
        let first = chain.place(receipt());
        assert_eq!(
            (first.sequence, first.previous_sha256.as_str()),
            (1, "0".repeat(64).as_str())
        );
        let signed = to_sign(&first, &certificate);
        let der = der_of_raw(&[0x90; 64]).unwrap();
        let text = sealed(&signed, &der).unwrap();
        let found = read(&text).unwrap();
        assert_eq!((found.receipt, found.signature), (first, der));
        assert_eq!(found.signed, signed);
        chain.went_on(&text);
        let second = chain.place(receipt());
        assert_eq!((second.sequence, second.previous_sha256), (2, link(&text)));

        for bad in ["", ".", "..", "a.b.c", &text[1..], &text[..text.len() - 4]] {
            assert!(read(bad).is_err(), "{bad}");
        }
        // `none`, and another type of object by the same key.
        let other = |from: &str, to: &str| {
            let (header, rest) = text.split_once('.').unwrap();
            let header = String::from_utf8(URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap();
            let header = URL_SAFE_NO_PAD.encode(header.replace(from, to));
            read(&format!("{header}.{rest}")).unwrap_err()
        };
        assert_eq!(other("ES256", "none"), ReceiptError::Header);
        assert_eq!(
            other("countersign-receipt+jws", "JWT"),
            ReceiptError::Header
        );
    }

    proptest! {
        #[test]
        fn the_forms_of_a_signature_are_each_others_inverse(raw in proptest::collection::vec(0_u8.., 64), zeros in 0_usize..33) {
            let mut raw = raw;
            raw[..zeros.min(31)].fill(0);
            let der = der_of_raw(&raw).unwrap();
            prop_assert_eq!(raw_of_der(&der).unwrap().to_vec(), raw);
            for length in 0..der.len() {
                prop_assert!(raw_of_der(&der[..length]).is_none());
            }
        }
    }
}
