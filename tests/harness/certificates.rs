//! A receiver's own side of TLS: a test CA and a server certificate for the loopback interface, made
//! with openssl as a receiver would.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::openssl::openssl_ok;

/// A CA and a certificate that it signed, by default a server's for `localhost` and `127.0.0.1`.
#[derive(Debug)]
pub struct TestCertificate {
    /// The CA, in PEM; also in `ca.pem` beside the certificate.
    pub ca_pem: String,
    /// File with the certificate, in PEM.
    pub certificate: PathBuf,
    /// File with its private key, in PEM.
    pub key: PathBuf,
}

const CONFIGURATION: &str = "
[req]
prompt = no
distinguished_name = name
[name]
CN = Test receiver CA
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = DNS:localhost, IP:127.0.0.1
[client]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
";

impl TestCertificate {
    /// Makes both in `folder`.
    ///
    /// # Panics
    /// When openssl does not.
    pub fn make(folder: &Path) -> Self {
        Self::make_for(folder, "server")
    }

    /// The same for a client, to try receivers with.
    ///
    /// # Panics
    /// When openssl does not.
    pub fn make_client(folder: &Path) -> Self {
        Self::make_for(folder, "client")
    }

    fn make_for(folder: &Path, purpose: &str) -> Self {
        let file = |name: &str| folder.join(name).display().to_string();
        let configuration = file("openssl.cnf");
        fs::write(&configuration, CONFIGURATION).expect("a configuration file");
        for key in ["ca.key", "leaf.key"] {
            openssl_ok(
                &[
                    "genpkey",
                    "-algorithm",
                    "EC",
                    "-pkeyopt",
                    "ec_paramgen_curve:P-256",
                    "-out",
                    &file(key),
                ],
                &[],
            );
        }
        openssl_ok(
            &[
                "req",
                "-x509",
                "-new",
                "-config",
                &configuration,
                "-extensions",
                "ca",
                "-key",
                &file("ca.key"),
                "-days",
                "30",
                "-out",
                &file("ca.pem"),
            ],
            &[],
        );
        openssl_ok(
            &[
                "req",
                "-new",
                "-config",
                &configuration,
                "-subj",
                "/CN=localhost",
                "-key",
                &file("leaf.key"),
                "-out",
                &file("leaf.csr"),
            ],
            &[],
        );
        openssl_ok(
            &[
                "x509",
                "-req",
                "-in",
                &file("leaf.csr"),
                "-CA",
                &file("ca.pem"),
                "-CAkey",
                &file("ca.key"),
                "-set_serial",
                "2",
                "-days",
                "30",
                "-extfile",
                &configuration,
                "-extensions",
                purpose,
                "-out",
                &file("leaf.pem"),
            ],
            &[],
        );
        Self {
            ca_pem: fs::read_to_string(file("ca.pem")).expect("the CA"),
            certificate: folder.join("leaf.pem"),
            key: folder.join("leaf.key"),
        }
    }
}
