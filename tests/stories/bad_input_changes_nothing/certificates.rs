//! Certificates and authorities: names that name nothing, what is not there, enums and versions that do
//! not exist, operations at the wrong time.

use serde_json::{Value, json};

use super::{MISSING, stage};

const LISTS: [(&str, &str); 3] = [
    ("ListCertificateAuthorities", "accounts/acme"),
    (
        "ListClientCertificates",
        "accounts/acme/destinations/orders",
    ),
    ("ListDestinationTrust", "accounts/acme"),
];

/// Methods whose `parent` is an account or `shared`.
const OF_AUTHORITIES: [&str; 7] = [
    "GetTrustBundle",
    "GetCertificateAuthorityRotation",
    "RotateCertificateAuthority",
    "AdvanceRotation",
    "AbortRotation",
    "ListCertificateAuthorities",
    "ListDestinationTrust",
];

/// Methods whose `parent` is a destination.
const OF_DESTINATIONS: [&str; 4] = [
    "RotateClientCertificate",
    "GetCertificateSigningRequest",
    "UploadClientCertificate",
    "ListClientCertificates",
];

fn method(name: &str) -> String {
    format!("CertificateService/{name}")
}

/// Refusals for `stage.refused`, which takes borrowed names.
fn refused(story: &str, calls: &[(String, Value, &str, &str)]) {
    let borrowed: Vec<_> = calls
        .iter()
        .map(|(method, request, code, field)| (method.as_str(), request.clone(), *code, *field))
        .collect();
    stage(story).refused(&borrowed);
}

#[test]
fn names_of_certificates_and_authorities() {
    let mut calls = Vec::new();
    for parent in [
        "",
        "acme",
        "accounts/",
        "accounts/Acme",
        "accounts/acme/x",
        "Shared",
        "shared/1",
    ] {
        for name in OF_AUTHORITIES {
            let request = json!({"parent": parent});
            calls.push((method(name), request, "INVALID_ARGUMENT", "parent"));
        }
    }
    for parent in ["", "accounts/acme", "accounts/acme/destinations/", "orders"] {
        for name in OF_DESTINATIONS {
            let request = json!({"parent": parent});
            calls.push((method(name), request, "INVALID_ARGUMENT", "parent"));
        }
    }
    for number in ["", "-1", "x", "1/2", "99999999999"] {
        let certificate = format!("accounts/acme/destinations/orders/clientCertificates/{number}");
        for name in ["GetClientCertificate", "RevokeClientCertificate"] {
            let request = json!({"name": certificate});
            calls.push((method(name), request, "INVALID_ARGUMENT", "name"));
        }
        for owner in ["accounts/acme/", ""] {
            let authority = format!("{owner}certificateAuthorities/{number}");
            for name in [
                "GetCertificateAuthority",
                "RevokeCertificateAuthority",
                "GetCertificateRevocationList",
            ] {
                let request = json!({"name": authority});
                calls.push((method(name), request, "INVALID_ARGUMENT", "name"));
            }
        }
    }
    refused("bad-certificate-names", &calls);
}

#[test]
fn certificates_and_authorities_that_are_not_there() {
    let mut calls = Vec::new();
    for name in OF_AUTHORITIES {
        let request = json!({"parent": "accounts/nobody"});
        calls.push((method(name), request, "NOT_FOUND", ""));
    }
    for name in OF_DESTINATIONS {
        let request = json!({"parent": MISSING});
        calls.push((method(name), request, "NOT_FOUND", ""));
    }
    let orders = "accounts/acme/destinations/orders";
    for (parent, version) in [(MISSING, 1), (orders, 99), (orders, 0)] {
        let certificate = format!("{parent}/clientCertificates/{version}");
        for name in ["GetClientCertificate", "RevokeClientCertificate"] {
            let request = json!({"name": certificate});
            calls.push((method(name), request, "NOT_FOUND", ""));
        }
    }
    for owner in ["accounts/acme/", "accounts/nobody/", ""] {
        for name in [
            "GetCertificateAuthority",
            "RevokeCertificateAuthority",
            "GetCertificateRevocationList",
        ] {
            let request = json!({"name": format!("{owner}certificateAuthorities/99")});
            calls.push((method(name), request, "NOT_FOUND", ""));
        }
    }
    let trust = json!({"destination": MISSING, "state": "TRUST_STATE_EXEMPT"});
    calls.push((method("SetDestinationTrust"), trust, "NOT_FOUND", ""));
    let probe = "DestinationService/ProbeDestination".to_owned();
    calls.push((probe, json!({"name": MISSING}), "NOT_FOUND", ""));
    refused("bad-certificates", &calls);
}

#[test]
fn values_and_moments() {
    let orders = "accounts/acme/destinations/orders";
    let mut calls = Vec::new();
    for (name, parent) in LISTS {
        let token = json!({"parent": parent, "page_token": "made up"});
        calls.push((method(name), token, "INVALID_ARGUMENT", "page_token"));
        let size = json!({"parent": parent, "page_size": -1});
        calls.push((method(name), size, "INVALID_ARGUMENT", "page_size"));
    }
    let certificate = format!("{orders}/clientCertificates/1");
    let reason = json!({"name": certificate, "reason": 99});
    calls.push((
        method("RevokeClientCertificate"),
        reason,
        "INVALID_ARGUMENT",
        "reason",
    ));
    for state in [0, 2, 3, 99] {
        let trust = json!({"destination": orders, "state": state});
        calls.push((
            method("SetDestinationTrust"),
            trust,
            "INVALID_ARGUMENT",
            "state",
        ));
    }
    let probe = |field: &str, value: i32| json!({"name": orders, field: value});
    for (field, value) in [("presentation", 99), ("client_certificate_version", -1)] {
        let name = "DestinationService/ProbeDestination".to_owned();
        calls.push((name, probe(field, value), "INVALID_ARGUMENT", field));
    }
    let too_soon = "FAILED_PRECONDITION";
    // Nothing is under way, and there is no agent that could probe.
    for name in ["AdvanceRotation", "AbortRotation"] {
        for parent in ["accounts/acme", "shared"] {
            calls.push((method(name), json!({"parent": parent}), too_soon, ""));
        }
    }
    let request = json!({"parent": orders});
    calls.push((
        method("GetCertificateSigningRequest"),
        request,
        too_soon,
        "",
    ));
    let upload = json!({"parent": orders, "certificate_pem": "x"});
    calls.push((method("UploadClientCertificate"), upload, too_soon, ""));
    for (field, value) in [("presentation", 0), ("client_certificate_version", 9)] {
        let name = "DestinationService/ProbeDestination".to_owned();
        calls.push((name, probe(field, value), too_soon, ""));
    }
    refused("bad-moments", &calls);
}
