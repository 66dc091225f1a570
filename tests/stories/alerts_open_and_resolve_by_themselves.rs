//! A receiver trusts the wrong authority: an alert says so, once, however often deliveries fail; it is
//! in the API, in the metrics, and goes as a signed webhook to the operator's own destination. Then
//! the receiver is put right, and the alert resolves by itself.

use countersign_tests::{
    certificates::TestCertificate,
    http_get,
    nginx::{Nginx, Setup},
    receiver_script::ReceiverScript,
    setting::Setting,
    wait::{PATIENCE, wait_until},
};
use serde_json::{Value, json};

const OPERATORS: &str = "accounts/operators/destinations/alerts";

struct Stage {
    setting: Setting,
    server: TestCertificate,
    application: ReceiverScript,
}

impl Stage {
    fn nginx_trusting(&self, folder: &str, account: &str) -> Nginx {
        let setup = Setup {
            server: &self.server,
            client_authorities: &self.setting.trust_bundle(account),
            application: self.application.port(),
        };
        Nginx::start(self.setting.folder.subfolder(folder), &setup)
    }

    fn alerts(&self, include_resolved: bool) -> Vec<Value> {
        let request = json!({"include_resolved": include_resolved});
        let answer = self.setting.api().ok("AlertService/ListAlerts", &request);
        answer["alerts"].as_array().cloned().unwrap_or_default()
    }

    /// The alerts about refused client certificates.
    fn refusals(&self, include_resolved: bool) -> Vec<Value> {
        let mut found = self.alerts(include_resolved);
        found.retain(|alert| alert["cause"] == "ALERT_CAUSE_CLIENT_CERTIFICATE_REFUSED");
        found
    }

    fn metric(&self, line: &str) -> bool {
        let listeners = self.setting.control_plane.listeners();
        let page = http_get::get(listeners.http, "/metrics").unwrap().body;
        String::from_utf8(page)
            .unwrap()
            .lines()
            .any(|found| found == line)
    }

    /// What the operators' receiver was told, in order.
    fn told(&self) -> Vec<Value> {
        let requests = self.application.requests().into_iter();
        let bodies = requests.filter(|request| request.path == "/alerts");
        bodies
            .map(|request| serde_json::from_slice(&request.body).unwrap())
            .collect()
    }
}

#[test]
fn a_refused_certificate_alerts_once_and_resolves_when_it_is_accepted() {
    let toml = format!("[alerts]\ndestination = '{OPERATORS}'\n");
    let setting = Setting::with("alerts", &toml, "info");
    let stage = Stage {
        server: TestCertificate::make(&setting.folder.subfolder("server")),
        application: ReceiverScript::start(setting.folder.subfolder("application")),
        setting,
    };
    let (acme, globex) = (
        stage.setting.account("acme"),
        stage.setting.account("globex"),
    );
    let operators = stage.setting.account("operators");
    let ca = &stage.server.ca_pem;
    let for_operators = stage.nginx_trusting("nginx-operators", &operators);
    stage
        .setting
        .destination(&operators, "alerts", &for_operators.url("/alerts"), ca);
    let wrong = stage.nginx_trusting("nginx-wrong", &globex);
    let orders = stage
        .setting
        .destination(&acme, "orders", &wrong.url("/hooks"), ca);
    let _agent = stage.setting.agent("edge-1", &["--log-filter", "info"]);

    for _ in 0..3 {
        let delivery = stage.setting.submit(&orders, b"{}", "application/json");
        stage.setting.first_attempt(&delivery);
    }
    wait_until("an alert", PATIENCE, || {
        (!stage.refusals(false).is_empty()).then_some(())
    });
    let open = stage.refusals(false);
    assert_eq!(open.len(), 1, "one alert for one cause: {open:?}");
    assert_eq!(open[0]["resource"], orders);
    assert_eq!(open[0]["severity"], "ALERT_SEVERITY_CRITICAL");
    assert!(open[0]["message"].as_str().unwrap().len() > 40, "{open:?}");
    let gauge = "countersign_open_alerts{cause=\"CLIENT_CERTIFICATE_REFUSED\"}";
    wait_until("the metric", PATIENCE, || {
        stage.metric(&format!("{gauge} 1")).then_some(())
    });
    let name = json!({"name": open[0]["name"]});
    let acknowledged = stage
        .setting
        .api()
        .ok("AlertService/AcknowledgeAlert", &name);
    assert_ne!(acknowledged["alert"]["acknowledge_time"], Value::Null);
    assert_eq!(
        stage.refusals(false).len(),
        1,
        "acknowledged is not resolved"
    );

    let right = stage.nginx_trusting("nginx-right", &acme);
    let update = json!({"destination": {"name": orders, "url": right.url("/hooks")}});
    stage
        .setting
        .api()
        .ok("DestinationService/UpdateDestination", &update);
    let delivery = stage.setting.submit(&orders, b"{}", "application/json");
    stage.setting.wait_until_delivered(&delivery);
    wait_until("it to resolve", PATIENCE, || {
        stage.refusals(false).is_empty().then_some(())
    });
    let resolved = stage.refusals(true);
    assert_eq!(resolved.len(), 1);
    assert_ne!(resolved[0]["resolve_time"], Value::Null);
    wait_until("the metric", PATIENCE, || {
        stage.metric(&format!("{gauge} 0")).then_some(())
    });

    let refused = |event: &Value| event["data"]["cause"] == "CLIENT_CERTIFICATE_REFUSED";
    let kinds = wait_until("both webhooks", PATIENCE, || {
        let told: Vec<_> = stage.told().into_iter().filter(refused).collect();
        let kinds: Vec<_> = told.iter().map(|event| event["type"].clone()).collect();
        (kinds.len() == 2).then_some(kinds)
    });
    assert_eq!(
        kinds,
        ["countersign.alert.opened", "countersign.alert.resolved"]
    );
}
