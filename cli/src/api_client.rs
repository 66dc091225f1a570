//! A gRPC client of the control plane's API: TLS 1.3 against one CA file, HTTP/2, and the API key
//! as a bearer token with every call.

use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use countersign_proto::v1::{
    account_service_client::AccountServiceClient,
    agent_administration_service_client::AgentAdministrationServiceClient,
    alert_service_client::AlertServiceClient, certificate_service_client::CertificateServiceClient,
    delivery_service_client::DeliveryServiceClient,
    destination_service_client::DestinationServiceClient,
};
use countersign_shared::{
    secret::SecretText,
    tls::{self, PemError},
};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no client.
#[derive(Debug, Error)]
pub(crate) enum ConnectError {
    /// The CA file.
    #[error("the control plane's CA file {0}: give the ca.pem of its data directory")]
    CaFile(#[from] PemError),
    /// A certificate in the CA file.
    #[error("the control plane's CA certificate is not usable: {0}")]
    Ca(rustls::Error),
    /// An API key with characters that no header takes.
    #[error("the API key is not one line of ASCII: was the right file given?")]
    Key,
    /// No connection.
    #[error("no connection to the control plane at {address}: {reason}")]
    Connection {
        /// Where to.
        address: SocketAddr,
        /// What was met, innermost cause included.
        reason: String,
    },
}

/// Adds the API key to every call.
#[derive(Clone)]
pub(crate) struct Bearer(MetadataValue<Ascii>);

/// The key is secret.
impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bearer")
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        metadata.insert("authorization", self.0.clone());
        Ok(request)
    }
}

type Authenticated = InterceptedService<Channel, Bearer>;

/// One connection to the API; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct ApiClient {
    channel: Channel,
    bearer: Bearer,
}

impl ApiClient {
    /// Connects to `address`, whose certificate must be for that IP address and of an authority in
    /// `ca_pem`. A call may take ten seconds.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub(crate) async fn connect(
        address: SocketAddr,
        ca_pem: &str,
        key: &SecretText,
    ) -> Result<Self, ConnectError> {
        let connector = TlsConnector::from(Arc::new(client_config(ca_pem)?));
        let bearer = bearer(key)?;
        let no_connection = |error: tonic::transport::Error| ConnectError::Connection {
            address,
            reason: innermost(&error),
        };
        let endpoint = Endpoint::from_shared(format!("https://{address}"))
            .map_err(no_connection)?
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(CALL_TIMEOUT);
        let channel = endpoint
            .connect_with_connector(tower::service_fn(move |_| {
                let connector = connector.clone();
                async move { open(address, &connector).await }
            }))
            .await
            .map_err(no_connection)?;
        Ok(Self { channel, bearer })
    }

    fn authenticated(&self) -> Authenticated {
        InterceptedService::new(self.channel.clone(), self.bearer.clone())
    }

    /// Accounts.
    pub(crate) fn accounts(&self) -> AccountServiceClient<Authenticated> {
        AccountServiceClient::new(self.authenticated())
    }

    /// Destinations.
    pub(crate) fn destinations(&self) -> DestinationServiceClient<Authenticated> {
        DestinationServiceClient::new(self.authenticated())
    }

    /// Certificates.
    pub(crate) fn certificates(&self) -> CertificateServiceClient<Authenticated> {
        CertificateServiceClient::new(self.authenticated())
    }

    /// Deliveries.
    pub(crate) fn deliveries(&self) -> DeliveryServiceClient<Authenticated> {
        DeliveryServiceClient::new(self.authenticated())
    }

    /// Alerts.
    pub(crate) fn alerts(&self) -> AlertServiceClient<Authenticated> {
        AlertServiceClient::new(self.authenticated())
    }

    /// Agents.
    pub(crate) fn agents(&self) -> AgentAdministrationServiceClient<Authenticated> {
        AgentAdministrationServiceClient::new(self.authenticated())
    }
}

fn bearer(key: &SecretText) -> Result<Bearer, ConnectError> {
    let text = SecretText::from(format!("Bearer {}", key.expose().trim()));
    let mut value = MetadataValue::try_from(text.expose()).map_err(|_| ConnectError::Key)?;
    value.set_sensitive(true);
    Ok(Bearer(value))
}

fn client_config(ca_pem: &str) -> Result<ClientConfig, ConnectError> {
    let mut roots = RootCertStore::empty();
    for certificate in tls::certificates_from_pem(ca_pem)? {
        roots.add(certificate).map_err(ConnectError::Ca)?;
    }
    let mut config = ClientConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(ConnectError::Ca)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

async fn open(
    address: SocketAddr,
    connector: &TlsConnector,
) -> io::Result<TokioIo<tokio_rustls::client::TlsStream<TcpStream>>> {
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    let name = ServerName::IpAddress(address.ip().into());
    Ok(TokioIo::new(connector.connect(name, tcp).await?))
}

/// The end of an error's chain of causes, which says more than "transport error".
fn innermost(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

#[cfg(test)]
pub(crate) mod testing;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_become_sensitive_bearer_headers() {
        let made = bearer(&SecretText::from("csk_abc\n".to_owned())).unwrap();
        assert_eq!(made.0.to_str().unwrap(), "Bearer csk_abc");
        assert!(made.0.is_sensitive());
        assert!(!format!("{made:?}").contains("csk_abc"));
        let error = bearer(&SecretText::from("a\nb".to_owned())).unwrap_err();
        assert!(matches!(error, ConnectError::Key));
        assert!(!error.to_string().contains("a\nb"));
    }

    #[test]
    fn a_ca_file_that_is_none_is_refused_with_the_remedy() {
        let error = client_config("hello").unwrap_err().to_string();
        assert!(error.contains("holds no certificate"), "{error}");
        assert!(error.contains("ca.pem"), "{error}");
    }

    #[tokio::test]
    async fn nobody_listening_is_said_with_the_address() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let now = countersign_shared::time::Timestamp::from_unix_seconds(1_700_000_000);
        let ca = crate::demo_pki::server_for_loopback(now).unwrap().ca_pem;
        let key = SecretText::from("k".to_owned());
        let error = ApiClient::connect(address, &ca, &key).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&address.to_string()), "{text}");
        assert!(text.to_lowercase().contains("refused"), "{text}");
    }

    #[tokio::test]
    async fn a_server_of_another_authority_gets_no_key() {
        let server = testing::Server::start(|call| panic!("called: {}", call.method)).await;
        let now = countersign_shared::time::Timestamp::from_unix_seconds(1_700_000_000);
        let other = crate::demo_pki::server_for_loopback(now).unwrap().ca_pem;
        let key = SecretText::from("k".to_owned());
        let connected = ApiClient::connect(server.address, &other, &key).await;
        let error = connected.unwrap_err().to_string();
        assert!(error.contains("certificate"), "{error}");
        server.stop().await;
    }
}
