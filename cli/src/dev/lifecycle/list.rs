//! A revocation list (RFC 5280 section 5), read for people.

use countersign_proto::v1;
use countersign_shared::{digest::hex, wire};
use rustls_pki_types::CertificateRevocationListDer;
use x509_parser::prelude::{CertificateRevocationList, FromDer as _};

use crate::dev::{failure::Failure, timeline::Entry};

/// Serial numbers on a list, in lower-case hexadecimal without leading zeros; `None` when it is no
/// list.
fn serials(der: &[u8]) -> Option<Vec<String>> {
    let (_, list) = CertificateRevocationList::from_der(der).ok()?;
    let revoked = list.iter_revoked_certificates();
    Some(revoked.map(|it| plain(&hex(it.raw_serial()))).collect())
}

/// A sign bit may add an octet (X.690 section 8.3), and people leave zeros out.
fn plain(serial: &str) -> String {
    serial.trim_start_matches('0').to_owned()
}

/// Whether `serial` is on a list.
///
/// # Errors
/// [`Failure::Unreadable`].
pub(super) fn has(
    list: &v1::GetCertificateRevocationListResponse,
    serial: &str,
) -> Result<bool, Failure> {
    let serials = serials(&list.crl).ok_or(Failure::Unreadable("a revocation list"))?;
    Ok(serials.contains(&plain(serial)))
}

/// What a list says, and whether `serial` is on it.
///
/// # Errors
/// [`Failure::Unreadable`]; [`Failure::Disagreement`] when it is not.
pub(super) fn told(
    list: &v1::GetCertificateRevocationListResponse,
    serial: &str,
) -> Result<Entry, Failure> {
    let serials = serials(&list.crl).ok_or(Failure::Unreadable("a revocation list"))?;
    if !serials.contains(&plain(serial)) {
        let what = format!("the revocation list {} has not {serial} on it", list.number);
        return Err(Failure::Disagreement(what));
    }
    let until = list.next_update_time.map(wire::timestamp_from_wire);
    Ok(
        Entry::new("The revocation list that receivers fetch has it")
            .fact("number of the list", list.number.to_string())
            .fact("certificates on it", serials.len().to_string())
            .fact(
                "good until",
                until.map_or_else(String::new, |at| at.to_string()),
            ),
    )
}

/// The list for a receiver to load.
pub(super) fn loadable(
    list: &v1::GetCertificateRevocationListResponse,
) -> CertificateRevocationListDer<'static> {
    CertificateRevocationListDer::from(list.crl.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_list_is_said() {
        let list = v1::GetCertificateRevocationListResponse::default();
        let error = told(&list, "0a").unwrap_err().to_string();
        assert!(error.contains("a revocation list"), "{error}");
        assert_eq!(plain("00ab"), "ab");
    }
}
