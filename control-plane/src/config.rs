//! Configuration: a TOML file and flags, read once; every mistake is reported at once.

mod keys;
mod store;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use countersign_shared::{
    config::{Mistakes, Reader},
    logging::{self, LogFormat},
    name::{AccountName, DestinationName},
};
use toml::Value;

pub use self::store::{PostgresSource, StoreSource};
use crate::model::{
    ClientRule, KekSource, KeyAlgorithm, Role, RootImport, Scope, TokenKey, TokenPlace,
};

/// Life of a client certificate unless something else is configured: 90 days.
const CLIENT_LIFE: Duration = Duration::from_secs(90 * 24 * 3600);
/// How long the one before is kept unless something else is configured: a day.
const CLIENT_GRACE: Duration = Duration::from_secs(24 * 3600);

/// Calls a second of one principal unless something else is configured: a bound for one that runs wild,
/// over twice of what two cores accept.
const CALLS_PER_SECOND: u32 = 50_000;

/// Largest payload that an installation can be configured to take.
pub const MAX_PAYLOAD_BYTES: u64 = 16 * 1024 * 1024;

/// Longest delivery domain: with two ids of 63 characters and `delivery` before it, a DNS name has at
/// most 253 characters (RFC 1035 section 2.3.4).
pub const MAX_DELIVERY_DOMAIN: usize = 116;

/// Everything that the control plane is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where store, KEK and CA file are.
    pub data_dir: PathBuf,
    /// Where the store is.
    pub store: StoreSource,
    /// Host part of the `spiffe://` URIs in certificates.
    pub trust_domain: String,
    /// End of the DNS names in client certificates of the shared authority:
    /// `<destination>.<account>.delivery.<delivery domain>`.
    pub delivery_domain: String,
    /// Addresses to listen at.
    pub listen: Listen,
    /// DNS names and IP addresses of the server certificate.
    pub server_names: Vec<String>,
    /// Where the KEK is.
    pub kek: KekSource,
    /// Where the one before is, while it is being replaced.
    pub previous_kek: Option<KekSource>,
    /// For how long it goes on with what it holds while the KEK's provider is away.
    pub max_outage: Duration,
    /// The kind of key that the internal root gets at the first start.
    pub root_key: KeyAlgorithm,
    /// Where the internal root's key is, if it is in a token.
    pub root_token: Option<TokenKey>,
    /// The existing authority that becomes the internal root at the first start, if it is not made here.
    pub root_import: Option<RootImport>,
    /// The token in which the keys of accounts' authorities, and of the shared one, are made; `None`: they are
    /// made here and kept sealed in the store.
    pub authority_token: Option<TokenPlace>,
    /// How long client certificates of ours are valid.
    pub client_life: Duration,
    /// How long the client certificate before is kept after it was replaced.
    pub client_grace: Duration,
    /// How long a lease lasts.
    pub lease: Duration,
    /// Largest payload in bytes.
    pub max_payload_bytes: usize,
    /// How much may be accepted and not settled.
    pub backlog: BacklogBounds,
    /// How often both ends of an agent's session send a sign of life.
    pub heartbeat: Duration,
    /// Within which time an agent reconnects after a first failure.
    pub reconnect_window: Duration,
    /// How long settled deliveries are kept.
    pub keep: Keep,
    /// Where alerts are delivered as webhooks; `None`: nowhere.
    pub alerts_destination: Option<DestinationName>,
    /// Limits on who calls the API.
    pub access: Access,
    /// How log lines are written.
    pub log_format: LogFormat,
    /// Which log lines are written.
    pub log_filter: String,
    /// How long a graceful stop may take.
    pub shutdown_deadline: Duration,
}

/// How much may be accepted and not settled. Beyond it nothing more is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BacklogBounds {
    /// Of each destination.
    pub destination: Bound,
    /// Of each account.
    pub account: Bound,
    /// Of all accounts together.
    pub installation: Bound,
}

/// A bound on deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// How many.
    pub deliveries: u64,
    /// How many bytes their payloads may have.
    pub bytes: u64,
}

/// How long things are kept, counted from when a delivery was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Payloads of settled deliveries.
    pub payloads: Duration,
    /// Settled deliveries and their attempts.
    pub deliveries: Duration,
}

/// Who calls the API, besides API keys, and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Calls a second that a principal may make, unless its key says otherwise.
    pub calls_per_second: u32,
    /// After so many wrong keys in a minute an address is refused for a minute.
    pub failed_attempts_per_minute: u32,
    /// Client certificates that are let in; the first that fits counts.
    pub clients: Vec<ClientRule>,
}

