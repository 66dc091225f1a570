//! ProbeDestination against servers that others wrote, each set up with what the product gives its
//! receiver: configuration, trust anchors and revocation lists as they are served over HTTP. A good
//! certificate, a revoked one, one of another account, and none at all; and a server that asks for none.
//!
//! The product presents no certificate that it has revoked. So the lists are those of a control plane
//! that was then put back to a copy from before the revocations.

use std::{fs, path::Path, thread};

use countersign_tests::{
    authority::{Authority, Leaf, NOW},
    http_get,
    openssl::openssl,
    receiver_script::ReceiverScript,
    receivers::{Kind, Receiver, Setup},
    setting::Setting,
};
use serde_json::{Value, json};

const KINDS: [(Kind, &str); 5] = [
    (Kind::Nginx, "NGINX"),
    (Kind::HaProxy, "HAPROXY"),
    (Kind::Apache, "APACHE"),
    (Kind::Caddy, "CADDY"),
    (Kind::Envoy, "ENVOY"),
];

struct Stage {
    receiver_ca: Authority,
    server: Leaf,
    application: ReceiverScript,
    acme: String,
    globex: String,
    /// The lists of `acme`, on which the destinations are whose ids end with `-revoked`.
    lists: String,
    setting: Setting,
}

/// What a probe said.
struct Probed {
    presentation: &'static str,
    answer: Value,
}

impl Stage {
    fn served(&self, path: &str) -> String {
        let http = self.setting.control_plane.listeners().http;
        let answer = http_get::get(http, path).unwrap();
        assert_eq!(answer.status, 200, "{path}");
        String::from_utf8(answer.body).unwrap()
    }

    fn destination(&self, account: &str, id: &str, url: &str) -> String {
        let ca = self.receiver_ca.pem();
        self.setting.destination(account, id, url, &ca)
    }

    fn probe(&self, destination: &str, presentation: &'static str) -> Probed {
        let presented = format!("PROBE_PRESENTATION_{presentation}");
        let request = json!({"name": destination, "presentation": presented});
        let answer = self
            .setting
            .api()
            .ok("DestinationService/ProbeDestination", &request);
        assert_eq!(answer["agent"], "agents/edge-1");
        Probed {
            presentation,
            answer,
        }
    }

    /// Tries one kind of server.
    fn try_kind(&self, kind: Kind, name: &str) {
        let id = name.to_lowercase();
        let ours = self.destination(&self.acme, &id, "https://localhost/");
        let kind_name = format!("SERVER_KIND_{name}");
        let request = json!({"name": ours, "server_kind": kind_name});
        let method = "DestinationService/GetReceiverConfiguration";
        let pasted = self.setting.api().ok(method, &request);
        let anchors = self.served("/trust/accounts/acme.pem");
        let setup = Setup {
            text: pasted["configuration"].as_str().unwrap(),
            trust_anchor: &anchors,
            server: &self.server,
            application: self.application.port(),
            tls12_only: false,
            asks: true,
            // Caddy reads none.
            revocation_list: (kind != Kind::Caddy).then_some(self.lists.as_str()),
        };
        let folder = self.setting.folder.subfolder(&id);
        let strict = Receiver::start(kind, &folder, &setup);
        self.moves(&ours, &strict);
        let url = strict.url("localhost");
        let strangers = self.destination(&self.globex, &id, &url);

        self.probe(&ours, "CHAIN").is_accepted(name);
        self.probe(&ours, "LEAF_ONLY").is_accepted(name);
        let revoked = format!("{}/destinations/{id}-revoked", self.acme);
        self.moves(&revoked, &strict);
        let revoked = self.probe(&revoked, "CHAIN");
        match kind {
            Kind::Caddy => revoked.is_accepted(name),
            // Its page does not say why.
            Kind::Nginx => revoked.is_refused(name, "FAILURE_CLASS_CLIENT_CERTIFICATE_REJECTED"),
            _ => revoked.is_refused(name, "FAILURE_CLASS_CLIENT_CERTIFICATE_REVOKED"),
        }
        let stranger = self.probe(&strangers, "CHAIN");
        stranger.is_refused(name, "FAILURE_CLASS_CLIENT_CA_NOT_TRUSTED");
        let nothing = self.probe(&ours, "NOTHING");
        nothing.is_refused(name, "FAILURE_CLASS_CLIENT_CERTIFICATE_REQUIRED");

        let setup = Setup {
            asks: false,
            revocation_list: None,
            ..setup
        };
        let folder = self.setting.folder.subfolder(&format!("{id}-open"));
        let open = Receiver::start(kind, &folder, &setup);
        self.moves(&ours, &open);
        let unasked = self.probe(&ours, "NOTHING");
        unasked.is_accepted(name);
        let requested = &unasked.answer["handshake"]["client_certificate_requested"];
        assert_eq!(*requested, false, "{name}");
    }

    fn moves(&self, destination: &str, receiver: &Receiver) {
        let moved = json!({"name": destination, "url": receiver.url("localhost")});
        let update = json!({"destination": moved});
        self.setting
            .api()
            .ok("DestinationService/UpdateDestination", &update);
    }
}

