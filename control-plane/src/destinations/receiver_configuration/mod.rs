//! What a receiver's people install, as text: the configuration of their server with this
//! destination's names filled in, the trust anchor, and the steps. A pure function.
//!
//! Every text requires the client certificate, trusts the account's authority and nothing else,
//! accepts one more certificate between the two (a later generation's cross certificate), checks the
//! name in the certificate as well as its server can, and answers 403 when it is another's.

mod apache;
mod aws_alb;
mod caddy;
mod cloudflare;
mod envoy;
mod google_cloud;
mod haproxy;
mod nginx;

use countersign_shared::name::DestinationName;
use thiserror::Error;

use crate::ca::{ClientNames, pem};

/// What ends TLS at a receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerKind {
    /// nginx.
    Nginx,
    /// HAProxy.
    HaProxy,
    /// Apache HTTP Server.
    Apache,
    /// Caddy.
    Caddy,
    /// Envoy.
    Envoy,
    /// AWS Application Load Balancer.
    AwsAlb,
    /// Google Cloud Application Load Balancer.
    GoogleCloud,
    /// Cloudflare.
    Cloudflare,
}

/// What a receiver's people get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiverConfiguration {
    /// The configuration, to paste.
    pub text: String,
    /// The trust anchors in PEM.
    pub trust_anchor_pem: String,
    /// Where the configuration expects them.
    pub trust_anchor_file: String,
    /// What to do, in order.
    pub steps: Vec<String>,
    /// Path of the trust bundle at the HTTP listener.
    pub trust_bundle_path: String,
    /// Path of the revocation lists of all generations at the HTTP listener.
    pub revocation_lists_path: String,
}

/// Why there is no text.
#[derive(Debug, Error, PartialEq, Eq, Clone)]
pub enum ReceiverConfigurationError {
    /// A name that would mean something to the server that reads the configuration.
    #[error("'{0}' can't be written into a server's configuration")]
    Name(String),
}

/// What goes into the texts: nothing but characters that no server's configuration gives a meaning.
#[derive(Debug)]
struct Values {
    /// The destination's resource name.
    name: String,
    account: String,
    destination: String,
    common_name: String,
    uri: String,
    anchors_pem: String,
    revocation_lists_path: String,
}

/// The configuration of a `kind` that receives `destination`'s deliveries: `names` are those in the
/// client certificate, `anchors` the account's trust anchors in DER.
///
/// # Errors
/// [`ReceiverConfigurationError`]: a name with characters beyond `A-Z a-z 0-9 . : / _ -`.
pub fn receiver_configuration(
    kind: ServerKind,
    destination: &DestinationName,
    names: &ClientNames,
    anchors: &[Vec<u8>],
) -> Result<ReceiverConfiguration, ReceiverConfigurationError> {
    // Those that a shared authority signs have a DNS name.
    let authority = match names.dns {
        Some(_) => "shared".to_owned(),
        None => plain(destination.account_name().to_string().as_str())?,
    };
    let revocation_lists_path = format!("/crl/{authority}.pem");
    let values = Values {
        revocation_lists_path: revocation_lists_path.clone(),
        name: plain(destination.as_str())?,
        account: plain(destination.account())?,
        destination: plain(destination.destination())?,
        common_name: plain(&names.common_name)?,
        uri: plain(&names.uri)?,
        anchors_pem: anchors.iter().map(|anchor| pem(anchor)).collect(),
    };
    let (text, steps) = match kind {
        ServerKind::Nginx => nginx::configuration(&values),
        ServerKind::HaProxy => haproxy::configuration(&values),
        ServerKind::Apache => apache::configuration(&values),
        ServerKind::Caddy => caddy::configuration(&values),
        ServerKind::Envoy => envoy::configuration(&values),
        ServerKind::AwsAlb => aws_alb::configuration(&values),
        ServerKind::GoogleCloud => google_cloud::configuration(&values),
        ServerKind::Cloudflare => cloudflare::configuration(&values),
    };
    let trust_anchor_file = match kind {
        ServerKind::AwsAlb | ServerKind::GoogleCloud | ServerKind::Cloudflare => {
            values.anchor_name()
        }
        _ => values.anchor_file(),
    };
    Ok(ReceiverConfiguration {
        text,
        trust_anchor_pem: values.anchors_pem,
        trust_anchor_file,
        steps,
        trust_bundle_path: format!("/trust/{authority}.pem"),
        revocation_lists_path,
    })
}

/// Ids, host names and `spiffe://` URIs have no other characters.
fn plain(text: &str) -> Result<String, ReceiverConfigurationError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".:/_-".contains(&byte);
    if !text.is_empty() && text.bytes().all(allowed) {
        Ok(text.to_owned())
    } else {
        Err(ReceiverConfigurationError::Name(text.to_owned()))
    }
}

impl Values {
    /// File name of the trust anchors.
    fn anchor_name(&self) -> String {
        format!("{}-ca.pem", self.account)
    }

    /// Where a server finds the trust anchors.
    fn anchor_file(&self) -> String {
        format!("/etc/countersign/{}", self.anchor_name())
    }

    /// Where a server finds the revocation list.
    fn crl_file(&self) -> String {
        format!("/etc/countersign/{}-crl.pem", self.account)
    }

    /// A name for what is made of the account's trust, of at most `most` characters.
    fn resource(&self, most: usize) -> String {
        let name: String = format!("countersign-{}", self.account)
            .chars()
            .take(most)
            .collect();
        name.trim_end_matches('-').to_owned()
    }

    /// The first lines of every text.
    fn head(&self) -> String {
        format!(
            "# Countersign delivers {} here, over mutual TLS.\n\
             # Lines marked CHANGE are yours to fit; leave the others as they are.\n",
            self.name
        )
    }

    /// The first step for a server on a host.
    fn install_anchor(&self) -> String {
        format!(
            "Write trust_anchor_pem to {}: it is public, mode 0644.",
            self.anchor_file()
        )
    }
}

/// The last step everywhere.
const TRY_IT: &str = "Call ProbeDestination: it says that the certificate is accepted, or which part \
                      of the handshake failed and what to do.";

#[cfg(test)]
mod tests;
