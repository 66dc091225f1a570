//! Whether what was signed is what was to be signed: every certificate is read back and compared
//! before it is stored or handed out.

use rcgen::SanType;
use x509_parser::{
    extensions::{ExtendedKeyUsage, GeneralName, ParsedExtension},
    oid_registry::{OID_EC_P256, OID_NIST_EC_P384},
    prelude::{FromDer as _, X509Certificate, X509Extension, X509Name, X509Version},
    public_key::PublicKey,
    x509::SubjectPublicKeyInfo,
};

use super::{
    CaError,
    profile::{Contents, Profile},
};
use crate::model::KeyAlgorithm;

/// The first octet of a KeyUsage as x509-parser reads it: bit 0 is digitalSignature, 5 keyCertSign,
/// 6 cRLSign (RFC 5280 section 4.2.1.3).
const DIGITAL_SIGNATURE: u16 = 1;
const SIGNS_CERTIFICATES_AND_LISTS: u16 = 1 << 5 | 1 << 6;

/// Checks that `der` is a certificate of `contents` for `public_key` (SubjectPublicKeyInfo), signed by
/// the key of `issuer`. What is not must not be stored.
pub(super) fn certificate(
    der: &[u8],
    contents: &Contents,
    public_key: &[u8],
    issuer: &[u8],
) -> Result<(), CaError> {
    let certificate = parse(der).ok_or(CaError::Profile("it does not parse"))?;
    let issuer = parse(issuer).ok_or(CaError::Profile("its issuer does not parse"))?;
    let seconds = (
        certificate.validity().not_before.timestamp(),
        certificate.validity().not_after.timestamp(),
    );
    let expected = (
        contents.validity.not_before.as_unix_seconds(),
        contents.validity.not_after.as_unix_seconds(),
    );
    let checks = [
        (certificate.version() == X509Version::V3, "version"),
        (seconds == expected, "validity"),
        (seconds.0 < seconds.1, "it would end before it starts"),
        (
            certificate.raw_serial() == contents.serial.0,
            "serial number",
        ),
        (subject(&certificate, contents), "subject"),
        (
            alternative_names(&certificate).as_ref() == Some(&contents.alternative_names),
            "subject alternative names",
        ),
        (
            certificate.public_key().raw == public_key
                && key_algorithm(certificate.public_key())
                    == Some(contents.profile.key_algorithm()),
            "public key",
        ),
        (usage(contents.profile, &certificate).is_some(), "key usage"),
        (
            identifiers(&certificate, &issuer).is_some(),
            "key identifiers",
        ),
        (
            extensions(&certificate) == expected_extensions(contents),
            "extensions",
        ),
        (signed_by(&certificate, &issuer), "issuer or signature"),
    ];
    match checks.into_iter().find(|(right, _)| !right) {
        Some((_, what)) => Err(CaError::Profile(what)),
        None => Ok(()),
    }
}

/// A certificate, and nothing after it.
pub(super) fn parse(der: &[u8]) -> Option<X509Certificate<'_>> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Some(certificate),
        _ => None,
    }
}

/// Whether `issuer` names itself as `certificate` names its issuer, and signed it.
pub(super) fn signed_by(certificate: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> bool {
    certificate.issuer().as_raw() == issuer.subject().as_raw()
        && certificate
            .verify_signature(Some(issuer.public_key()))
            .is_ok()
}

/// The kind of a public key; `None` for one that no client certificate of ours has.
pub(super) fn key_algorithm(key: &SubjectPublicKeyInfo<'_>) -> Option<KeyAlgorithm> {
    match key.parsed().ok()? {
        PublicKey::RSA(rsa) => match rsa.key_size() {
            2048 => Some(KeyAlgorithm::Rsa2048),
            3072 => Some(KeyAlgorithm::Rsa3072),
            _ => None,
        },
        PublicKey::EC(_) => {
            let curve = key.algorithm.parameters.as_ref()?.as_oid().ok()?;
            if curve == OID_EC_P256 {
                Some(KeyAlgorithm::EcdsaP256)
            } else if curve == OID_NIST_EC_P384 {
                Some(KeyAlgorithm::EcdsaP384)
            } else {
                None
            }
        }
        _ => None,
    }
}

/// The key identifier that a certificate gives its own key (RFC 5280 section 4.2.1.2).
pub(super) fn subject_key_identifier<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a [u8]> {
    certificate
        .iter_extensions()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(identifier) => Some(identifier.0),
            _ => None,
        })
}

