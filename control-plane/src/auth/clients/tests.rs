use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use tempfile::TempDir;

use super::*;
use crate::model::{Role, Scope};

const BILLING: &str = "spiffe://bank.example/billing";

fn now() -> Timestamp {
    Timestamp::from_unix_seconds(1_700_000_000)
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    file: PathBuf,
}

impl Authority {
    fn new(folder: &TempDir, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut parameters = named(name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = parameters.self_signed(&key).unwrap();
        let file = folder.path().join(name);
        fs::write(&file, certificate.pem()).unwrap();
        Self {
            issuer: Issuer::new(parameters, key),
            file,
        }
    }

    fn client(&self, common_name: &str, uris: &[&str]) -> Vec<CertificateDer<'static>> {
        let mut parameters = named(common_name);
        let uris = uris
            .iter()
            .map(|uri| SanType::URI((*uri).try_into().unwrap()));
        parameters.subject_alt_names = uris.collect();
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        vec![
            parameters
                .signed_by(&key, &self.issuer)
                .unwrap()
                .der()
                .clone(),
        ]
    }

    fn rule(&self, identity: &str) -> ClientRule {
        ClientRule {
            ca_file: self.file.clone(),
            identity: identity.parse().unwrap(),
            roles: vec![Role::Sender],
            scope: Scope::Accounts(vec!["accounts/acme".parse().unwrap()]),
            calls_per_second: Some(2),
        }
    }
}

fn named(name: &str) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, name);
    let at = |seconds: i64| {
        let at = now().as_unix_seconds() + seconds;
        time::OffsetDateTime::from_unix_timestamp(at).unwrap()
    };
    (parameters.not_before, parameters.not_after) = (at(-60), at(60));
    parameters
}

#[test]
fn an_identity_counts_under_its_own_authority_only() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, others) = (
        Authority::new(&folder, "ours"),
        Authority::new(&folder, "others"),
    );
    let rules = [ours.rule(BILLING), others.rule("CN=robot-*")];
    let clients = Clients::load(&rules, 100).unwrap();
    assert_eq!(clients.authorities().len(), 2);
    let who = |chain: &[CertificateDer<'_>]| {
        let found = clients.identify(chain, now());
        found.map(|principal| principal.name.clone())
    };
    let name = format!("clients/{BILLING}");
    assert_eq!(who(&ours.client("x", &[BILLING])), Some(name));
    let robot = Some("clients/robot-7".to_owned());
    assert_eq!(who(&others.client("robot-7", &[])), robot);
    let nobody = [
        others.client("x", &[BILLING]),
        ours.client("robot-7", &[]),
        ours.client("x", &[BILLING, "spiffe://bank.example/other"]),
        ours.client("x", &["spiffe://bank.example/billing/more"]),
        others.client("robot-7/../x", &[]),
        others.client("robot-\n", &[]),
        others.client("no-robot-7", &[]),
        Vec::new(),
    ];
    for (number, chain) in nobody.iter().enumerate() {
        assert_eq!(who(chain), None, "{number}");
    }
}

#[test]
fn a_principal_ends_with_its_certificate_and_shares_its_rules_rate() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::new(&folder, "ours");
    let clients = Clients::load(&[ours.rule(BILLING)], 100).unwrap();
    let chain = ours.client("x", &[BILLING]);
    let connections = [(); 3].map(|()| clients.identify(&chain, now()).unwrap());
    let counted = connections.iter().filter(|it| it.count(now()).is_ok());
    assert_eq!(counted.count(), 2);
    let end = now().plus(Duration::from_secs(60));
    assert!(connections[0].is_valid(now()) && !connections[0].is_valid(end));
    let later = end.plus(Duration::from_secs(1));
    assert!(clients.identify(&chain, later).is_none());
    assert_eq!(connections[0].roles, [Role::Sender]);
    assert!(!connections[0].scope.covers("accounts/globex"));
}

#[test]
fn files_that_do_not_serve_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::new(&folder, "ours");
    let mut rule = ours.rule(BILLING);
    rule.ca_file = folder.path().join("missing.pem");
    for _ in 0..2 {
        let error = Clients::load(std::slice::from_ref(&rule), 1).err().unwrap();
        assert!(error.to_string().contains("missing.pem"), "{error}");
        fs::write(&rule.ca_file, "nothing").unwrap();
    }
}