/// Addresses to listen at; port 0 is any free one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen {
    /// The API.
    pub api: SocketAddr,
    /// For agents.
    pub agents: SocketAddr,
    /// Metrics, health, trust bundles.
    pub http: SocketAddr,
}

impl Config {
    /// Reads `text`, which came from `source`; `flags` replace settings of the file.
    ///
    /// # Errors
    /// [`Mistakes`]: all of them.
    pub fn read(
        source: &str,
        text: &str,
        flags: Vec<(&'static str, Value)>,
    ) -> Result<Self, Mistakes> {
        let mut reader = Reader::new(source, text, flags);
        let data_dir = reader.path("data_dir");
        let data_dir = reader.required("data_dir", data_dir);
        let trust_domain = trust_domain(&mut reader);
        let delivery_domain = delivery_domain(&mut reader, &trust_domain);
        let listen = Listen {
            api: listen_address(&mut reader, "listen.api", 8443),
            agents: listen_address(&mut reader, "listen.agents", 8444),
            http: listen_address(&mut reader, "listen.http", 8445),
        };
        let server_names = server_names(&mut reader);
        let store = store::store(&mut reader);
        let kek = keys::kek(&mut reader);
        let previous_kek = keys::kek_before(&mut reader, kek.as_ref());
        let max_outage = keys::max_outage(&mut reader);
        let lease = reader.seconds("delivery.lease_seconds", 2..=3600);
        let max_payload = reader.number("delivery.max_payload_bytes", 1..=MAX_PAYLOAD_BYTES);
        let backlog = backlog(&mut reader);
        let heartbeat = reader.seconds("agents.heartbeat_seconds", 1..=300);
        let window = reader.number("agents.reconnect_window_ms", 10..=600_000);
        let keep = keep(&mut reader);
        let root_key = root_key(&mut reader);
        let root_token = keys::root_token(&mut reader);
        let root_import = keys::root_import(&mut reader, root_token.is_some());
        let authority_token = keys::authority_token(&mut reader);
        let (client_life, client_grace) = client_certificates(&mut reader);
        let alerts_destination = reader.parsed("alerts.destination");
        let access = access(&mut reader);
        let log_format = reader.parsed("log.format").unwrap_or_default();
        let log_filter = log_filter(&mut reader);
        let deadline = reader.seconds("shutdown.deadline_seconds", 1..=600);
        reader.finish(|| {
            let data_dir = data_dir?;
            Some(Self {
                store,
                previous_kek,
                max_outage,
                kek: kek.unwrap_or_else(|| KekSource::File(data_dir.join("kek"))),
                data_dir,
                trust_domain,
                delivery_domain,
                root_key,
                root_token,
                root_import,
                authority_token,
                client_life,
                client_grace,
                listen,
                server_names,
                lease: lease.unwrap_or(Duration::from_secs(90)),
                max_payload_bytes: max_payload
                    .and_then(|bytes| usize::try_from(bytes).ok())
                    .unwrap_or(1024 * 1024),
                backlog,
                heartbeat: heartbeat.unwrap_or(Duration::from_secs(10)),
                reconnect_window: Duration::from_millis(window.unwrap_or(1000)),
                keep,
                alerts_destination,
                access,
                log_format,
                log_filter,
                shutdown_deadline: deadline.unwrap_or(Duration::from_secs(10)),
            })
        })
    }
}

fn listen_address(reader: &mut Reader, setting: &'static str, port: u16) -> SocketAddr {
    let default = SocketAddr::from(([127, 0, 0, 1], port));
    reader.listen_address(setting).unwrap_or(default)
}

fn trust_domain(reader: &mut Reader) -> String {
    let name = reader.text("trust_domain");
    let name = name.unwrap_or_else(|| "countersign.internal".to_owned());
    if !is_trust_domain(&name) {
        let problem =
            format!("'{name}' is not a trust domain: use 1 to 200 of a-z, 0-9, '.', '-' and '_'");
        reader.mistake("trust_domain", problem);
    }
    name
}

/// The characters of a SPIFFE trust domain name (SPIFFE-ID section 2.1).
fn is_trust_domain(name: &str) -> bool {
    let allowed = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_')
    };
    (1..=200).contains(&name.len()) && name.bytes().all(allowed)
}

