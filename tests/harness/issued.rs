//! One of each: everything that the control plane's authority signs, signed by its own code in this
//! process. What the API gives out today is only part of it.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use countersign_control_plane::{
    auth,
    ca::{
        self, CLIENT_LIFE, CRL_LIFE, ClientNames, NewClient, NewGeneration, SigningAuthority,
        crl_pem, pem, request_pem,
    },
    kek::FileKek,
    model::{
        Account, Authority, AuthorityOwner, AuthorityState, ClientCertificateState, KeyAlgorithm,
        Revocation, RevocationReason, Serial, TrustModel,
    },
    store::{
        CertificateStore as _, Installation, InstallationStore as _, NewAccount, TenantStore as _,
        sqlite::SqliteStore,
    },
    vault::{INSTALLATION, ScopeKey, Vault},
};
use countersign_shared::{
    name::{AccountName, AgentName, DestinationName, Id},
    random,
    tasks::Tasks,
    time::{Clock as _, SystemClock, Timestamp},
};
use rcgen::{CertificateParams, KeyPair};

/// A file in PEM, and which other file's key has signed it.
#[derive(Debug, Clone)]
pub struct Signed {
    /// What it is.
    pub name: String,
    /// Where it is.
    pub file: PathBuf,
    /// The name of the certificate of who signed it; a self-signed one's own.
    pub signer: String,
}

/// Everything that is signed.
#[derive(Debug)]
pub struct Issued {
    /// Certificates.
    pub certificates: Vec<Signed>,
    /// Revocation lists.
    pub lists: Vec<Signed>,
    /// Serial number, in hexadecimal, of the certificate on the list that has entries.
    pub revoked: String,
    /// A signing request for a receiver's own CA, in PEM.
    pub request: PathBuf,
    /// SHA-256 of the public key in it.
    pub requested_key: [u8; 32],
    folder: PathBuf,
}

impl Issued {
    /// Signs all of it, now, and writes it into `folder`.
    ///
    /// # Panics
    /// When anything is not signed.
    pub fn everything(folder: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        runtime.expect("a runtime").block_on(issue(folder))
    }

    /// The file of a certificate or list.
    ///
    /// # Panics
    /// When there is none of that name.
    pub fn file(&self, name: &str) -> PathBuf {
        let mut all = self.certificates.iter().chain(&self.lists);
        let found = all.find(|signed| signed.name == name);
        found.unwrap_or_else(|| panic!("no {name}")).file.clone()
    }

    fn add(&mut self, name: &str, der: &[u8], signer: &str) {
        let signed = self.write(name, &pem(der), signer);
        self.certificates.push(signed);
    }

    fn add_authority(&mut self, name: &str, authority: &Authority, previous: &str) {
        let anchor = format!("{name}-anchor");
        self.add(&anchor, &authority.anchor, &anchor);
        if let Some(provenance) = &authority.provenance {
            self.add(&format!("{name}-provenance"), provenance, "root");
        }
        if let Some(cross) = &authority.cross {
            self.add(&format!("{name}-cross"), cross, previous);
        }
    }

    fn write(&self, name: &str, text: &str, signer: &str) -> Signed {
        let file = self.folder.join(format!("{name}.pem"));
        fs::write(&file, text).expect("a file");
        Signed {
            name: name.to_owned(),
            file,
            signer: signer.to_owned(),
        }
    }
}

/// The trust domain of what is signed.
const DOMAIN: &str = "bank.internal";
/// The end of DNS names in it.
const DELIVERY_DOMAIN: &str = "bank.example";
const INSTALLATION_ID: &str = "0a1b2c3d";

/// Signs for one installation with one account.
struct Signer {
    store: SqliteStore,
    vault: Vault,
    installation: Arc<ScopeKey>,
    account: Arc<ScopeKey>,
    root: SigningAuthority,
    now: Timestamp,
}

