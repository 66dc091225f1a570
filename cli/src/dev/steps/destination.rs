//! Step 3: the receiver, and the destination that leads to it.

use std::sync::Arc;

use countersign_shared::{signature, tls::certificates_from_pem};
use tokio::{net::TcpListener, sync::mpsc};

use super::{account::Account, control_plane::ControlPlane};
use crate::{
    demo_pki,
    dev::{
        certificate::Certificate,
        failure::Failure,
        receiver::{self, record::Event, webhook},
        story,
        system::System,
    },
    mutual_tls::{HTTP_1_1, HTTP_2, server_config},
};

const ID: &str = "orders";

/// A destination whose receiver is up.
pub(crate) struct Destination {
    /// Its resource name.
    pub(crate) name: String,
    /// What happens at the receiver.
    pub(crate) events: mpsc::Receiver<Event>,
}

/// Starts a receiver and makes a destination for it, or leads an earlier run's to it.
///
/// # Errors
/// [`Failure`].
pub(crate) async fn prepare(
    system: &mut System,
    plane: &ControlPlane,
    account: &Account,
) -> Result<Destination, Failure> {
    system.wait_for("a destination with its client certificate");
    let listener = TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.map_err(Failure::io("the receiver can't listen"))?;
    let address = listener
        .local_addr()
        .map_err(Failure::io("the receiver's address"))?;
    let url = format!("https://{address}{}", webhook::PATH);
    let identity = demo_pki::server_for_loopback(system.clock.now())?;
    let administrator = &plane.administrator;
    let (destination, origin) = administrator
        .destination(&account.name, ID, &url, &identity.ca_pem)
        .await?;
    let secret = administrator.signing_secret(&destination.name).await?;
    let secret =
        signature::secret_from_text(&secret).ok_or(Failure::Unreadable("the signing secret"))?;
    let config = server_config(identity, &account.anchors, &[HTTP_2, HTTP_1_1])?;
    let clock = Arc::clone(&system.clock);
    let events = receiver::start(listener, config, secret, clock, &system.tasks);
    system.tell(&story::receiver_up(&url, &account.shown));
    system.report.receiver_url = Some(url);
    let name = &destination.active_client_certificate;
    let issued = administrator.client_certificate(name).await?;
    let issued = certificates_from_pem(&issued.certificate_pem)?;
    let issued = issued.first().and_then(|der| Certificate::read(der));
    let issued = issued.ok_or(Failure::Unreadable("the client certificate"))?;
    system.tell(&story::destination(&destination.name, origin, &issued));
    Ok(Destination {
        name: destination.name,
        events,
    })
}
