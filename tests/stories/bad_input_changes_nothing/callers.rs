//! Callers: whoever has no right API key learns nothing and changes nothing.

use serde_json::json;

use super::{assert_has_reason, stage};

#[test]
fn callers_without_a_right_key() {
    let stage = stage("bad-keys");
    let before = stage.everything();
    let anonymous = stage.setting.control_plane.anonymous_api();
    let key = stage.setting.control_plane.admin_key();
    let shortened = &key[..key.len() - 1];
    let callers = [
        anonymous.clone(),
        anonymous.clone().with_key("wrong"),
        anonymous.clone().with_key(""),
        anonymous.clone().with_key(shortened),
        anonymous.with_key(&format!("{key}x")),
    ];
    for caller in callers {
        for (method, request) in [
            ("AccountService/ListAccounts", json!({})),
            (
                "AccountService/CreateAccount",
                json!({"account_id": "new", "account": {}}),
            ),
            (
                "DestinationService/RevealSigningSecret",
                json!({"name": "nonsense"}),
            ),
            (
                "DeliveryService/SubmitDelivery",
                json!({"destination": stage.destination}),
            ),
        ] {
            let refusal = caller.refused(method, &request);
            let context = format!("{method}: {refusal:?}");
            assert_eq!(refusal.code, "UNAUTHENTICATED", "{context}");
            assert_has_reason(&refusal, &context);
            assert!(
                !format!("{refusal:?}").contains(shortened),
                "repeats the key"
            );
        }
    }
    assert_eq!(stage.everything(), before);
}
