//! Clients of the product's gRPC in this process, over TLS that trusts the control plane's CA alone: a sender
//! that submits at a high rate, and a caller of whatever method with whatever credentials.

use std::{io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use bytes::{Buf as _, BufMut as _, Bytes};
use countersign_proto::v1::delivery_service_client::DeliveryServiceClient;
use countersign_shared::tls;
use hyper_util::rt::TokioIo;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::{
    Request, Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
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
    let channel = channel(address, ca_file, None).await?;
    let key = format!("Bearer {key}").parse().expect("a header value");
    Ok(DeliveryServiceClient::with_interceptor(
        channel,
        ApiKey(key),
    ))
}

/// A client's certificate chain and its private key.
pub type ClientIdentity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Connects to `address`, with a client certificate or without.
///
/// # Errors
/// When nothing answers there.
///
/// # Panics
/// When `ca_file` holds no certificate or the client's is none: mistakes of the test.
pub async fn channel(
    address: SocketAddr,
    ca_file: &Path,
    identity: Option<ClientIdentity>,
) -> Result<Channel, tonic::transport::Error> {
    let tls = Arc::new(tls_client(ca_file, identity));
    let connect = tower::service_fn(move |_| {
        let tls = Arc::clone(&tls);
        async move { Ok::<_, io::Error>(TokioIo::new(dial(address, tls).await?)) }
    });
    let endpoint = Endpoint::from_shared(format!("https://{address}")).expect("a URL");
    endpoint.connect_with_connector(connect).await
}

/// A TLS connection to `address`, for a story that speaks HTTP/2 itself.
///
/// # Errors
/// When nothing answers there.
///
/// # Panics
/// When `ca_file` holds no certificate: a mistake of the test.
pub async fn connection(address: SocketAddr, ca_file: &Path) -> io::Result<TlsStream<TcpStream>> {
    dial(address, Arc::new(tls_client(ca_file, None))).await
}

async fn dial(
    address: SocketAddr,
    tls: Arc<rustls::ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::from(address.ip());
    TlsConnector::from(tls).connect(name, stream).await
}

/// As [`call`], with an empty message, whatever that means to the method.
///
/// # Errors
/// As [`call`].
///
/// # Panics
/// As [`call`].
pub async fn call_empty(channel: &Channel, method: &str, key: Option<&str>) -> Result<(), Status> {
    call(channel, method, Bytes::new(), key).await
}

/// Calls `Service/Method` with a message as it is, and with this API key if any; waits for its first answer alone.
///
/// # Errors
/// What the call was answered with, when that is not OK.
///
/// # Panics
/// When `method` or `key` can't be sent: mistakes of the test.
pub async fn call(
    channel: &Channel,
    method: &str,
    message: Bytes,
    key: Option<&str>,
) -> Result<(), Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.expect("a connection");
    let path = format!("/countersign.v1.{method}").parse().expect("a path");
    let mut request = Request::new(tokio_stream::once(message));
    if let Some(key) = key {
        let value = format!("Bearer {key}").parse().expect("a header value");
        request.metadata_mut().insert("authorization", value);
    }
    // A call with one message has the same form on the wire, whether its method streams or not.
    let answers = client.streaming(request, path, Raw).await?;
    let mut answers = answers.into_inner();
    // A method that only watches has nothing to say yet: it let the caller in.
    let first = tokio::time::timeout(LET_IN, answers.message()).await;
    first.unwrap_or(Ok(None)).map(|_| ())
}

/// How long a stream that has begun may take to refuse after all.
const LET_IN: Duration = Duration::from_millis(300);

/// Messages as they are.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

fn tls_client(ca_file: &Path, identity: Option<ClientIdentity>) -> rustls::ClientConfig {
    let pem = std::fs::read_to_string(ca_file).expect("the CA file");
    let mut roots = rustls::RootCertStore::empty();
    for certificate in tls::certificates_from_pem(&pem).expect("certificates") {
        roots.add(certificate).expect("an authority");
    }
    let builder = rustls::ClientConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has TLS 1.3")
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => builder
            .with_client_auth_cert(chain, key)
            .expect("a certificate and its key"),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}
