//! TLS alerts: found in the errors that the TLS library wraps, and named as the RFCs name them.

use std::io;

use countersign_shared::outcome::Alert;
use rustls::AlertDescription;

/// The TLS error inside an I/O error. `source()` does not reach it through nested I/O errors,
/// `get_ref()` does.
pub(super) fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    let mut error = error;
    // Nested at most a few deep.
    for _ in 0..8 {
        let inner = error.get_ref()?;
        if let Some(found) = inner.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        error = inner.downcast_ref::<io::Error>()?;
    }
    None
}

/// The alert that the other side sent, if `error` says that it sent one.
pub(super) fn alert_in(error: &io::Error) -> Option<Alert> {
    match tls_error(error)? {
        rustls::Error::AlertReceived(description) => Some(alert(*description)),
        _ => None,
    }
}

/// Number and name of an alert.
pub(super) fn alert(description: AlertDescription) -> Alert {
    let number = u8::from(description);
    Alert {
        number,
        name: name(number).to_owned(),
    }
}

/// The name of an alert (RFC 8446 section 6, and RFC 5246 section 7.2 for older ones).
fn name(number: u8) -> &'static str {
    match number {
        0 => "close_notify",
        10 => "unexpected_message",
        20 => "bad_record_mac",
        21 => "decryption_failed_RESERVED",
        22 => "record_overflow",
        30 => "decompression_failure",
        40 => "handshake_failure",
        41 => "no_certificate_RESERVED",
        42 => "bad_certificate",
        43 => "unsupported_certificate",
        44 => "certificate_revoked",
        45 => "certificate_expired",
        46 => "certificate_unknown",
        47 => "illegal_parameter",
        48 => "unknown_ca",
        49 => "access_denied",
        50 => "decode_error",
        51 => "decrypt_error",
        60 => "export_restriction_RESERVED",
        70 => "protocol_version",
        71 => "insufficient_security",
        80 => "internal_error",
        86 => "inappropriate_fallback",
        90 => "user_canceled",
        100 => "no_renegotiation",
        109 => "missing_extension",
        110 => "unsupported_extension",
        111 => "certificate_unobtainable",
        112 => "unrecognized_name",
        113 => "bad_certificate_status_response",
        114 => "bad_certificate_hash_value",
        115 => "unknown_psk_identity",
        116 => "certificate_required",
        120 => "no_application_protocol",
        121 => "ech_required",
        _ => "unassigned",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_is_found_however_deep_it_is_wrapped() {
        let bare = rustls::Error::AlertReceived(AlertDescription::UnknownCA);
        let wrapped = io::Error::new(io::ErrorKind::InvalidData, bare);
        let twice = io::Error::other(wrapped);
        let found = alert_in(&twice).unwrap();
        assert_eq!((found.number, found.name.as_str()), (48, "unknown_ca"));
        assert_eq!(alert_in(&io::Error::other("no")), None);
        assert_eq!(alert_in(&io::Error::from(io::ErrorKind::BrokenPipe)), None);
    }
}
