use std::collections::BTreeSet;

use countersign_proto::v1;
use countersign_shared::{name::Id, time::Timestamp};
use prost::Message as _;
use prost_types::{DescriptorProto, field_descriptor_proto::Type};

use super::*;
use crate::{
    auth::{KeyRequest, generate},
    model::Role::Auditor,
};

/// Services of the agents' listener: the identity certificate says who calls.
const AGENTS: [&str; 2] = ["AgentSessionService", "EnrollmentService"];

fn principal(roles: &[Role], scope: Scope) -> Principal {
    let request = KeyRequest {
        id: Some(Id::chosen("key").unwrap()),
        roles: roles.to_vec(),
        scope,
        ..KeyRequest::administrator()
    };
    let (key, _) = generate(request, Timestamp::from_unix_seconds(1));
    Principal::of_key(&key, 1000)
}

fn acme() -> Scope {
    Scope::Accounts(vec!["accounts/acme".parse().unwrap()])
}

fn path(method: &str) -> String {
    format!("/countersign.v1.{method}")
}

fn api_methods(requests: &Requests) -> BTreeSet<&str> {
    let methods = requests.methods.keys().map(String::as_str);
    methods
        .filter(|method| !AGENTS.iter().any(|service| method.starts_with(service)))
        .collect()
}

#[test]
fn every_method_has_one_rule_and_every_rule_a_method() {
    let requests = Requests::of_the_api().unwrap();
    let ruled: BTreeSet<&str> = TABLE.iter().map(|rule| rule.method).collect();
    assert_eq!(ruled, api_methods(&requests));
    assert_eq!(ruled.len(), TABLE.len(), "a method with two rules");
    Rules::new().unwrap();
}

/// Fields that name a resource are called so everywhere in this API.
const NAMING: [&str; 3] = ["name", "parent", "destination"];

/// Text fields of a request, and of messages in it, that name a resource.
fn naming_fields(requests: &Requests, message: &DescriptorProto, prefix: &str) -> Vec<String> {
    let mut found = Vec::new();
    for field in &message.field {
        let name = format!("{prefix}{}", field.name());
        if field.r#type() == Type::String && NAMING.contains(&field.name()) {
            found.push(name);
        } else if let Some(inner) = requests.messages.get(field.type_name()) {
            found.extend(naming_fields(requests, inner, &format!("{name}.")));
        }
    }
    found
}

#[test]
fn every_field_that_names_a_resource_is_looked_at() {
    let requests = Requests::of_the_api().unwrap();
    for rule in TABLE {
        let request = requests.of(rule.method).unwrap();
        let mut naming = naming_fields(&requests, request, "");
        let is_create = rule.method.contains("/Create");
        // The name in a resource that is to be made is output only.
        naming.retain(|field| !(is_create && field.ends_with(".name")));
        match rule.needs {
            Needs::Account(fields) => {
                let looked_at: BTreeSet<&str> = fields.iter().copied().collect();
                let naming: BTreeSet<&str> = naming.iter().map(String::as_str).collect();
                assert_eq!(looked_at, naming, "{}", rule.method);
            }
            // Names of what belongs to no account, or none at all.
            Needs::AllAccounts => assert!(
                naming.iter().all(|field| field == "name"),
                "{}: {naming:?}",
                rule.method
            ),
            Needs::Shown => assert!(naming.is_empty(), "{}: {naming:?}", rule.method),
            Needs::EachMessage => assert_eq!(naming, ["delivery.destination"]),
        }
    }
}

/// The line above a method in its file.
fn said_roles(rule: &Rule) -> String {
    let others = rule.roles.iter().map(|role| role.as_str());
    let roles = std::iter::once(Role::Administrator.as_str()).chain(others);
    let roles: Vec<String> = roles.map(|role| format!("`{role}`")).collect();
    let all = match rule.needs {
        Needs::AllAccounts => ", for all accounts",
        _ => "",
    };
    format!("  // Roles: {}{all}.", roles.join(", "))
}

#[test]
fn every_method_says_in_its_comment_who_may_call_it() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../proto/countersign/v1");
    let files = std::fs::read_dir(folder).unwrap();
    let files = files.map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap());
    let files: Vec<String> = files.collect();
    for rule in TABLE {
        let (service, method) = rule.method.split_once('/').unwrap();
        let opening = format!("service {service} {{");
        let file = files.iter().find(|text| text.contains(&opening)).unwrap();
        let expected = format!("{}\n  rpc {method}(", said_roles(rule));
        assert!(file.contains(&expected), "{}: {expected}", rule.method);
    }
}

#[test]
fn auditors_only_read_and_never_secrets() {
    for rule in TABLE {
        let (_, method) = rule.method.split_once('/').unwrap();
        let reads = ["Get", "List", "Watch", "Verify", "Export"]
            .iter()
            .any(|verb| method.starts_with(verb));
        let makes_a_key = method == "GetCertificateSigningRequest";
        assert_eq!(
            rule.roles.contains(&Auditor),
            reads && !makes_a_key,
            "{method}"
        );
        if method.starts_with("Reveal") {
            assert!(rule.roles.is_empty(), "{method}");
        }
    }
}