async fn issue(folder: &Path) -> Issued {
    let mut issued = Issued {
        certificates: Vec::new(),
        lists: Vec::new(),
        revoked: String::new(),
        request: folder.join("request.pem"),
        requested_key: [0; 32],
        folder: folder.to_owned(),
    };
    let (tasks, _failures) = Tasks::new();
    let signer = Signer::new(folder, &tasks, &mut issued).await;
    let [first, second] = signer.account(&mut issued).await;
    let shared = signer.shared(&mut issued).await;
    for (name, authority) in [
        ("acme-g1", &first),
        ("acme-g2", &second),
        ("shared-g1", &shared),
    ] {
        signer.clients(name, authority, &mut issued).await;
    }
    signer.list("acme-g1", &first, &[], &mut issued);
    signer.list("shared-g1", &shared, &[], &mut issued);
    let revoked = revocations(&issued.revoked, signer.now);
    signer.list("acme-g2", &second, &revoked, &mut issued);
    signer.request(&mut issued).await;
    drop(signer);
    let stopped = tasks.stop(Duration::from_secs(10)).await;
    stopped.expect("the store's threads end");
    issued
}

impl Signer {
    /// An installation: root, agents' and server's authority, and what these sign.
    async fn new(folder: &Path, tasks: &Tasks, issued: &mut Issued) -> Self {
        let store = SqliteStore::open(&folder.join("store.sqlite"), tasks).expect("a store");
        let kek = FileKek::create(&folder.join("kek")).expect("a key");
        let vault = Vault::new(Arc::new(kek));
        let (data_key, scope) = vault.new_scope(INSTALLATION).await.expect("a data key");
        let now = SystemClock.now();
        let serials: [Serial; 4] = std::array::from_fn(|_| Serial::from_random(random::bytes()));
        let recorded = store.record_serials(serials.to_vec(), now).await;
        recorded.expect("serial numbers");
        let root = ca::new_root(
            INSTALLATION_ID,
            ca::RootKey::Stored(KeyAlgorithm::EcdsaP256),
            &scope,
            serials[0],
            now,
        )
        .expect("a root");
        let pair = [serials[1], serials[2]];
        let agents = ca::new_agents_authority(INSTALLATION_ID, &root, &scope, pair, now);
        let agents = agents.expect("the agents' authority");
        let server = ca::new_server_authority(INSTALLATION_ID, &scope, serials[3], now);
        let server = server.expect("the server's authority");
        issued.add("root", &root.authority.anchor, "root");
        issued.add_authority("agents", &agents.authority, "");
        issued.add_authority("server", &server.authority, "");
        let installation = Installation {
            id: INSTALLATION_ID.to_owned(),
            kek_id: "test".to_owned(),
            data_key,
            authorities: Vec::new(),
            api_key: auth::generate(auth::KeyRequest::administrator(), now).0,
            created_at: now,
        };
        store.install(installation).await.expect("an installation");

        let key = KeyPair::generate().expect("a key");
        let request = CertificateParams::default().serialize_request(&key);
        let request = ca::parse_request(request.expect("a request").der()).expect("a request");
        let name = AgentName::from(Id::chosen("edge-1").expect("an id"));
        let identity =
            ca::issue_agent_identity(&name, DOMAIN, &request, &agents, &store, now).await;
        issued.add("agent", &identity.expect("an identity").0, "agents-anchor");
        let names = ["localhost".to_owned(), Ipv4Addr::LOCALHOST.to_string()];
        let certificate = ca::issue_server(&names, &server, &store, now).await;
        let certificate = certificate.expect("a certificate").0;
        issued.add("server", &certificate, "server-anchor");
        let (account, scope) = (account_scope(&vault, &store, &root, now).await, scope);
        Self {
            store,
            vault,
            installation: scope,
            account,
            root,
            now,
        }
    }

    /// Two generations of the account's authority.
    async fn account(&self, issued: &mut Issued) -> [SigningAuthority; 2] {
        let owner = AuthorityOwner::Account(account());
        let first = self.store.authorities(&owner).await.expect("authorities");
        let first = first.into_iter().next().expect("the first generation");
        let first = self.open(first).await;
        let next = NewGeneration {
            number: 2,
            state: AuthorityState::Prepared,
            previous: Some(&first),
        };
        let (root, scope, store) = (&self.root, &self.account, &self.store);
        let second =
            ca::new_account_authority(&account(), next, root, scope, store, self.now).await;
        let second = self.open(second.expect("an authority")).await;
        issued.add_authority("acme-g1", &first.authority, "");
        issued.add_authority("acme-g2", &second.authority, "acme-g1-anchor");
        [first, second]
    }

