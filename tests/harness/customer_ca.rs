//! A receiver's own CA, kept with openssl as its people keep it: a root that is installed at their
//! servers, and an intermediate that signs requests.

use std::{fs, path::PathBuf};

use crate::openssl::openssl_ok;

/// The CA and its files.
pub struct CustomerCa {
    folder: PathBuf,
}

/// What a request is made into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// A TLS client's certificate.
    Client,
    /// A TLS server's certificate.
    Server,
    /// An authority's certificate.
    Authority,
}

impl Profile {
    const fn section(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Authority => "intermediate",
        }
    }
}

const CONFIGURATION: &str = "
[req]
prompt = no
distinguished_name = name
[name]
CN = Customer
[root]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[intermediate]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[client]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[ca]
default_ca = dated
[dated]
database = $ENV::CUSTOMER_CA/index.txt
new_certs_dir = $ENV::CUSTOMER_CA
rand_serial = yes
unique_subject = no
default_md = sha256
policy = any
x509_extensions = client
[any]
commonName = supplied
";

impl CustomerCa {
    /// Makes one with its files in `folder`.
    ///
    /// # Panics
    /// When openssl does not.
    pub fn make(folder: PathBuf) -> Self {
        let ca = Self { folder };
        let configuration = CONFIGURATION.replace("$ENV::CUSTOMER_CA", &ca.file(""));
        fs::write(ca.file("openssl.cnf"), configuration).expect("a configuration file");
        fs::write(ca.file("index.txt"), "").expect("a database");
        for name in ["root", "intermediate"] {
            let (key, request) = (ca.file(&format!("{name}.key")), ca.request_file(name));
            let curve = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
            openssl_ok(&[&["genpkey", "-out", &key], &curve[..]].concat(), &[]);
            let subject = format!("/O=Customer/CN=Customer {name} CA");
            let config = ca.file("openssl.cnf");
            let make = ["req", "-new", "-config", &config, "-subj", &subject];
            openssl_ok(
                &[&make[..], &["-key", &key, "-out", &request]].concat(),
                &[],
            );
        }
        let (config, key) = (ca.file("openssl.cnf"), ca.file("root.key"));
        let (request, root) = (ca.request_file("root"), ca.certificate_file("root"));
        let make = ["x509", "-req", "-in", &request, "-signkey", &key];
        let extensions = ["-extfile", &config, "-extensions", "root"];
        let rest = ["-days", "3650", "-out", &root];
        openssl_ok(&[&make[..], &extensions, &rest].concat(), &[]);
        let request = fs::read_to_string(ca.request_file("intermediate")).expect("a request");
        let signed = ca.signed_by("root", &request, Profile::Authority);
        fs::write(ca.certificate_file("intermediate"), signed).expect("a certificate");
        ca
    }

    /// The root, in PEM: what the customer's servers trust.
    pub fn root(&self) -> String {
        fs::read_to_string(self.certificate_file("root")).expect("the root")
    }

    /// The intermediate, in PEM.
    pub fn intermediate(&self) -> String {
        fs::read_to_string(self.certificate_file("intermediate")).expect("the intermediate")
    }

    /// What the intermediate makes of a request in PEM: valid from now on, for 30 days.
    pub fn sign(&self, request: &str, profile: Profile) -> String {
        self.signed_by("intermediate", request, profile)
    }

    /// A client certificate that is valid between two years.
    pub fn sign_between(&self, request: &str, first: u32, last: u32) -> String {
        let (config, out) = (self.file("openssl.cnf"), self.file("dated.pem"));
        let (start, end) = (format!("{first}0101000000Z"), format!("{last}0101000000Z"));
        fs::write(self.file("dated.csr"), request).expect("a request");
        let (request, key) = (self.file("dated.csr"), self.file("intermediate.key"));
        let signer = self.certificate_file("intermediate");
        let make = [
            "ca", "-batch", "-notext", "-config", &config, "-in", &request,
        ];
        let by = ["-cert", &signer, "-keyfile", &key];
        let dates = ["-startdate", &start, "-enddate", &end, "-out", &out];
        openssl_ok(&[&make[..], &by, &dates].concat(), &[]);
        fs::read_to_string(out).expect("a certificate")
    }

    /// A request of the customer's own, with a key that nobody else has.
    pub fn other_request(&self) -> String {
        fs::read_to_string(self.request_file("root")).expect("a request")
    }

    fn signed_by(&self, signer: &str, request: &str, profile: Profile) -> String {
        let (config, certificate) = (self.file("openssl.cnf"), self.certificate_file(signer));
        let key = self.file(&format!("{signer}.key"));
        let make = ["x509", "-req", "-CA", &certificate, "-CAkey", &key];
        let extensions = ["-extfile", &config, "-extensions", profile.section()];
        let rest = ["-CAcreateserial", "-days", "30"];
        openssl_ok(
            &[&make[..], &extensions, &rest].concat(),
            request.as_bytes(),
        )
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn request_file(&self, name: &str) -> String {
        self.file(&format!("{name}.csr"))
    }

    fn certificate_file(&self, name: &str) -> String {
        self.file(&format!("{name}.pem"))
    }
}
