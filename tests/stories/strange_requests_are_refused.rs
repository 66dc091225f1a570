//! Thousands of requests that nobody would make, to every method of the API: made from its own description, with
//! fields left out, numbers at the ends of their ranges, enum values that are not there, names that look like
//! paths, texts that are no text, lists that are too long, and bits changed on the way. Each is refused for what
//! is wrong with it, or does what it says; none is an internal error, and afterwards everything works as before.

use bytes::Bytes;
use countersign_control_plane::auth::TABLE;
use countersign_proto::FILE_DESCRIPTOR_SET;
use countersign_tests::{
    certificates::TestCertificate,
    client::{call, channel},
    dice::Dice,
    receiver::Receiver,
    setting::Setting,
};
use prost::Message as _;
use prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MapKey,
    MessageDescriptor, Value,
};
use tokio::runtime::Runtime;
use tonic::Code;

/// Requests to each method; fewer where each takes its time.
const REQUESTS: usize = 100;
const STREAMS: usize = 4;
/// How deep messages are within each other.
const DEPTH: usize = 4;

/// Texts that requests are full of.
const TEXTS: &[&str] = &[
    "",
    "accounts/acme",
    "accounts/acme/destinations/orders",
    "accounts/acme/destinations/orders/clientCertificates/1",
    "accounts/acme/destinations/orders/signingSecrets/1",
    "accounts/acme/certificateAuthorities/1",
    "accounts/-",
    "accounts/../acme",
    "accounts/acme/",
    "agents/edge-1",
    "apiKeys/none",
    "joinTokens/none",
    "*",
    "acme",
    "Ünïcödé \u{202e}\u{0}",
    "https://receiver.example/hooks",
    "https://169.254.169.254/latest",
    "https://[::ffff:127.0.0.1]:1/",
    "http://receiver.example",
    "file:///etc/passwd",
    "10.0.0.0/8",
    "application/json",
    "x\r\ny: z",
    "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
    "018fc58e-37d7-7082-beaa-78560d3a341e",
    "' OR 1=1 --",
];

const NUMBERS: &[i64] = &[
    0,
    1,
    -1,
    2,
    60,
    1000,
    i32::MAX as i64,
    i32::MIN as i64,
    i64::MAX,
    i64::MIN,
    253_402_300_800,
];

struct Maker {
    dice: Dice,
}

impl Maker {
    fn message(&mut self, kind: &MessageDescriptor, depth: usize) -> DynamicMessage {
        let mut message = DynamicMessage::new(kind.clone());
        for field in kind.fields() {
            // Most of a request makes sense, so that what does not is looked at.
            if self.dice.in_a_hundred(60) {
                let value = self.field(&field, depth);
                message.set_field(&field, value);
            }
        }
        message
    }

    fn field(&mut self, field: &FieldDescriptor, depth: usize) -> Value {
        if field.is_map() {
            let Kind::Message(entry) = field.kind() else {
                unreachable!("a map's entries are messages");
            };
            let value = entry.map_entry_value_field();
            let pairs = (0..self.dice.below(4)).map(|_| {
                let key = MapKey::String((*self.dice.of(TEXTS)).to_owned());
                (key, self.value(&value, depth))
            });
            return Value::Map(pairs.collect());
        }
        if field.cardinality() == Cardinality::Repeated {
            let many = if self.dice.in_a_hundred(5) { 300 } else { 4 };
            let count = self.dice.below(many);
            return Value::List((0..count).map(|_| self.value(field, depth)).collect());
        }
        self.value(field, depth)
    }

    fn value(&mut self, field: &FieldDescriptor, depth: usize) -> Value {
        let number = *self.dice.of(NUMBERS);
        match field.kind() {
            Kind::Bool => Value::Bool(self.dice.in_a_hundred(50)),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(number as i32),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(number),
            Kind::Uint32 | Kind::Fixed32 => Value::U32(number as u32),
            Kind::Uint64 | Kind::Fixed64 => Value::U64(number as u64),
            Kind::Float => Value::F32(*self.dice.of(&[0.0, -1.5, f32::NAN, f32::INFINITY])),
            Kind::Double => Value::F64(*self.dice.of(&[0.0, 1.5, -1.0, f64::NAN, f64::INFINITY])),
            Kind::String => Value::String(self.text()),
            Kind::Bytes => Value::Bytes(self.bytes()),
            Kind::Enum(kind) => Value::EnumNumber(self.enumerated(&kind)),
            Kind::Message(kind) if depth > 0 => Value::Message(self.message(&kind, depth - 1)),
            Kind::Message(kind) => Value::Message(DynamicMessage::new(kind)),
        }
    }