#[test]
fn each_role_gets_what_the_table_gives_it_and_nothing_more() {
    let rules = Rules::new().unwrap();
    for rule in TABLE {
        for role in Role::ALL {
            let caller = principal(&[role], Scope::All);
            let expected = role == Role::Administrator || rule.roles.contains(&role);
            let judged = rules.judge(&path(rule.method), &caller);
            assert_eq!(judged.is_ok(), expected, "{role:?} {}", rule.method);
        }
        let nobody = principal(&[], Scope::All);
        assert!(rules.judge(&path(rule.method), &nobody).is_err());
    }
    let administrator = principal(&[Role::Administrator], Scope::All);
    let unknown = rules.judge("/countersign.v1.AccountService/Unknown", &administrator);
    assert!(unknown.is_err());
    let both = principal(&[Role::Sender, Role::Auditor], Scope::All);
    for method in ["DeliveryService/SubmitDelivery", "AlertService/ListAlerts"] {
        assert_eq!(rules.judge(&path(method), &both), Ok(false));
    }
}

#[test]
fn an_administrator_of_some_accounts_touches_no_other() {
    let rules = Rules::new().unwrap();
    let caller = principal(&[Role::Administrator], acme());
    // Every method, with a message that names another account wherever a name can be.
    for rule in TABLE {
        let judged = rules.judge(&path(rule.method), &caller);
        match rule.needs {
            Needs::AllAccounts => assert!(matches!(judged, Err(Denied::AllAccounts(_)))),
            Needs::Shown | Needs::EachMessage => assert_eq!(judged, Ok(false)),
            Needs::Account(_) => {
                assert_eq!(judged, Ok(true));
                let prepared = &rules.0[&path(rule.method)];
                for name in [
                    "accounts/globex/destinations/x",
                    "accounts/nobody",
                    "shared",
                ] {
                    let message = naming(&prepared.paths, name);
                    let judged = rules.judge_message(&path(rule.method), &caller, &message);
                    assert_eq!(judged, Err(Denied::Account("apiKeys/key".to_owned())));
                }
                let own = naming(&prepared.paths, "accounts/acme/destinations/x");
                assert_eq!(
                    rules.judge_message(&path(rule.method), &caller, &own),
                    Ok(())
                );
                let nothing = rules.judge_message(&path(rule.method), &caller, &[]);
                assert!(nothing.is_err(), "{}: no name at all", rule.method);
            }
        }
    }
}

/// A message with `name` at each of these paths.
fn naming(paths: &[Vec<u32>], name: &str) -> Vec<u8> {
    let mut message = Vec::new();
    for path in paths {
        let mut value = name.as_bytes().to_vec();
        for number in path.iter().rev() {
            let mut field = vec![u8::try_from(number << 3 | 2).unwrap()];
            field.push(u8::try_from(value.len()).unwrap());
            field.extend(value);
            value = field;
        }
        message.extend(value);
    }
    message
}

#[test]
fn a_second_name_can_not_hide_behind_the_first() {
    let rules = Rules::new().unwrap();
    let caller = principal(&[Role::Sender], acme());
    let replay = path("DeliveryService/ReplayDeliveries");
    let judge = |parent: &str, destination: &str| {
        let request = v1::ReplayDeliveriesRequest {
            parent: parent.to_owned(),
            destination: destination.to_owned(),
            ..Default::default()
        };
        rules.judge_message(&replay, &caller, &request.encode_to_vec())
    };
    assert!(judge("accounts/acme", "").is_ok());
    assert!(judge("accounts/acme", "accounts/acme/destinations/a").is_ok());
    assert!(judge("accounts/acme", "accounts/globex/destinations/a").is_err());
    assert!(judge("", "accounts/acme/destinations/a").is_err());

    let get = path("DeliveryService/GetDelivery");
    let named = |name: &str| naming(&[vec![1]], name);
    let twice = [named("accounts/acme"), named("accounts/globex")].concat();
    assert!(rules.judge_message(&get, &caller, &twice).is_err());
    let twice = [named("accounts/globex"), named("accounts/acme")].concat();
    assert!(rules.judge_message(&get, &caller, &twice).is_err());
    let broken = rules.judge_message(&get, &caller, &[0x0a, 0x7f]);
    assert!(matches!(broken, Err(Denied::Unreadable(_))));
}

#[test]
fn whatever_may_change_something_is_on_record_but_for_what_senders_submit() {
    let mut passes: Vec<&str> = TABLE
        .iter()
        .filter(|rule| !rule.is_on_record() && !rule.roles.contains(&Auditor))
        .map(|rule| rule.method)
        .collect();
    passes.sort_unstable();
    let expected = [
        "CertificateService/GetCertificateSigningRequest",
        "DeliveryService/SubmitDeliveries",
        "DeliveryService/SubmitDelivery",
    ];
    assert_eq!(passes, expected);
}

#[test]
fn what_a_call_is_about_is_read_from_its_names() {
    use prost::Message as _;
    let rules = Rules::new().unwrap();
    let request = countersign_proto::v1::CreateDestinationRequest {
        parent: "accounts/acme".to_owned(),
        destination_id: "orders".to_owned(),
        ..Default::default()
    };
    let path = "/countersign.v1.DestinationService/CreateDestination";
    let about = rules.about(path, &request.encode_to_vec());
    assert_eq!(about, ["accounts/acme"]);
    assert!(rules.about(path, b"\xff").is_empty());
    assert!(rules.about("/nowhere", b"").is_empty());
}
