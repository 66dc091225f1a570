//! Settings of keys: each is in a file, in a token, or at a key service.

mod aws;
mod transit;

use std::time::Duration;

use countersign_shared::config::Reader;

use crate::model::{KekSource, RootImport, TokenKey, TokenPlace};

/// How long a process goes on without its KEK's provider unless something else is configured: a day.
const MAX_OUTAGE: Duration = Duration::from_secs(24 * 3600);

/// The settings of a key in a token.
const ROOT_TOKEN: [&str; 4] = [
    "certificates.root_token.module",
    "certificates.root_token.token",
    "certificates.root_token.key",
    "certificates.root_token.pin_file",
];

/// The settings of the token for authorities' keys.
const AUTHORITY_TOKEN: [&str; 3] = [
    "certificates.authority_token.module",
    "certificates.authority_token.token",
    "certificates.authority_token.pin_file",
];
const ROOT_CERTIFICATE: &str = "certificates.root_certificate_file";
const ROOT_KEY: &str = "certificates.root_key_file";

/// The settings of one KEK, wherever it is.
struct Names {
    file: &'static str,
    token: [&'static str; 4],
    transit: transit::Names,
    kms: [&'static str; 3],
    secret: [&'static str; 3],
}

macro_rules! names {
    ($table:literal) => {
        Names {
            file: concat!($table, ".file"),
            token: [
                concat!($table, ".token.module"),
                concat!($table, ".token.token"),
                concat!($table, ".token.key"),
                concat!($table, ".token.pin_file"),
            ],
            transit: transit::Names {
                address: concat!($table, ".vault.address"),
                ca_file: concat!($table, ".vault.ca_file"),
                namespace: concat!($table, ".vault.namespace"),
                mount: concat!($table, ".vault.mount"),
                key: concat!($table, ".vault.key"),
                token_file: concat!($table, ".vault.token_file"),
                approle: [
                    concat!($table, ".vault.approle.mount"),
                    concat!($table, ".vault.approle.role_id"),
                    concat!($table, ".vault.approle.secret_id_file"),
                ],
                kubernetes: [
                    concat!($table, ".vault.kubernetes.mount"),
                    concat!($table, ".vault.kubernetes.role"),
                    concat!($table, ".vault.kubernetes.token_file"),
                ],
            },
            kms: [
                concat!($table, ".aws_kms.key"),
                concat!($table, ".aws_kms.region"),
                concat!($table, ".aws_kms.endpoint"),
            ],
            secret: [
                concat!($table, ".aws_secrets_manager.secret"),
                concat!($table, ".aws_secrets_manager.region"),
                concat!($table, ".aws_secrets_manager.endpoint"),
            ],
        }
    };
}

const KEK: Names = names!("kek");
const PREVIOUS_KEK: Names = names!("kek.previous");

/// Where the KEK before is, while it is being replaced.
pub(super) fn kek_before(reader: &mut Reader, kek: Option<&KekSource>) -> Option<KekSource> {
    let before = source(reader, &PREVIOUS_KEK);
    if before.is_some() && before.as_ref() == kek {
        reader.mistake("kek.previous", "is the same as the present KEK");
    }
    before
}

/// Where the KEK is; `None`: at the default place.
pub(super) fn kek(reader: &mut Reader) -> Option<KekSource> {
    source(reader, &KEK)
}

/// For how long a process goes on with what it holds while its KEK's provider is away.
pub(super) fn max_outage(reader: &mut Reader) -> Duration {
    let given = reader.seconds("kek.max_outage_seconds", 5..=30 * 24 * 3600);
    given.unwrap_or(MAX_OUTAGE)
}

/// Where the internal root's key is, if it is in a token.
pub(super) fn root_token(reader: &mut Reader) -> Option<TokenKey> {
    token_key(reader, ROOT_TOKEN)
}

/// The token in which authorities' keys are made, if that is where they are.
pub(super) fn authority_token(reader: &mut Reader) -> Option<TokenPlace> {
    let [module, token, pin_file] = AUTHORITY_TOKEN;
    let given = (
        reader.path(module),
        reader.text(token),
        reader.path(pin_file),
    );
    if let (None, None, None) = given {
        return None;
    }
    let module = reader.required(module, given.0);
    let token = reader.required(token, given.1);
    let pin_file = reader.required(pin_file, given.2);
    Some(TokenPlace {
        module: module?,
        token: token?,
        pin_file: pin_file?,
    })
}

/// The certificate authority that becomes the internal root, if it is not made here. `in_token`: its key is in a
/// token.
pub(super) fn root_import(reader: &mut Reader, in_token: bool) -> Option<RootImport> {
    let (certificate, key) = (reader.path(ROOT_CERTIFICATE), reader.path(ROOT_KEY));
    match (certificate, key) {
        (None, None) => None,
        (None, Some(_)) => {
            reader.mistake(ROOT_KEY, format!("is of no use without {ROOT_CERTIFICATE}"));
            None
        }
        (Some(_), Some(_)) if in_token => {
            let problem =
                "says where the key is, and so does certificates.root_token: leave one of them";
            reader.mistake(ROOT_KEY, problem);
            None
        }
        (Some(_), None) if !in_token => {
            let problem = format!(
                "needs its key: in a file, {ROOT_KEY}, or in a token, certificates.root_token"
            );
            reader.mistake(ROOT_CERTIFICATE, problem);
            None
        }
        (Some(certificate_file), key_file) => Some(RootImport {
            certificate_file,
            key_file,
        }),
    }
}

fn source(reader: &mut Reader, names: &Names) -> Option<KekSource> {
    let places = [
        reader.path(names.file).map(KekSource::File),
        token_key(reader, names.token).map(KekSource::Token),
        transit::key(reader, &names.transit).map(KekSource::Transit),
        aws::name(reader, names.kms).map(KekSource::AwsKms),
        aws::name(reader, names.secret).map(KekSource::AwsSecret),
    ];
    let mut places = places.into_iter().flatten();
    let first = places.next();
    if let (Some(first), Some(second)) = (&first, places.next()) {
        let problem =
            format!("says two places, {first} and {second}: a key is in one, so leave one of them");
        let table = names.file.trim_end_matches(".file");
        reader.mistake(table, problem);
    }
    first
}

/// A key in a token: all of its settings or none.
fn token_key(
    reader: &mut Reader,
    [module, token, key, pin_file]: [&'static str; 4],
) -> Option<TokenKey> {
    let given = (
        reader.path(module),
        reader.text(token),
        reader.text(key),
        reader.path(pin_file),
    );
    if let (None, None, None, None) = given {
        return None;
    }
    let module = reader.required(module, given.0);
    let token = reader.required(token, given.1);
    let key = reader.required(key, given.2);
    let pin_file = reader.required(pin_file, given.3);
    Some(TokenKey {
        place: TokenPlace {
            module: module?,
            token: token?,
            pin_file: pin_file?,
        },
        key: key?,
    })
}

/// A URL of a service: with TLS, or on this host, and with nothing after the port.
fn service_url(reader: &mut Reader, setting: &'static str) -> Option<String> {
    let text = reader.text(setting)?;
    let problem = match url::Url::parse(&text) {
        Err(error) => format!("'{text}' is not a URL: {error}"),
        Ok(url) if !is_safe(&url) => {
            format!("'{text}' must begin with https:// unless the service is on this host")
        }
        Ok(url) if !is_bare(&url) => {
            format!("'{text}' must be a scheme, a host and a port, and nothing more")
        }
        Ok(_) => return Some(text.trim_end_matches('/').to_owned()),
    };
    reader.mistake(setting, problem);
    None
}

fn is_safe(url: &url::Url) -> bool {
    let here = match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    };
    url.scheme() == "https" && url.has_host() || url.scheme() == "http" && here
}

fn is_bare(url: &url::Url) -> bool {
    let nothing_more = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    nothing_more && url.username().is_empty() && url.password().is_none()
}

#[cfg(test)]
mod tests {
    use toml::Value;

    use super::*;
    use crate::{
        config::Config,
        model::{AwsName, TransitLogin},
    };

    fn read(text: &str) -> Result<Config, String> {
        let data_dir = vec![("data_dir", Value::String("/d".to_owned()))];
        Config::read("c.toml", text, data_dir).map_err(|mistakes| mistakes.to_string())
    }

    const TRANSIT: &str = "
        [kek.vault]
        address = 'https://vault.bank.example:8200/'
        key = 'countersign'
    ";

    #[test]
    fn a_transit_key_needs_exactly_one_way_to_log_in() {
        let token = "token_file = '/run/token'\n";
        let approle =
            "approle = { role_id = 'e3b0', secret_id_file = '/etc/countersign/secret-id' }\n";
        let kubernetes = "kubernetes = { role = 'countersign' }\n";
        let login = |text: &str| match read(&format!("{TRANSIT}{text}")).unwrap().kek {
            KekSource::Transit(key) => {
                assert_eq!(key.address, "https://vault.bank.example:8200");
                assert_eq!(key.mount, "transit");
                key.login
            }
            other => panic!("{other}"),
        };
        assert_eq!(login(token), TransitLogin::TokenFile("/run/token".into()));
        assert!(
            matches!(login(approle), TransitLogin::AppRole { mount, .. } if mount == "approle")
        );
        assert!(
            matches!(login(kubernetes), TransitLogin::Kubernetes { token_file, .. }
                if token_file.starts_with("/var/run/secrets"))
        );
        let none = read(TRANSIT).unwrap_err();
        assert!(none.contains("kek.vault: needs"), "{none}");
        let two = read(&format!("{TRANSIT}{token}{kubernetes}")).unwrap_err();
        assert!(two.contains("says two ways"), "{two}");
        let part = read(&format!("{TRANSIT}approle = {{ role_id = 'e3b0' }}")).unwrap_err();
        assert!(
            part.contains("kek.vault.approle.secret_id_file: is required"),
            "{part}"
        );
    }

    #[test]
    fn services_are_spoken_to_with_tls_or_on_this_host() {
        let address = |url: &str| {
            let text = format!("[kek.vault]\naddress = '{url}'\nkey = 'k'\ntoken_file = '/t'\n");
            read(&text)
        };
        for good in [
            "http://127.0.0.1:8200",
            "http://localhost:8200",
            "http://[::1]:1",
            "https://v",
        ] {
            assert!(address(good).is_ok(), "{good}");
        }
        for bad in [
            "http://vault.bank.example:8200",
            "ftp://127.0.0.1",
            "vault:8200",
            "https://v/v1",
            "https://user:password@v",
            "https://v/?a",
            "",
        ] {
            let refused = address(bad).unwrap_err();
            assert!(refused.contains("kek.vault.address"), "{refused}");
        }
        // Also for a key or mount, which become parts of a path.
        for bad in ["a/b", "..", "", "a b", "%2e"] {
            let refused = read(&TRANSIT.replace("'countersign'", &format!("'{bad}'")));
            assert!(refused.unwrap_err().contains("kek.vault.key"), "{bad}");
        }
    }

    #[test]
    fn keys_at_aws_have_a_name_and_maybe_a_region() {
        let kms = read("kek.aws_kms = { key = 'alias/countersign', region = 'eu-central-1' }");
        let expected = AwsName {
            name: "alias/countersign".to_owned(),
            region: Some("eu-central-1".to_owned()),
            endpoint: None,
        };
        assert_eq!(kms.unwrap().kek, KekSource::AwsKms(expected));
        let secret = read("kek.previous.aws_secrets_manager.secret = 'countersign/kek'").unwrap();
        assert!(matches!(secret.previous_kek, Some(KekSource::AwsSecret(_))));
        let nameless = read("kek.aws_kms.region = 'eu-central-1'").unwrap_err();
        assert!(
            nameless.contains("kek.aws_kms.key: is required"),
            "{nameless}"
        );
    }

    #[test]
    fn a_kek_is_in_one_place() {
        let both = read(
            "kek.file = '/kek'\n[kek.vault]\naddress = 'https://v'\nkey = 'k'\ntoken_file = '/t'",
        );
        let both = both.unwrap_err();
        assert!(both.contains("kek: says two places"), "{both}");
        let same = read("kek.file = '/kek'\nkek.previous.file = '/kek'").unwrap_err();
        assert!(same.contains("the same as the present KEK"), "{same}");
        assert_eq!(read("").unwrap().max_outage, Duration::from_secs(86_400));
    }
}