impl Probed {
    fn is_accepted(&self, name: &str) {
        let Self {
            presentation,
            answer,
        } = self;
        assert_eq!(answer["accepted"], true, "{name}, {presentation}: {answer}");
        assert_eq!(answer["resolution"], "", "{name}, {presentation}");
        self.saw_the_server(name);
    }

    fn is_refused(&self, name: &str, class: &str) {
        let Self {
            presentation,
            answer,
        } = self;
        assert_eq!(answer["class"], class, "{name}, {presentation}: {answer}");
        assert_eq!(answer["accepted"], false, "{name}, {presentation}");
        assert_ne!(answer["resolution"], "", "{name}, {presentation}");
        let requested = &answer["handshake"]["client_certificate_requested"];
        assert_eq!(*requested, true, "{name}, {presentation}");
        self.saw_the_server(name);
    }

    fn saw_the_server(&self, name: &str) {
        let chain = self.answer["server_chain"].as_array().unwrap();
        assert_eq!(chain[0]["subject"], "CN=localhost", "{name}");
        assert_eq!(chain[0]["issuer"], "CN=Receiver CA", "{name}");
    }
}

fn stage() -> Stage {
    let setting = Setting::new("probes");
    let receiver_ca = Authority::new("Receiver CA");
    let mut stage = Stage {
        server: receiver_ca.server(NOW),
        receiver_ca,
        application: ReceiverScript::start(setting.folder.subfolder("application")),
        acme: setting.account("acme"),
        globex: setting.account("globex"),
        lists: String::new(),
        setting,
    };
    // Two generations: what is served holds the anchors and the lists of both.
    let parent = json!({"parent": stage.acme});
    let api = stage.setting.api();
    api.ok("CertificateService/RotateCertificateAuthority", &parent);
    assert_eq!(blocks(&stage.served("/trust/accounts/acme.pem")), 2);
    for (_, name) in KINDS {
        let id = format!("{}-revoked", name.to_lowercase());
        stage.destination(&stage.acme, &id, "https://localhost/");
    }
    stage.lists = stage.lists_after_revocations();
    assert_eq!(blocks(&stage.lists), 2);
    stage
}

impl Stage {
    /// Revokes what is to be revoked, takes the lists, and puts the control plane back to before.
    fn lists_after_revocations(&mut self) -> String {
        let data_dir = self.setting.control_plane.data_dir();
        let copy = self.setting.folder.subfolder("copy");
        self.setting.control_plane.stop();
        copy_files(&data_dir, &copy);
        self.setting.control_plane.restart();
        for (_, name) in KINDS {
            let id = format!("{}-revoked", name.to_lowercase());
            let name = format!("{}/destinations/{id}/clientCertificates/1", self.acme);
            let method = "CertificateService/RevokeClientCertificate";
            self.setting.api().ok(method, &json!({"name": name}));
        }
        let lists = self.served("/crl/accounts/acme.pem");
        self.setting.control_plane.stop();
        copy_files(&copy, &data_dir);
        self.setting.control_plane.restart();
        lists
    }
}

/// Makes the files of one folder those of another.
fn copy_files(from: &Path, to: &Path) {
    let files = |folder: &Path| {
        let entries = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        entries.filter(|path| path.is_file()).collect::<Vec<_>>()
    };
    for old in files(to) {
        fs::remove_file(old).unwrap();
    }
    for file in files(from) {
        fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
    }
}

fn blocks(pem: &str) -> usize {
    pem.matches("-----BEGIN").count()
}

#[test]
fn every_kind_of_server_is_understood() {
    let stage = stage();
    let _agent = stage.setting.agent("edge-1", &["--log-filter", "info"]);
    thread::scope(|scope| {
        for (kind, name) in KINDS {
            let stage = &stage;
            scope.spawn(move || stage.try_kind(kind, name));
        }
    });
    // What OpenSSL, which most servers are made of, makes of the lists.
    let write = |name: &str, text: &str| {
        let path = stage.setting.folder.join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let anchors = write("anchors.pem", &stage.served("/trust/accounts/acme.pem"));
    let lists = write("lists.pem", &stage.lists);
    for (id, says) in [("nginx", ": OK"), ("nginx-revoked", "certificate revoked")] {
        let name = format!("{}/destinations/{id}/clientCertificates/1", stage.acme);
        let method = "CertificateService/GetClientCertificate";
        let answer = stage.setting.api().ok(method, &json!({"name": name}));
        let pem = answer["client_certificate"]["certificate_pem"].as_str();
        let certificate = write(&format!("{id}.pem"), pem.unwrap());
        let verdict = verdict(&anchors, &lists, &certificate);
        assert!(verdict.contains(says), "{id}: {verdict}");
    }
}

fn verdict(anchors: &Path, lists: &Path, certificate: &Path) -> String {
    let [anchors, lists, certificate] =
        [anchors, lists, certificate].map(|it| it.display().to_string());
    let look = ["verify", "-purpose", "sslclient", "-crl_check"];
    let files = ["-CAfile", &anchors, "-CRLfile", &lists, &certificate];
    openssl(&[&look[..], &files].concat(), &[]).all()
}