/// The key identifier that extensions give the signer's key (RFC 5280 section 4.2.1.1).
pub(super) fn authority_key_identifier<'a>(
    extensions: &'a [X509Extension<'_>],
) -> Option<&'a [u8]> {
    extensions
        .iter()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(identifier) => {
                identifier.key_identifier.as_ref().map(|id| id.0)
            }
            _ => None,
        })
}

/// Both are there, and the signer's is the signer's.
fn identifiers(certificate: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> Option<()> {
    let own = subject_key_identifier(certificate)?;
    let signers = authority_key_identifier(certificate.extensions())?;
    (!own.is_empty() && signers == subject_key_identifier(issuer)?).then_some(())
}

/// The common name alone, or all that another certificate has.
fn subject(certificate: &X509Certificate<'_>, contents: &Contents) -> bool {
    let Some(like) = &contents.like else {
        return only_common_name(certificate.subject()) == Some(contents.common_name.as_str());
    };
    certificate.subject().as_raw() == like.subject_der
        && subject_key_identifier(certificate) == Some(&like.key_identifier)
}

/// The common name of a name that has nothing else in it.
pub(super) fn only_common_name<'a>(name: &'a X509Name<'_>) -> Option<&'a str> {
    let mut names = name.iter_common_name();
    let common_name = names.next()?.as_str().ok()?;
    (name.iter_attributes().count() == 1).then_some(common_name)
}

/// The alternative names in rcgen's form; `None` when one is of a kind that we never sign.
fn alternative_names(certificate: &X509Certificate<'_>) -> Option<Vec<SanType>> {
    let Some(names) = certificate.subject_alternative_name().ok()? else {
        return Some(Vec::new());
    };
    let names = names.value.general_names.iter();
    names
        .map(|name| match name {
            GeneralName::DNSName(name) => (*name).try_into().ok().map(SanType::DnsName),
            GeneralName::URI(uri) => (*uri).try_into().ok().map(SanType::URI),
            GeneralName::IPAddress(octets) => address(octets).map(SanType::IpAddress),
            _ => None,
        })
        .collect()
}

fn address(octets: &[u8]) -> Option<std::net::IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(octets) {
        return Some(octets.into());
    }
    <[u8; 16]>::try_from(octets).ok().map(Into::into)
}

fn usage(profile: Profile, certificate: &X509Certificate<'_>) -> Option<()> {
    let usage = certificate.key_usage().ok()??;
    let purposes = certificate.extended_key_usage().ok()?;
    let constraints = certificate.basic_constraints().ok()??;
    let (is_ca, path_length) = (constraints.value.ca, constraints.value.path_len_constraint);
    let right = match profile {
        Profile::Authority {
            path_length: ours, ..
        } => {
            usage.value.flags == SIGNS_CERTIFICATES_AND_LISTS
                && purposes.is_none()
                && is_ca
                && path_length == Some(u32::from(ours))
        }
        Profile::Client(_) | Profile::Server => {
            let for_server = profile == Profile::Server;
            let expected = ExtendedKeyUsage {
                any: false,
                server_auth: for_server,
                client_auth: !for_server,
                code_signing: false,
                email_protection: false,
                time_stamping: false,
                ocsp_signing: false,
                other: Vec::new(),
            };
            usage.value.flags == DIGITAL_SIGNATURE
                && *purposes?.value == expected
                && !is_ca
                && path_length.is_none()
        }
    };
    (right && usage.critical && constraints.critical).then_some(())
}

/// How many extensions there are; what they are is checked one by one.
fn extensions(certificate: &X509Certificate<'_>) -> usize {
    certificate.extensions().len()
}

/// Key usage, basic constraints and two key identifiers; purposes for what is presented; names.
fn expected_extensions(contents: &Contents) -> usize {
    let purposes = !matches!(contents.profile, Profile::Authority { .. });
    4 + usize::from(purposes) + usize::from(!contents.alternative_names.is_empty())
}
