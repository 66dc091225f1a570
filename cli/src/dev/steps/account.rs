//! Step 2: an account, and the trust anchor that its receivers install.

use rustls_pki_types::CertificateDer;

use super::control_plane::ControlPlane;
use crate::{
    dev::{certificate::Certificate, failure::Failure, story, system::System},
    local::trust_anchor,
};

/// An account.
pub(crate) struct Account {
    /// Its resource name.
    pub(crate) name: String,
    /// What its receivers install.
    pub(crate) anchors: Vec<CertificateDer<'static>>,
}

/// Makes the account `id` or takes an earlier run's.
///
/// # Errors
/// [`Failure`].
pub(crate) async fn prepare(
    system: &mut System,
    plane: &ControlPlane,
    id: &str,
) -> Result<Account, Failure> {
    system.wait_for("an account with its certificate authority");
    let (account, origin) = plane.administrator.account(id, "Demonstration").await?;
    let url = trust_anchor::url(plane.addresses.http, &account.name);
    let anchors = trust_anchor::fetch(&url).await?;
    let shown = anchors.iter().map(|der| Certificate::read(der));
    let shown: Vec<_> = shown
        .collect::<Option<_>>()
        .ok_or(Failure::Unreadable("a trust anchor"))?;
    system.tell(&story::account(&account.name, origin, &url, &shown));
    Ok(Account {
        name: account.name,
        anchors,
    })
}