fn delivery_domain(reader: &mut Reader, trust_domain: &str) -> String {
    let given = reader.text("delivery_domain");
    let default = given.is_none();
    let name = given.unwrap_or_else(|| trust_domain.to_owned());
    // A wrong trust domain is one mistake, not two.
    if is_delivery_domain(&name) || default && !is_trust_domain(&name) {
        return name;
    }
    let problem = if default {
        format!("needs a DNS name, because the trust domain '{name}' does not serve as one")
    } else {
        format!(
            "'{name}' is not a DNS name for certificates: use labels of a-z, 0-9 and '-' with dots \
             between, at most {MAX_DELIVERY_DOMAIN} characters"
        )
    };
    reader.mistake("delivery_domain", problem);
    name
}

/// The preferred syntax of DNS names in lower case (RFC 1034 section 3.5), which certificates ask for.
fn is_delivery_domain(name: &str) -> bool {
    let label = |label: &str| {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        (1..=63).contains(&label.len())
            && label.bytes().all(allowed)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= MAX_DELIVERY_DOMAIN && name.split('.').all(label)
}

fn server_names(reader: &mut Reader) -> Vec<String> {
    let default = || {
        ["localhost", "127.0.0.1", "::1"]
            .map(str::to_owned)
            .to_vec()
    };
    let names = reader.texts("server.names").unwrap_or_else(default);
    if names.is_empty() {
        reader.mistake("server.names", "needs at least one name");
    }
    for name in &names {
        let is_address = name.parse::<std::net::IpAddr>().is_ok();
        let is_name = rustls_pki_types::DnsName::try_from(name.as_str()).is_ok();
        if !is_address && !is_name {
            let problem = format!("'{name}' is neither a DNS name nor an IP address");
            reader.mistake("server.names", problem);
        }
    }
    names
}

/// The kind of key that the internal root gets at the first start; later it is what it is.
fn root_key(reader: &mut Reader) -> KeyAlgorithm {
    const SETTING: &str = "certificates.root_key";
    match reader.text(SETTING).as_deref() {
        None | Some("P-256") => KeyAlgorithm::EcdsaP256,
        Some("P-384") => KeyAlgorithm::EcdsaP384,
        Some(other) => {
            reader.mistake(SETTING, format!("'{other}' is neither 'P-256' nor 'P-384'"));
            KeyAlgorithm::EcdsaP256
        }
    }
}

/// How long client certificates are valid, and how long each is kept after it was replaced.
fn client_certificates(reader: &mut Reader) -> (Duration, Duration) {
    let day = 24 * 3600;
    let life = reader.seconds("certificates.client_life_seconds", 30..=397 * day);
    let life = life.unwrap_or(CLIENT_LIFE);
    let grace = reader.seconds("certificates.grace_seconds", 1..=30 * day);
    let grace = grace.unwrap_or(CLIENT_GRACE.min(life / 10));
    if grace > life / 4 {
        let problem = "must not be more than a quarter of certificates.client_life_seconds: the next \
                       renewal comes soon after";
        reader.mistake("certificates.grace_seconds", problem);
    }
    (life, grace)
}

/// The defaults let ten destinations fill an account, and five accounts the installation.
fn backlog(reader: &mut Reader) -> BacklogBounds {
    const GIB: u64 = 1 << 30;
    let mut bound = |settings: [&'static str; 2], deliveries, bytes| Bound {
        deliveries: reader
            .number(settings[0], 1..=1_000_000_000)
            .unwrap_or(deliveries),
        bytes: reader
            .number(settings[1], MAX_PAYLOAD_BYTES..=1 << 50)
            .unwrap_or(bytes),
    };
    let of_destination = [
        "delivery.max_backlog_per_destination",
        "delivery.max_backlog_bytes_per_destination",
    ];
    let of_account = [
        "delivery.max_backlog_per_account",
        "delivery.max_backlog_bytes_per_account",
    ];
    let of_all = ["delivery.max_backlog", "delivery.max_backlog_bytes"];
    BacklogBounds {
        destination: bound(of_destination, 100_000, GIB),
        account: bound(of_account, 1_000_000, 4 * GIB),
        installation: bound(of_all, 5_000_000, 16 * GIB),
    }
}

fn keep(reader: &mut Reader) -> Keep {
    let days = |days: u64| Duration::from_secs(days * 24 * 3600);
    let payloads = reader
        .number("retention.payload_days", 1..=3650)
        .unwrap_or(7);
    let deliveries = reader
        .number("retention.delivery_days", 1..=3650)
        .unwrap_or(90);
    if payloads > deliveries {
        let problem =
            "must not be more than retention.delivery_days: a payload goes with its delivery";
        reader.mistake("retention.payload_days", problem);
    }
    Keep {
        payloads: days(payloads),
        deliveries: days(deliveries),
    }
}

fn access(reader: &mut Reader) -> Access {
    let mut number = |setting, most, default| {
        let given = reader.number(setting, 1..=most);
        given
            .and_then(|number| u32::try_from(number).ok())
            .unwrap_or(default)
    };
    Access {
        calls_per_second: number("access.calls_per_second", 1_000_000, CALLS_PER_SECOND),
        failed_attempts_per_minute: number("access.failed_attempts_per_minute", 1_000_000, 10),
        clients: reader.tables("access.clients", client),
    }
}

fn client(reader: &mut Reader) -> Option<ClientRule> {
    let ca_file = reader.path("ca_file");
    let ca_file = reader.required("ca_file", ca_file);
    let identity = reader.parsed("identity");
    let identity = reader.required("identity", identity);
    let names = reader.texts("roles");
    if names.as_ref().is_some_and(Vec::is_empty) {
        reader.mistake("roles", "needs at least one role");
    }
    let names = reader.required("roles", names).unwrap_or_default();
    let mut roles = Vec::new();
    for name in &names {
        match Role::parse(name) {
            Some(role) => roles.push(role),
            None => {
                let known = Role::ALL.map(Role::as_str).join(", ");
                reader.mistake("roles", format!("'{name}' is no role: use {known}"));
            }
        }
    }
    let calls = reader.number("calls_per_second", 1..=1_000_000);
    let scope = client_scope(reader);
    Some(ClientRule {
        ca_file: ca_file?,
        identity: identity?,
        roles,
        scope: scope?,
        calls_per_second: calls.and_then(|calls| u32::try_from(calls).ok()),
    })
}

/// `["all"]`, or names of accounts: never all because none were named.
fn client_scope(reader: &mut Reader) -> Option<Scope> {
    let names = reader.texts("accounts");
    let names = reader.required("accounts", names)?;
    if names == ["all"] {
        return Some(Scope::All);
    }
    let mut accounts: Vec<AccountName> = Vec::with_capacity(names.len());
    for name in &names {
        match name.parse() {
            Ok(account) => accounts.push(account),
            Err(error) => reader.mistake("accounts", error.to_string()),
        }
    }
    if names.is_empty() {
        reader.mistake("accounts", "needs names of accounts, or only 'all'");
    }
    Some(Scope::Accounts(accounts))
}

fn log_filter(reader: &mut Reader) -> String {
    let filter = reader
        .text("log.filter")
        .unwrap_or_else(|| "info".to_owned());
    if !logging::is_filter(&filter) {
        let problem = format!(
            "'{filter}' is not a filter: use a level (info) or targets (warn,countersign=debug)"
        );
        reader.mistake("log.filter", problem);
    }
    filter
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_need_only_a_data_directory() {
        let config = Config::read("c.toml", "data_dir = '/var/lib/countersign'", vec![]).unwrap();
        assert_eq!(
            config.kek,
            KekSource::File("/var/lib/countersign/kek".into())
        );
        assert_eq!(config.max_payload_bytes, 1024 * 1024);
        assert_eq!(config.listen.agents.port(), 8444);
    }

    #[test]
    fn the_delivery_domain_is_a_dns_name_by_default_the_trust_domain() {
        let read = |text: &str| Config::read("c.toml", &format!("data_dir = '/d'\n{text}"), vec![]);
        let own = read("delivery_domain = 'bank.example'").unwrap();
        assert_eq!(own.delivery_domain, "bank.example");
        let default = read("trust_domain = 'bank.internal'").unwrap();
        assert_eq!(default.delivery_domain, "bank.internal");
        let long = format!("{}.example", "a.".repeat(60));
        for bad in [
            "",
            "bank_1.example",
            ".example",
            "a..b",
            "-a.b",
            "Bank.example",
            &long,
        ] {
            let mistakes = read(&format!("delivery_domain = '{bad}'")).unwrap_err();
            assert_eq!(mistakes.list.len(), 1, "{bad}: {mistakes}");
        }
        let unfit = read("trust_domain = 'bank_1'").unwrap_err().to_string();
        assert!(unfit.contains("delivery_domain"), "{unfit}");
        let wrong = read("trust_domain = 'Bank!'").unwrap_err();
        assert_eq!(wrong.list.len(), 1, "{wrong}");
    }

    #[test]
    fn client_certificates_are_let_in_for_what_is_named_only() {
        let read = |text: &str| Config::read("c.toml", &format!("data_dir = '/d'\n{text}"), vec![]);
        let whole = "
            [[access.clients]]
            ca_file = '/ca.pem'
            identity = 'spiffe://bank.example/billing'
            roles = ['sender', 'auditor']
            accounts = ['accounts/acme']
            [[access.clients]]
            ca_file = '/ca.pem'
            identity = 'CN=admin'
            roles = ['administrator']
            accounts = ['all']
        ";
        let clients = read(whole).unwrap().access.clients;
        assert_eq!(clients[0].roles, [Role::Sender, Role::Auditor]);
        assert!(!clients[0].scope.covers("accounts/globex"));
        assert_eq!(clients[1].scope, Scope::All);
        let bad = "
            [[access.clients]]
            identity = 'billing'
            roles = ['root']
            accounts = []
        ";
        let mistakes = read(bad).unwrap_err();
        let named: Vec<_> = mistakes.list.iter().map(|it| it.setting.as_str()).collect();
        let expected = ["ca_file", "identity", "roles", "accounts"];
        assert_eq!(named, expected.map(|it| format!("access.clients[1].{it}")));
        for accounts in ["['all', 'accounts/acme']", "['acme']", "['*']"] {
            let text = whole.replace("['all']", accounts);
            assert!(read(&text).is_err(), "{accounts}");
        }
    }

    #[test]
    fn a_key_in_a_token_is_described_whole_or_not_at_all() {
        let read = |text: &str| Config::read("c.toml", &format!("data_dir = '/d'\n{text}"), vec![]);
        let whole = "
            [certificates.root_token]
            module = '/usr/lib/softhsm/libsofthsm2.so'
            token = 'bank'
            key = 'root'
            pin_file = '/etc/countersign/pin'
        ";
        let token = read(whole).unwrap().root_token.unwrap();
        assert_eq!(
            (token.place.token.as_str(), token.key.as_str()),
            ("bank", "root")
        );
        assert_eq!(read("").unwrap().root_token, None);
        let kek = read(&whole.replace("certificates.root_token", "kek.token")).unwrap();
        assert!(matches!(kek.kek, KekSource::Token(key) if key.place.token == "bank"));
        let both = whole.replace("certificates.root_token", "kek.token") + "\n[kek]\nfile = '/kek'";
        assert!(read(&both).is_err());
        let part = read("certificates.root_token.key = 'root'").unwrap_err();
        assert_eq!(part.list.len(), 3, "{part}");
        let keyless = whole
            .replace("root_token", "authority_token")
            .replace("key = 'root'", "");
        let place = read(&keyless).unwrap().authority_token.unwrap();
        assert_eq!(place.token, "bank");
        let part = read("certificates.authority_token.token = 'bank'").unwrap_err();
        assert_eq!(part.list.len(), 2, "{part}");
    }

    #[test]
    fn an_existing_root_comes_with_its_key() {
        let read = |text: &str| Config::read("c.toml", &format!("data_dir = '/d'\n{text}"), vec![]);
        let certificate = "certificates.root_certificate_file = '/ca.pem'\n";
        let key = "certificates.root_key_file = '/ca.key'\n";
        let token = "[certificates.root_token]\nmodule = '/m.so'\ntoken = 'bank'\nkey = 'root'\npin_file = '/pin'";
        let import = read(&[certificate, key].concat())
            .unwrap()
            .root_import
            .unwrap();
        assert_eq!(import.key_file, Some("/ca.key".into()));
        let import = read(&[certificate, token].concat())
            .unwrap()
            .root_import
            .unwrap();
        assert_eq!(import.key_file, None);
        for wrong in [vec![certificate], vec![key], vec![certificate, key, token]] {
            assert_eq!(
                read(&wrong.concat()).unwrap_err().list.len(),
                1,
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn five_mistakes_are_all_reported() {
        let text = "
            trust_domain = 'Bank!'
            [listen]
            api = 'everywhere'
            [server]
            names = ['ok.example', 'not a name']
            [delivery]
            max_payload_bytes = 99999999
            lease = 3
        ";
        let flags = vec![("data_dir", Value::String("/tmp/x".into()))];
        let mistakes = Config::read("c.toml", text, flags).unwrap_err();
        assert_eq!(mistakes.list.len(), 5, "{mistakes}");
    }
}
