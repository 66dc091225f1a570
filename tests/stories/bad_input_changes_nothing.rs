//! Bad input gets a status code, a reason and the field that is wrong, before anything is written:
//! afterwards every list is as it was.

mod callers;
mod certificates;
mod deliveries;
mod destinations;
mod names;

use countersign_tests::{
    grpcurl::{Grpcurl, Refusal, excerpt},
    setting::Setting,
};
use serde_json::{Value, json};

const MISSING: &str = "accounts/acme/destinations/missing";

/// An account with a destination and a delivery that waits, since there is no agent.
struct Stage {
    setting: Setting,
    account: String,
    destination: String,
    delivery: String,
}

fn stage(story: &str) -> Stage {
    let setting = Setting::new(story);
    let account = setting.account("acme");
    let destination = setting.destination(&account, "orders", "https://receiver.example/", "");
    let delivery = setting.submit(&destination, b"{}", "application/json");
    Stage {
        setting,
        account,
        destination,
        delivery,
    }
}

impl Stage {
    fn api(&self) -> Grpcurl {
        self.setting.api()
    }

    /// Everything that could have changed.
    fn everything(&self) -> Value {
        let api = self.api();
        let parent = json!({"parent": self.account});
        json!([
            api.ok("AccountService/ListAccounts", &json!({})),
            api.ok("DestinationService/ListDestinations", &parent),
            api.ok("CertificateService/ListCertificateAuthorities", &parent),
            api.ok(
                "CertificateService/ListClientCertificates",
                &json!({"parent": self.destination})
            ),
            api.ok(
                "CertificateService/GetCertificateAuthorityRotation",
                &parent
            ),
            api.ok("CertificateService/ListDestinationTrust", &parent),
            api.ok(
                "CertificateService/GetTrustBundle",
                &json!({"parent": "shared"})
            ),
            api.ok(
                "DestinationService/GetDestination",
                &json!({"name": self.destination})
            ),
            api.ok("DeliveryService/ListDeliveries", &parent),
            api.ok("AgentAdministrationService/ListJoinTokens", &json!({})),
            api.ok("AgentAdministrationService/ListAgents", &json!({})),
        ])
    }

    /// Each call is refused with the code, a reason, and the field if one is given; then nothing has
    /// changed.
    fn refused(&self, calls: &[(&str, Value, &str, &str)]) {
        let before = self.everything();
        for (method, request, code, field) in calls {
            let refusal = self.api().refused(method, request);
            let context = format!("{method} {}: {refusal:?}", excerpt(request));
            assert_eq!(&refusal.code, code, "{context}");
            assert_has_reason(&refusal, &context);
            if !field.is_empty() {
                let named = refusal.fields();
                let names_it =
                    |name: &&str| *name == *field || name.ends_with(&format!(".{field}"));
                assert!(named.iter().any(names_it), "names {named:?}: {context}");
            }
        }
        assert_eq!(self.everything(), before);
    }
}

fn assert_has_reason(refusal: &Refusal, context: &str) {
    let info = refusal.detail("ErrorInfo");
    let info = info.unwrap_or_else(|| panic!("no ErrorInfo: {context}"));
    assert_eq!(info["domain"], "countersign", "{context}");
    let reason = refusal.reason();
    let upper_snake = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    assert!(
        !reason.is_empty() && reason.chars().all(upper_snake),
        "{context}"
    );
    assert!(!refusal.message.is_empty(), "{context}");
}
