//! A sender that submits at a high rate: the stream SubmitDeliveries, over TLS that trusts the
//! control plane's CA alone.

use std::{net::SocketAddr, path::Path, sync::Arc};

use countersign_proto::v1::delivery_service_client::DeliveryServiceClient;
use countersign_shared::tls;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

/// The client of DeliveryService.
pub type DeliveryClient = DeliveryServiceClient<InterceptedService<Channel, ApiKey>>;

/// Adds the API key to every call.
#[derive(Clone)]
pub struct ApiKey(MetadataValue<Ascii>);

impl Interceptor for ApiKey {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request
            .metadata_mut()
            .insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// Connects to the API at `address` with an API key.
///
/// # Errors
/// When nothing answers there.
///
/// # Panics
/// When `ca_file` holds no certificate or `key` is no header value: mistakes of the test.
pub async fn connect(
    address: SocketAddr,
    ca_file: &Path,
    key: &str,
) -> Result<DeliveryClient, tonic::transport::Error> {
    let connector = TlsConnector::from(Arc::new(tls_client(ca_file)));
    let name = ServerName::from(address.ip());
    let connect = tower::service_fn(move |_| {
        let (connector, name) = (connector.clone(), name.clone());
        async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let stream = connector.connect(name, stream).await?;
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    });
    let endpoint = Endpoint::from_shared(format!("https://{address}")).expect("a URL");
    let channel = endpoint.connect_with_connector(connect).await?;
    let key = format!("Bearer {key}").parse().expect("a header value");
    Ok(DeliveryServiceClient::with_interceptor(
        channel,
        ApiKey(key),
    ))
}

fn tls_client(ca_file: &Path) -> rustls::ClientConfig {
    let pem = std::fs::read_to_string(ca_file).expect("the CA file");
    let mut roots = rustls::RootCertStore::empty();
    for certificate in tls::certificates_from_pem(&pem).expect("certificates") {
        roots.add(certificate).expect("an authority");
    }
    let mut config = rustls::ClientConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has TLS 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}
