//! Certificate revocation lists (RFC 5280 section 5): one for each generation of a delivery authority,
//! signed by it.

use std::time::Duration;

use countersign_shared::{digest::unhex, time::Timestamp};
use rcgen::{
    CertificateRevocationListParams, KeyIdMethod, RevocationReason as Reason, RevokedCertParams,
    SerialNumber,
};
use x509_parser::prelude::{CertificateRevocationList, FromDer as _};

use super::{
    CaError, SigningAuthority, check,
    profile::{Validity, date},
};
use crate::model::{Crl, Revocation, RevocationReason};

/// How long a list is good: a receiver that fetches it within this time always has a good one.
pub const CRL_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Longest serial number in octets (RFC 5280 section 4.1.2.2).
const MAX_SERIAL: usize = 20;

/// Signs the list `number` of an authority's revoked certificates, which is good for `life` from now on
/// and, as certificates are, backdated by ten minutes.
///
/// A certificate that has ended stays on it for another [`CRL_LIFE`], so that it is on at least one
/// list that was made after its end (RFC 5280 section 3.3), and then goes.
///
/// # Errors
/// [`CaError::Profile`] for a serial number that is not one, and when what was signed is not what it
/// should be; [`CaError::Sign`].
pub fn sign_crl(
    authority: &SigningAuthority,
    number: u64,
    revocations: &[Revocation],
    now: Timestamp,
    life: Duration,
) -> Result<Crl, CaError> {
    let validity = Validity::from_now(now, life);
    let listed = revocations
        .iter()
        .filter(|revocation| is_listed(revocation, now))
        .map(|revocation| Ok((serial(&revocation.serial)?, revocation)))
        .collect::<Result<Vec<_>, CaError>>()?;
    let anchor = check::parse(&authority.authority.anchor);
    let anchor = anchor.ok_or(CaError::Profile("its issuer does not parse"))?;
    let signer = check::subject_key_identifier(&anchor);
    let signer = signer.ok_or(CaError::Profile("its issuer's key identifier"))?;
    let params = CertificateRevocationListParams {
        this_update: date(validity.not_before)?,
        next_update: date(validity.not_after)?,
        crl_number: SerialNumber::from(number),
        issuing_distribution_point: None,
        revoked_certs: listed
            .iter()
            .map(|(serial, revocation)| entry(serial, revocation))
            .collect::<Result<_, _>>()?,
        key_identifier_method: KeyIdMethod::PreSpecified(signer.to_vec()),
    };
    let crl = Crl {
        owner: authority.authority.owner.clone(),
        generation: authority.authority.generation,
        number,
        this_update: validity.not_before,
        next_update: validity.not_after,
        der: params.signed_by(&authority.issuer)?.der().to_vec(),
    };
    check_list(&crl, &listed, &authority.authority.anchor)?;
    Ok(crl)
}

/// Whether a certificate is on a list that is made now.
fn is_listed(revocation: &Revocation, now: Timestamp) -> bool {
    now < revocation.not_after.plus(CRL_LIFE)
}

fn serial(hexadecimal: &str) -> Result<Vec<u8>, CaError> {
    unhex(hexadecimal)
        .filter(|octets| (1..=MAX_SERIAL).contains(&octets.len()))
        .ok_or(CaError::Profile("a revoked serial number"))
}

fn entry(serial: &[u8], revocation: &Revocation) -> Result<RevokedCertParams, CaError> {
    Ok(RevokedCertParams {
        serial_number: SerialNumber::from_slice(serial),
        revocation_time: date(revocation.revoked_at)?,
        reason_code: reason(revocation.reason),
        invalidity_date: None,
    })
}

/// An unspecified reason is left out (RFC 5280 section 5.3.1).
fn reason(reason: RevocationReason) -> Option<Reason> {
    Some(match reason {
        RevocationReason::Unspecified => return None,
        RevocationReason::KeyCompromise => Reason::KeyCompromise,
        RevocationReason::CaCompromise => Reason::CaCompromise,
        RevocationReason::AffiliationChanged => Reason::AffiliationChanged,
        RevocationReason::Superseded => Reason::Superseded,
        RevocationReason::CessationOfOperation => Reason::CessationOfOperation,
        RevocationReason::PrivilegeWithdrawn => Reason::PrivilegeWithdrawn,
    })
}

/// Reads a list back: a wrong one would make receivers refuse everything, or nothing.
fn check_list(crl: &Crl, listed: &[(Vec<u8>, &Revocation)], anchor: &[u8]) -> Result<(), CaError> {
    let wrong = CaError::Profile;
    let Ok(([], list)) = CertificateRevocationList::from_der(&crl.der) else {
        return Err(wrong("the revocation list does not parse"));
    };
    let anchor = check::parse(anchor).ok_or(wrong("its issuer does not parse"))?;
    let number = list
        .crl_number()
        .and_then(|number| u64::try_from(number).ok());
    let next_update = list.next_update().map(|at| at.timestamp());
    let entries = list.iter_revoked_certificates().map(|entry| {
        let reason = entry.reason_code().map_or(0, |(_, reason)| reason.0);
        (
            entry.raw_serial().to_vec(),
            entry.revocation_date.timestamp(),
            reason,
        )
    });
    let expected = listed.iter().map(|(serial, revocation)| {
        (
            integer(serial),
            revocation.revoked_at.as_unix_seconds(),
            reason(revocation.reason).map_or(0, |reason| reason as u8),
        )
    });
    let checks = [
        (
            list.issuer().as_raw() == anchor.subject().as_raw(),
            "the revocation list's issuer",
        ),
        (
            check::authority_key_identifier(list.extensions())
                == check::subject_key_identifier(&anchor),
            "the revocation list's key identifier",
        ),
        (number == Some(crl.number), "the revocation list's number"),
        (
            list.last_update().timestamp() == crl.this_update.as_unix_seconds()
                && next_update == Some(crl.next_update.as_unix_seconds()),
            "the revocation list's times",
        ),
        (entries.eq(expected), "the revocation list's entries"),
        (
            list.verify_signature(anchor.public_key()).is_ok(),
            "the revocation list's signature",
        ),
    ];
    match checks.into_iter().find(|(right, _)| !right) {
        Some((_, what)) => Err(wrong(what)),
        None => Ok(()),
    }
}

/// The content of a DER INTEGER for a positive number: no needless zeros, one before a high bit.
fn integer(octets: &[u8]) -> Vec<u8> {
    let zeros = octets.iter().take_while(|octet| **octet == 0).count();
    let significant = &octets[zeros.min(octets.len() - 1)..];
    let sign = significant.first().is_some_and(|first| first & 0x80 != 0);
    [&[0][usize::from(!sign)..], significant].concat()
}
