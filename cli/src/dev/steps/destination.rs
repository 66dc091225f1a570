//! Step 3: the receiver, and the destination that leads to it.

use std::{sync::Arc, time::Duration};

use countersign_proto::v1;
use countersign_shared::{signature, tls::certificates_from_pem};
use rustls_pki_types::CertificateDer;
use tokio::{net::TcpListener, sync::mpsc};

use super::{account::Account, control_plane::ControlPlane};
use crate::{
    demo_pki::ServerIdentity,
    dev::{
        certificate::Certificate,
        failure::Failure,
        receiver::{self, Manner, door::Door, record::Event, webhook},
        story,
        system::System,
    },
    local::provision::Administrator,
    mutual_tls::Demand,
};

const ID: &str = "orders";

/// How a receiver is to be.
#[derive(Debug)]
pub(crate) struct Receiving {
    /// What it presents.
    pub(crate) identity: ServerIdentity,
    /// What it demands.
    pub(crate) demand: Demand,
    /// How long it takes for a webhook.
    pub(crate) takes: Duration,
    /// Who signs the client certificate.
    pub(crate) trust_model: v1::TrustModel,
}

impl Receiving {
    /// One that demands a client certificate of `anchors` and answers at once.
    pub(crate) fn of(identity: ServerIdentity, anchors: &[CertificateDer<'static>]) -> Self {
        Self {
            identity,
            demand: Demand::signed_by(anchors),
            takes: Duration::ZERO,
            trust_model: v1::TrustModel::Dedicated,
        }
    }
}

/// A destination whose receiver is up.
pub(crate) struct Destination {
    /// Its resource name.
    pub(crate) name: String,
    /// What happens at the receiver.
    pub(crate) events: mpsc::Receiver<Event>,
    /// What the receiver demands.
    pub(crate) door: Door,
}

/// Starts a receiver and makes a destination for it, or leads an earlier run's to it.
///
/// # Errors
/// [`Failure`].
pub(crate) async fn prepare(
    system: &mut System,
    plane: &ControlPlane,
    account: &Account,
    receiving: Receiving,
) -> Result<Destination, Failure> {
    system.wait_for("a destination with its client certificate");
    let listener = TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.map_err(Failure::io("the receiver can't listen"))?;
    let address = listener
        .local_addr()
        .map_err(Failure::io("the receiver's address"))?;
    let url = format!("https://{address}{}", webhook::PATH);
    let wanted = v1::Destination {
        url: url.clone(),
        server_ca_pem: receiving.identity.ca_pem.clone(),
        trust_model: receiving.trust_model.into(),
        ..v1::Destination::default()
    };
    let administrator = &plane.administrator;
    let (destination, origin) = administrator.destination(&account.name, ID, wanted).await?;
    let secret = administrator.signing_secret(&destination.name).await?;
    let secret =
        signature::secret_from_text(&secret).ok_or(Failure::Unreadable("the signing secret"))?;
    let anchors = receiving.demand.anchors.iter();
    let anchors: Vec<_> = anchors.filter_map(|der| Certificate::read(der)).collect();
    let door = Door::new(receiving.identity, receiving.demand)?;
    let clock = Arc::clone(&system.clock);
    let takes = receiving.takes;
    let manner = Manner { secret, takes };
    let events = receiver::start(listener, door.watch(), manner, clock, &system.tasks);
    system.tell(&story::receiver_up(&url, &anchors));
    system.report.receiver_url = Some(url);
    let issued = issued(administrator, &destination.active_client_certificate).await?;
    let entry = story::destination(&destination.name, origin, issued.as_ref());
    system.tell(&entry);
    Ok(Destination {
        name: destination.name,
        events,
        door,
    })
}

/// The certificate of that name, read; `None` without a name: a receiver's CA has to sign it first.
async fn issued(administrator: &Administrator, name: &str) -> Result<Option<Certificate>, Failure> {
    if name.is_empty() {
        return Ok(None);
    }
    let issued = administrator.client_certificate(name).await?;
    let issued = certificates_from_pem(&issued.certificate_pem)?;
    let issued = issued.first().and_then(|der| Certificate::read(der));
    let issued = issued.ok_or(Failure::Unreadable("the client certificate"))?;
    Ok(Some(issued))
}