    async fn shared(&self, issued: &mut Issued) -> SigningAuthority {
        let (root, scope, store) = (&self.root, &self.installation, &self.store);
        let first = NewGeneration::FIRST;
        let shared = ca::new_shared_authority(first, root, scope, store, self.now).await;
        let shared = self.open(shared.expect("the shared authority")).await;
        issued.add_authority("shared-g1", &shared.authority, "");
        shared
    }

    async fn open(&self, authority: Authority) -> SigningAuthority {
        let opened = SigningAuthority::open(authority, &self.store, &self.vault).await;
        opened.expect("its key")
    }

    /// A client certificate with each kind of key.
    async fn clients(&self, name: &str, authority: &SigningAuthority, issued: &mut Issued) {
        let destination = destination();
        let trust_model = match authority.authority.owner {
            AuthorityOwner::Shared => TrustModel::Shared,
            _ => TrustModel::Dedicated,
        };
        for (kind, key_algorithm) in [
            ("p256", KeyAlgorithm::EcdsaP256),
            ("p384", KeyAlgorithm::EcdsaP384),
            ("rsa2048", KeyAlgorithm::Rsa2048),
            ("rsa3072", KeyAlgorithm::Rsa3072),
        ] {
            let new = NewClient {
                destination: &destination,
                version: 1,
                names: &ClientNames::of(trust_model, DOMAIN, DELIVERY_DOMAIN, &destination),
                key_algorithm,
                life: CLIENT_LIFE,
                state: ClientCertificateState::Active,
                with_cross: true,
            };
            let (scope, store) = (&self.account, &self.store);
            let made = ca::issue_client(&new, authority, scope, store, self.now).await;
            let made = made.expect("a client certificate");
            let signer = format!("{name}-anchor");
            issued.add(&format!("{name}-{kind}"), &made.certificate, &signer);
            issued.revoked = match (name, kind) {
                ("acme-g2", "p384") => made.serial,
                _ => std::mem::take(&mut issued.revoked),
            };
        }
    }

    async fn request(&self, issued: &mut Issued) {
        let destination = destination();
        let names = ClientNames::of(TrustModel::Customer, DOMAIN, DELIVERY_DOMAIN, &destination);
        let key = KeyAlgorithm::EcdsaP384;
        let made = ca::new_request(&destination, 1, &names, key, &self.account).await;
        let made = made.expect("a signing request");
        issued.requested_key = made.public_key_sha256;
        fs::write(&issued.request, request_pem(&made.der)).expect("a file");
    }

    fn list(
        &self,
        name: &str,
        authority: &SigningAuthority,
        revoked: &[Revocation],
        issued: &mut Issued,
    ) {
        let crl = ca::sign_crl(authority, 7, revoked, self.now, CRL_LIFE);
        let text = crl_pem(&crl.expect("a revocation list").der);
        let signed = issued.write(&format!("{name}-crl"), &text, &format!("{name}-anchor"));
        issued.lists.push(signed);
    }
}

fn destination() -> DestinationName {
    let name = "accounts/acme/destinations/orders";
    name.parse().expect("a resource name")
}

fn account() -> AccountName {
    AccountName::from(Id::chosen("acme").expect("an id"))
}

/// The account is stored, so that its authority's key can be opened.
async fn account_scope(
    vault: &Vault,
    store: &SqliteStore,
    root: &SigningAuthority,
    now: Timestamp,
) -> Arc<ScopeKey> {
    let made = vault.new_scope(&account().to_string()).await;
    let (data_key, scope) = made.expect("a data key");
    let first = NewGeneration::FIRST;
    let first = ca::new_account_authority(&account(), first, root, &scope, store, now).await;
    let new = NewAccount {
        account: Account {
            name: account(),
            display_name: String::new(),
            created_at: now,
            updated_at: now,
            revision: 1,
        },
        data_key,
        authority: first.expect("an authority"),
        request: None,
    };
    store.create_account(new).await.expect("an account");
    scope
}

/// One of ours, one without a reason, and one with the longest serial number that there can be.
fn revocations(ours: &str, now: Timestamp) -> Vec<Revocation> {
    let entry = |serial: &str, reason| Revocation {
        serial: serial.to_owned(),
        revoked_at: now,
        reason,
        not_after: now.plus(CLIENT_LIFE),
    };
    vec![
        entry(ours, RevocationReason::KeyCompromise),
        entry("01", RevocationReason::Unspecified),
        entry(&"7f".repeat(20), RevocationReason::Superseded),
    ]
}
