//! What most stories begin with: a control plane, accounts, destinations, an agent.

use std::path::PathBuf;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{
    agent::{Agent, enroll},
    control_plane::ControlPlane,
    folder::Folder,
    grpcurl::Grpcurl,
    wait::{PATIENCE, wait_until},
};

/// A control plane with a folder of its own.
pub struct Setting {
    /// The control plane. Before the folder: it has to stop before its files go.
    pub control_plane: ControlPlane,
    /// The story's folder.
    pub folder: Folder,
}

impl Setting {
    /// For `story`, with the control plane's default configuration.
    pub fn new(story: &str) -> Self {
        Self::with(story, "", "info")
    }

    /// For `story`, with the control plane's configuration file and log filter.
    pub fn with(story: &str, toml: &str, log_filter: &str) -> Self {
        Self::in_folder(Folder::new(story), toml, log_filter)
    }

    /// In a folder that has something in it already.
    pub fn in_folder(folder: Folder, toml: &str, log_filter: &str) -> Self {
        let control_plane = ControlPlane::start_with_log(&folder, toml, log_filter);
        Self {
            control_plane,
            folder,
        }
    }

    /// A caller with the administrator's API key.
    pub fn api(&self) -> Grpcurl {
        self.control_plane.api()
    }

    /// Makes an account; gives its resource name.
    pub fn account(&self, id: &str) -> String {
        let request = json!({"account_id": id, "account": {}});
        let answer = self.api().ok("AccountService/CreateAccount", &request);
        name_of(&answer["account"])
    }

    /// Makes a destination of `account`; gives its resource name.
    pub fn destination(&self, account: &str, id: &str, url: &str, server_ca_pem: &str) -> String {
        let request = json!({
            "parent": account,
            "destination_id": id,
            "destination": {"url": url, "server_ca_pem": server_ca_pem},
        });
        let answer = self
            .api()
            .ok("DestinationService/CreateDestination", &request);
        name_of(&answer["destination"])
    }

    /// The trust anchors of `account`, in PEM.
    ///
    /// # Panics
    /// When there are none.
    pub fn trust_bundle(&self, account: &str) -> String {
        let request = json!({"parent": account});
        let answer = self.api().ok("CertificateService/GetTrustBundle", &request);
        let pem = answer["trust_bundle_pem"].as_str().expect("a bundle");
        pem.to_owned()
    }

    /// Makes a join token; gives its text.
    ///
    /// # Panics
    /// When the answer has none.
    pub fn join_token(&self, id: &str) -> String {
        let request = json!({"join_token_id": id, "join_token": {}});
        let method = "AgentAdministrationService/CreateJoinToken";
        let answer = self.api().ok(method, &request);
        answer["token"].as_str().expect("a token").to_owned()
    }

    /// A data directory for the agent `name`.
    pub fn agent_data_dir(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Enrolls an agent, starts it with `flags` and with leave to connect to loopback, and waits
    /// until it is connected.
    ///
    /// # Panics
    /// When enrolling fails.
    pub fn agent(&self, name: &str, flags: &[&str]) -> Agent {
        let data_dir = self.enrolled(name);
        let agent = Agent::start(&self.folder, &data_dir, flags);
        self.wait_until_connected(name);
        agent
    }

    /// Enrolls an agent; gives its data directory.
    ///
    /// # Panics
    /// When enrolling fails.
    pub fn enrolled(&self, name: &str) -> PathBuf {
        let data_dir = self.agent_data_dir(name);
        let token = self.join_token(&format!("for-{name}"));
        let enrolled = enroll(&data_dir, &self.control_plane.agents_url(), &token, name);
        assert!(enrolled.status.success(), "enroll: {enrolled:?}");
        data_dir
    }

    /// Waits until the agent `name` is connected.
    pub fn wait_until_connected(&self, name: &str) {
        let request = json!({"name": format!("agents/{name}")});
        wait_until("the agent to be connected", PATIENCE, || {
            let method = "AgentAdministrationService/GetAgent";
            (self.api().ok(method, &request)["agent"]["connected"] == true).then_some(())
        });
    }

    /// Submits `payload` to `destination`; gives the delivery's resource name.
    pub fn submit(&self, destination: &str, payload: &[u8], content_type: &str) -> String {
        let request = json!({
            "destination": destination,
            "payload": STANDARD.encode(payload),
            "content_type": content_type,
        });
        let answer = self.api().ok("DeliveryService/SubmitDelivery", &request);
        name_of(&answer["delivery"])
    }

    /// Waits until an attempt of `delivery` has ended; gives the first.
    pub fn first_attempt(&self, delivery: &str) -> Value {
        let request = json!({"parent": delivery});
        wait_until("the first attempt to end", PATIENCE, || {
            let answer = self.api().ok("DeliveryService/ListAttempts", &request);
            answer["attempts"].get(0).cloned()
        })
    }

    /// A delivery as the store has it now.
    pub fn delivery(&self, name: &str) -> Value {
        let answer = self
            .api()
            .ok("DeliveryService/GetDelivery", &json!({"name": name}));
        answer["delivery"].clone()
    }

    /// Waits until `delivery` is delivered.
    pub fn wait_until_delivered(&self, delivery: &str) {
        wait_until("the delivery to be DELIVERED", PATIENCE, || {
            (self.delivery(delivery)["state"] == "DELIVERY_STATE_DELIVERED").then_some(())
        });
    }
}

/// The resource name of a resource.
///
/// # Panics
/// When it has none.
pub fn name_of(resource: &Value) -> String {
    let name = resource["name"].as_str().unwrap_or_default();
    assert!(!name.is_empty(), "a resource without a name: {resource}");
    name.to_owned()
}
