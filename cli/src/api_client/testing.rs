//! A gRPC server for tests, over TLS and HTTP/2: it answers unary calls with what a closure says.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bytes::{BufMut as _, Bytes, BytesMut};
use countersign_shared::{
    tasks::{OnFailure, Tasks},
    time::{Clock as _, SystemClock},
    tls,
};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tonic::Code;

use crate::demo_pki;

/// A call: `package.Service/Method` without the package, the key, the encoded request.
pub(crate) struct Call {
    pub(crate) method: String,
    pub(crate) authorization: String,
    pub(crate) message: Bytes,
}

/// The encoded response, or a status with its message.
pub(crate) type Answer = Result<Vec<u8>, (Code, &'static str)>;

/// A server that is up.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) ca_pem: String,
    tasks: Tasks,
}

impl Server {
    /// Serves what `handler` says.
    pub(crate) async fn start(handler: impl Fn(Call) -> Answer + Send + Sync + 'static) -> Self {
        let identity = demo_pki::server_for_loopback(SystemClock.now()).unwrap();
        let mut config = ServerConfig::builder_with_provider(tls::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(identity.chain, identity.key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tasks, _failures) = Tasks::new();
        let handler = Arc::new(handler);
        let stop = tasks.shutdown().clone();
        let accepting = async move {
            let serving = async {
                loop {
                    let (tcp, _) = listener.accept().await.unwrap();
                    serve(&acceptor, tcp, &handler).await;
                }
            };
            stop.run_until_cancelled(serving).await;
            Ok::<_, Infallible>(())
        };
        tasks.spawn("test server", OnFailure::Log, accepting);
        Self {
            address,
            ca_pem: identity.ca_pem,
            tasks,
        }
    }

    pub(crate) async fn stop(self) {
        self.tasks.stop(Duration::from_secs(10)).await.unwrap();
    }
}

/// One connection after the other: no test needs more.
async fn serve<H>(acceptor: &TlsAcceptor, tcp: TcpStream, handler: &Arc<H>)
where
    H: Fn(Call) -> Answer + Send + Sync + 'static,
{
    let Ok(stream) = acceptor.accept(tcp).await else {
        return;
    };
    let service = service_fn(|request: Request<Incoming>| {
        let handler = Arc::clone(handler);
        async move { Ok::<_, Infallible>(answer(request, &*handler).await) }
    });
    let builder = http2::Builder::new(TokioExecutor::new());
    let _ = builder
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

type Body = http_body_util::combinators::BoxBody<Bytes, Infallible>;

async fn answer(request: Request<Incoming>, handler: &impl Fn(Call) -> Answer) -> Response<Body> {
    let (head, body) = request.into_parts();
    let framed = body.collect().await.unwrap().to_bytes();
    let result = handler(Call {
        method: head.uri.path().replacen("/countersign.v1.", "", 1),
        authorization: head.headers["authorization"].to_str().unwrap().to_owned(),
        // One byte for compression and four for the length come first.
        message: framed.slice(5..),
    });
    let (message, code, text) = match result {
        Ok(message) => (frame(&message), Code::Ok, ""),
        Err((code, text)) => (Bytes::new(), code, text),
    };
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", i32::from(code).into());
    trailers.insert("grpc-message", text.parse().unwrap());
    let body = Full::new(message).with_trailers(async { Some(Ok(trailers)) });
    let response = Response::builder().header("content-type", "application/grpc");
    response.body(body.boxed()).unwrap()
}

fn frame(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap());
    framed.put_slice(message);
    framed.freeze()
}
