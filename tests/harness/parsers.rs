//! Whatever parses what others send, each as a function of bytes: for the fuzzer in `tests/fuzz`, and for the
//! story that replays its corpus. None may panic; where there is a way back, it leads to what was read.

use bytes::Bytes;
use countersign_agent::deliver::parse_retry_after;
use countersign_control_plane::{
    audit::export::Export,
    auth::{Rules, TABLE},
    ca,
    config::Config,
    deliveries::content,
    signals::News,
};
use countersign_proto::v1::{ConnectRequest, ConnectResponse, connect_request, connect_response};
use countersign_shared::{
    address_range::AddressRange,
    bundle::parse_destination_url,
    hpke::{self, RecipientKey},
    join_token::JoinToken,
    name::{AccountName, AgentName, AlertName, ApiKeyName, DestinationName, JoinTokenName},
    receipt,
    seal::{RecordKeys, SealingKey},
    secret::SecretBytes,
    time::Timestamp,
    tls, wire,
};
use prost::Message as _;

/// A name, and what is done with bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 15] = [
    ("audit_export", audit_export),
    ("certificate", certificate),
    ("configuration", configuration),
    ("delivery_content", delivery_content),
    ("imported_authority", imported_authority),
    ("names", names),
    ("news", news),
    ("pem", pem),
    ("receipt", receipt),
    ("request_names", request_names),
    ("retry_after", retry_after),
    ("sealed", sealed),
    ("session_messages", session_messages),
    ("signing_request", signing_request),
    ("uploaded_certificate", uploaded_certificate),
];

/// The function of this name.
///
/// # Panics
/// When there is none.
pub fn run(target: &str, input: &[u8]) {
    let found = TARGETS.iter().find(|(name, _)| *name == target);
    found.expect("a target").1(input);
}

fn text(input: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(input)
}

/// Lines of an export of the audit log, in a file from wherever.
fn audit_export(input: &[u8]) {
    let mut export = Export::default();
    for line in text(input).lines() {
        if export.follow(line).is_err() {
            break;
        }
    }
    let told = export.told();
    assert!(told.signed_sequence <= told.last_sequence);
}

/// An existing authority, in a request: its certificate and its key, with a zero byte between.
fn imported_authority(input: &[u8]) {
    let now = Timestamp::from_unix_seconds(1_800_000_000);
    let (certificate, key) = match input.iter().position(|byte| *byte == 0) {
        Some(end) => (&input[..end], &input[end + 1..]),
        None => (input, input),
    };
    if let Ok(certificates) = tls::certificates_from_pem(&text(certificate)) {
        let key = SecretBytes::from(key.to_vec());
        let _ = ca::ImportedAuthority::with_pem(&certificates, &key, ca::Purpose::Account, now);
    }
}

/// A receipt, from whoever shows one.
fn receipt(input: &[u8]) {
    let text = text(input);
    if let Ok(read) = receipt::read(&text) {
        assert!(text.starts_with(&read.signed));
        assert!(!read.certificate.is_empty());
    }
    assert_eq!(receipt::link(&text).len(), 64);
}

/// A peer's certificate, in a handshake.
fn certificate(input: &[u8]) {
    let _ = tls::certificate_facts(input);
    let _ = ca::identity_of("countersign.internal", input);
}

/// A configuration file.
fn configuration(input: &[u8]) {
    if let Err(mistakes) = Config::read("fuzz", &text(input), Vec::new()) {
        assert!(!mistakes.list.is_empty());
    }
}

/// What lies in the store as a delivery's content, once it is open.
fn delivery_content(input: &[u8]) {
    if let Some((headers, payload)) = content::split(Bytes::copy_from_slice(input)) {
        let again = [content::head(&headers).as_ref(), &payload].concat();
        let again = content::split(again.into()).expect("it was split before");
        assert!(again.0.iter().eq(headers.iter()) && again.1 == payload);
    }
}