    fn text(&mut self) -> String {
        let text = *self.dice.of(TEXTS);
        match self.dice.below(40) {
            0 => text.repeat(200),
            1 => "a".repeat(70_000),
            _ => text.to_owned(),
        }
    }

    fn bytes(&mut self) -> Bytes {
        let length = *self.dice.of(&[0, 1, 16, 32, 500, 70_000]);
        (0..length).map(|_| self.dice.bits() as u8).collect()
    }

    fn enumerated(&mut self, kind: &EnumDescriptor) -> i32 {
        let known: Vec<i32> = kind.values().map(|value| value.number()).collect();
        match self.dice.below(6) {
            0 => *self.dice.of(&[-1, 99, i32::MAX, i32::MIN]),
            _ => *self.dice.of(&known),
        }
    }

    /// A request as it goes out; some have suffered on the way.
    fn request(&mut self, kind: &MessageDescriptor) -> Bytes {
        let mut bytes = self.message(kind, DEPTH).encode_to_vec();
        if self.dice.in_a_hundred(15) && !bytes.is_empty() {
            let at = self.dice.below(bytes.len());
            if self.dice.in_a_hundred(50) {
                bytes[at] ^= 1 << self.dice.below(8);
            } else {
                bytes.truncate(at);
            }
        }
        bytes.into()
    }
}

#[test]
fn and_none_of_them_does_harm() {
    let setting = Setting::new("strange");
    let server = TestCertificate::make(&setting.folder.subfolder("server"));
    let account = setting.account("acme");
    let receiver = Receiver::start(&server, &setting.trust_bundle(&account));
    let url = receiver.url("/hooks");
    setting.destination(&account, "orders", &url, &server.ca_pem);
    let _agent = setting.agent("edge-1", &[]);

    let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).unwrap();
    let runtime = Runtime::new().unwrap();
    let plane = &setting.control_plane;
    let key = plane.admin_key();
    let ca_file = plane.ca_file();
    let connect = channel(plane.listeners().api, &ca_file, None);
    let api = runtime.block_on(connect).unwrap();
    let mut maker = Maker {
        dice: Dice::new(20_261_127),
    };
    let mut refused = 0;
    for rule in TABLE {
        let (service, name) = rule.method.split_once('/').unwrap();
        let service = pool.get_service_by_name(&format!("countersign.v1.{service}"));
        let method = service
            .unwrap()
            .methods()
            .find(|it| it.name() == name)
            .unwrap();
        let count = match method.is_server_streaming() {
            true => STREAMS,
            false => REQUESTS,
        };
        for _ in 0..count {
            let request = maker.request(&method.input());
            let answer = call(&api, rule.method, request.clone(), Some(&key));
            let Err(status) = runtime.block_on(answer) else {
                continue;
            };
            refused += 1;
            let harm = [
                Code::Internal,
                Code::Unknown,
                Code::DataLoss,
                Code::Unauthenticated,
            ];
            let decoded = DynamicMessage::decode(method.input(), request);
            assert!(
                !harm.contains(&status.code()),
                "{}: {status:?}\n{decoded:?}",
                rule.method
            );
            assert!(!status.message().is_empty(), "{}: {decoded:?}", rule.method);
        }
    }
    assert!(refused > 1000, "{refused}: they are not strange enough");

    let log = plane.output();
    assert!(!log.contains("panicked"), "{log}");
    // By a new name: what was there may have been deleted, as somebody has asked for.
    let account = setting.account("after-all");
    let receiver = Receiver::start(&server, &setting.trust_bundle(&account));
    let url = receiver.url("/hooks");
    let destination = setting.destination(&account, "orders", &url, &server.ca_pem);
    let _agent = setting.agent("edge-2", &[]);
    let delivery = setting.submit(&destination, b"{}", "application/json");
    setting.wait_until_delivered(&delivery);
    let audit = setting
        .api()
        .ok("AuditService/VerifyAuditLog", &serde_json::json!({}));
    assert_eq!(audit["intact"], true, "{audit}");
}
