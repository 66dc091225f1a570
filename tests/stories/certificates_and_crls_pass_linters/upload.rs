//! A receiver's own CA: our signing request, and what becomes of it.

use std::fs;

use countersign_control_plane::ca::{UploadError, check_upload};
use countersign_shared::time::{Clock as _, SystemClock};
use countersign_tests::{
    certificates::TestCertificate,
    folder::Folder,
    issued::Issued,
    openssl::{openssl, openssl_ok},
};

use super::text;

/// What a receiver's OpenSSL writes into the certificate.
const SIGNED_WITH: &str = "
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
";

#[test]
fn what_a_receivers_openssl_signs_of_our_request_is_taken() {
    let folder = Folder::new("upload");
    let issued = Issued::everything(&folder);
    let request = text(issued.request.clone());
    let printed = openssl_ok(&["req", "-noout", "-text", "-in", &request], &[]);
    for part in [
        "Subject: CN = countersign-delivery.acme",
        "URI:spiffe://bank.internal/account/acme/destination/orders",
        "TLS Web Client Authentication",
        "Digital Signature",
        "ASN1 OID: secp384r1",
    ] {
        assert!(printed.contains(part), "no '{part}' in:\n{printed}");
    }
    let said = openssl(&["req", "-noout", "-verify", "-in", &request], &[]);
    let said = said.stdout + &said.stderr;
    assert!(said.contains("verify OK"), "{said}");

    let receiver = TestCertificate::make(&folder);
    let extensions = folder.join("signed-with.cnf");
    fs::write(&extensions, SIGNED_WITH).unwrap();
    let file = |name: &str| text(folder.join(name));
    let (ca, key, with) = (file("ca.pem"), file("ca.key"), text(extensions));
    let sign = [
        "x509",
        "-req",
        "-days",
        "30",
        "-set_serial",
        "77",
        "-in",
        &request,
    ];
    let by = ["-CA", &ca, "-CAkey", &key, "-extfile", &with];
    let leaf = openssl_ok(&[&sign[..], &by].concat(), &[]);
    let now = SystemClock.now();
    let uploaded = check_upload(
        &(leaf.clone() + &receiver.ca_pem),
        &[issued.requested_key],
        now,
    );
    let uploaded = uploaded.unwrap();
    assert_eq!((uploaded.serial.as_str(), uploaded.chain.len()), ("4d", 0));
    let other = check_upload(&leaf, &[[0; 32]], now);
    assert!(
        matches!(other, Err(UploadError::UnknownKey { .. })),
        "{other:?}"
    );
}