/// Resource names, tokens, ranges and URLs in requests.
fn names(input: &[u8]) {
    let text = &*text(input);
    fn same<T: std::str::FromStr + ToString>(text: &str) {
        if let Ok(name) = text.parse::<T>() {
            assert_eq!(name.to_string(), text);
        }
    }
    same::<AccountName>(text);
    same::<AgentName>(text);
    same::<AlertName>(text);
    same::<ApiKeyName>(text);
    same::<DestinationName>(text);
    same::<JoinTokenName>(text);
    if let Ok(token) = JoinToken::parse(text) {
        let again = JoinToken::parse(token.to_text().expose()).expect("its own text");
        assert_eq!(again.secret_hash(), token.secret_hash());
    }
    if let Ok(range) = text.parse::<AddressRange>() {
        let again: AddressRange = range.to_string().parse().expect("its own text");
        assert_eq!(again, range);
    }
    let _ = parse_destination_url(text);
}

/// What control planes tell each other.
fn news(input: &[u8]) {
    if let Some(news) = News::from_line(&text(input)) {
        let line = news.to_line();
        assert_eq!(News::from_line(&line).map(|it| it.to_line()), Some(line));
    }
}

/// Authorities in PEM, uploaded for a destination.
fn pem(input: &[u8]) {
    if let Ok(certificates) = tls::certificates_from_pem(&text(input)) {
        for certificate in certificates {
            let _ = tls::certificate_facts(&certificate);
        }
    }
}

/// The names that the guard reads out of a request before anything else does. The first byte chooses the method.
fn request_names(input: &[u8]) {
    let Some((choice, message)) = input.split_first() else {
        return;
    };
    thread_local! {
        static RULES: Rules = Rules::new().expect("the table fits the API");
    }
    let rule = &TABLE[usize::from(*choice) % TABLE.len()];
    let path = format!("/countersign.v1.{}", rule.method);
    let found = RULES.with(|rules| rules.about(&path, message));
    assert!(found.iter().all(|name| !name.is_empty()));
}

/// A header of a receiver's answer.
fn retry_after(input: &[u8]) {
    let now = Timestamp::from_unix_seconds(1_800_000_000);
    if let Some(wait) = parse_retry_after(&text(input), now) {
        assert!(wait.as_secs() <= 24 * 3600);
    }
}

/// What is sealed, in the store and on the wire.
fn sealed(input: &[u8]) {
    let key = SealingKey::from_bytes(SecretBytes::from(vec![7; 32])).expect("32 bytes");
    assert!(key.open(input, b"identity").is_err());
    let record = RecordKeys::of(&key).key(b"identity").expect("a key");
    assert!(record.open_in_place(input.to_vec(), b"identity").is_err());
    let (encapsulated_key, ciphertext) = input.split_at(input.len().min(32));
    let sealed = hpke::Sealed {
        encapsulated_key: encapsulated_key.to_vec(),
        ciphertext: ciphertext.to_vec(),
    };
    thread_local! {
        static KEY: RecipientKey = RecipientKey::generate().expect("a key");
    }
    assert!(KEY.with(|key| key.open(&sealed, b"").is_err()));
}

/// What agents and control planes say in a session.
fn session_messages(input: &[u8]) {
    if let Ok(request) = ConnectRequest::decode(input) {
        use connect_request::Message;
        match request.message {
            Some(Message::OutcomeReport(report)) => {
                for outcome in report.outcomes {
                    if let Ok(outcome) = wire::outcome_from_wire(outcome) {
                        let again = wire::outcome_from_wire(wire::outcome_to_wire(&outcome));
                        assert_eq!(again.ok(), Some(outcome));
                    }
                }
            }
            Some(Message::LeaseExtension(extension)) => {
                for lease in &extension.leases {
                    let _ = wire::lease_from_wire(lease);
                }
            }
            Some(Message::ProbeResult(result)) => {
                let _ = wire::probe_report_from_wire(result);
            }
            _ => {}
        }
    }
    if let Ok(response) = ConnectResponse::decode(input) {
        use connect_response::Message;
        match response.message {
            Some(Message::Bundle(bundle)) => {
                let _ = wire::bundle_from_wire(bundle);
            }
            Some(Message::Probe(probe)) => {
                let _ = wire::probe_from_wire(&probe);
            }
            _ => {}
        }
    }
}

/// An agent's request for an identity, and a destination's for a receiver's CA.
fn signing_request(input: &[u8]) {
    let _ = ca::parse_request(input);
    let _ = ca::request_key(input);
}

/// A certificate that a receiver's CA has made.
fn uploaded_certificate(input: &[u8]) {
    let now = Timestamp::from_unix_seconds(1_800_000_000);
    let _ = ca::check_upload(&text(input), &[[0; 32]], now);
}
