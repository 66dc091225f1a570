//! A control plane that does what the test says: it enrolls and renews, and hands each session of
//! an agent to the test.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use countersign_proto::v1::{
    self, ConnectRequest, ConnectResponse, EnrollRequest, EnrollResponse, Hello,
    ReleaseJournalKeyRequest, ReleaseJournalKeyResponse, RenewIdentityRequest,
    RenewIdentityResponse,
    agent_session_service_server::{AgentSessionService, AgentSessionServiceServer},
    connect_request::Message as FromAgent,
    connect_response::Message as ToAgent,
    enrollment_service_server::{EnrollmentService, EnrollmentServiceServer},
};
use countersign_shared::{
    hpke::{PUBLIC_LENGTH, check_vouched},
    join_token::JoinToken,
    name::Id,
    tasks::{OnFailure, Tasks},
    tls, wire,
};
use rcgen::CertificateSigningRequestParams;
use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Response, Status, Streaming,
    transport::server::{Connected, Server},
};

use super::pki::Authority;

/// What the stand-in remembers and does.
pub(crate) struct State {
    agents: Authority,
    /// The answer to the next Enroll gets lost.
    pub(crate) lose_answer: AtomicBool,
    /// Renewals are refused.
    pub(crate) refuse_renewal: AtomicBool,
    /// Enroll refuses with this.
    pub(crate) refuse: Mutex<Option<Status>>,
    /// Public keys that asked for a certificate, in order.
    pub(crate) keys: Mutex<Vec<Vec<u8>>>,
    sessions: mpsc::Sender<Session>,
    tasks: Tasks,
}

/// A running stand-in.
pub(crate) struct ControlPlane {
    pub(crate) address: SocketAddr,
    pub(crate) ca: Authority,
    pub(crate) state: Arc<State>,
    sessions: mpsc::Receiver<Session>,
}

/// One session of an agent.
pub(crate) struct Session {
    /// The certificate that the agent presented.
    pub(crate) certificate: Option<Vec<u8>>,
    /// What the agent wants the secrets of bundles sealed to.
    pub(crate) sealing_key: [u8; PUBLIC_LENGTH],
    incoming: mpsc::UnboundedReceiver<ConnectRequest>,
    outgoing: mpsc::Sender<Result<ConnectResponse, Status>>,
}

impl ControlPlane {
    pub(crate) async fn start(tasks: &Tasks) -> Self {
        let ca = Authority::new("Countersign Server CA");
        let (sender, sessions) = mpsc::channel(16);
        let state = Arc::new(State {
            agents: Authority::new("Countersign Agent CA"),
            lose_answer: AtomicBool::new(false),
            refuse_renewal: AtomicBool::new(false),
            refuse: Mutex::default(),
            keys: Mutex::default(),
            sessions: sender,
            tasks: tasks.clone(),
        });
        let acceptor = TlsAcceptor::from(Arc::new(server_config(&ca, &state.agents)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        serve(tasks, listener, acceptor, &state);
        Self {
            address,
            ca,
            state,
            sessions,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    pub(crate) fn token(&self) -> JoinToken {
        JoinToken::generate(Id::chosen("token").unwrap(), self.ca.pin())
    }

    /// The agent's next session, its hello, and a welcome sent with `heartbeat_ms`.
    pub(crate) async fn session(&mut self, heartbeat_ms: i32) -> (Session, Hello) {
        let mut session = self.sessions.recv().await.unwrap();
        let FromAgent::Hello(hello) = session.hear().await.unwrap() else {
            panic!("the first message is not hello");
        };
        let certificate = session.certificate.as_deref().unwrap_or_default();
        let vouched = check_vouched(
            &"agents/edge-1".parse().unwrap(),
            &hello.sealing_key,
            &hello.sealing_key_signature,
            certificate,
        );
        session.sealing_key = vouched.unwrap();
        let millis = |millis: i32| prost_types::Duration {
            seconds: i64::from(millis / 1000),
            nanos: millis % 1000 * 1_000_000,
        };
        let welcome = v1::Welcome {
            session_id: "s".into(),
            heartbeat_interval: Some(millis(heartbeat_ms)),
            reconnect_window: Some(millis(20)),
            control_plane_time: None,
        };
        session.say(ToAgent::Welcome(welcome)).await;
        (session, hello)
    }
}

impl Session {
    /// The agent's next message; `None` when it has ended the session.
    pub(crate) async fn hear(&mut self) -> Option<FromAgent> {
        self.incoming.recv().await?.message
    }

    /// Whether the agent still listens.
    pub(crate) fn is_alive(&self) -> bool {
        !self.outgoing.is_closed()
    }

    /// The agent's next message that is neither a heartbeat nor credit.
    pub(crate) async fn listen(&mut self) -> FromAgent {
        loop {
            match self.hear().await.expect("the session ended") {
                FromAgent::Heartbeat(_) | FromAgent::Credit(_) => {}
                other => return other,
            }
        }
    }

    /// Says something; the secrets of a bundle are sealed.
    pub(crate) async fn say(&self, message: ToAgent) {
        let message = match message {
            ToAgent::Bundle(bundle) => {
                ToAgent::Bundle(wire::seal_bundle(bundle, &self.sealing_key).unwrap())
            }
            other => other,
        };
        self.say_as_it_is(message).await;
    }

    pub(crate) async fn say_as_it_is(&self, message: ToAgent) {
        let message = Some(message);
        let sent = self.outgoing.send(Ok(ConnectResponse { message })).await;
        sent.unwrap();
    }

    /// The next outcomes. That a bundle is in use is said by the first attempt with it, and comes before its
    /// outcome or behind it.
    pub(crate) async fn outcomes(&mut self) -> Vec<v1::Outcome> {
        loop {
            match self.listen().await {
                FromAgent::OutcomeReport(report) => return report.outcomes,
                FromAgent::BundleAcknowledgement(it) if it.status() == v1::BundleStatus::Active => {
                }
                other => panic!("no outcome: {other:?}"),
            }
        }
    }

    /// The next word on a bundle: generation, status and reason.
    pub(crate) async fn acknowledgement(&mut self) -> (i64, v1::BundleStatus, String) {
        match self.listen().await {
            FromAgent::BundleAcknowledgement(it) => (it.generation, it.status(), it.reason),
            other => panic!("no acknowledgement: {other:?}"),
        }
    }

    pub(crate) async fn acknowledge(&self, outcomes: &[v1::Outcome]) {
        let lease = |outcome: &v1::Outcome| v1::HeldLease {
            delivery_id: outcome.delivery_id.clone(),
            epoch: outcome.epoch,
        };
        let outcomes = outcomes.iter().map(lease).collect();
        self.say(ToAgent::OutcomeAcknowledgement(
            v1::OutcomeAcknowledgement { outcomes },
        ))
        .await;
    }
}

fn server_config(ca: &Authority, agents: &Authority) -> ServerConfig {
    let mut roots = RootCertStore::empty();
    roots.add(agents.der()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), tls::provider())
        .allow_unauthenticated()
        .build()
        .unwrap();
    let leaf = ca.server();
    let key = leaf.private_key();
    let mut config = ServerConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![leaf.certificate, ca.der()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

fn serve(tasks: &Tasks, listener: TcpListener, acceptor: TlsAcceptor, state: &Arc<State>) {
    let (connections, incoming) = mpsc::channel(16);
    let stop = tasks.shutdown().clone();
    tasks.spawn("control plane listener", OnFailure::Log, async move {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => return Ok::<_, io::Error>(()),
            };
            // A client that breaks off is the subject of some tests.
            if let Ok(stream) = acceptor.accept(accepted?.0).await
                && connections
                    .send(Ok::<_, io::Error>(Io(stream)))
                    .await
                    .is_err()
            {
                return Ok(());
            }
        }
    });
    let router = Server::builder()
        .add_service(EnrollmentServiceServer::from_arc(Arc::clone(state)))
        .add_service(
            AgentSessionServiceServer::from_arc(Arc::clone(state))
                .max_decoding_message_size(32 << 20)
                .max_encoding_message_size(32 << 20),
        );
    let stop = tasks.shutdown().clone();
    tasks.spawn("control plane", OnFailure::Log, async move {
        tokio::select! {
            served = router.serve_with_incoming(ReceiverStream::new(incoming)) => served,
            () = stop.cancelled() => Ok(()),
        }
    });
}

impl State {
    fn issue(&self, request: &[u8]) -> Result<Vec<bytes::Bytes>, Status> {
        let parsed = CertificateSigningRequestParams::from_der(&request.to_vec().into());
        let parsed = parsed.map_err(|_| Status::invalid_argument("bad signing request"))?;
        let key = rcgen::PublicKeyData::der_bytes(&parsed.public_key).to_vec();
        self.keys.lock().unwrap().push(key);
        if let Some(status) = self.refuse.lock().unwrap().clone() {
            return Err(status);
        }
        let certificate = self.agents.sign(&parsed.public_key);
        Ok(vec![certificate.to_vec().into()])
    }
}

#[tonic::async_trait]
impl EnrollmentService for State {
    async fn enroll(
        &self,
        request: Request<EnrollRequest>,
    ) -> Result<Response<EnrollResponse>, Status> {
        let request = request.into_inner();
        let certificate_chain = self.issue(&request.certificate_signing_request)?;
        if self.lose_answer.swap(false, Ordering::SeqCst) {
            return Err(Status::unavailable("the answer is lost"));
        }
        Ok(Response::new(EnrollResponse {
            agent: format!("agents/{}", request.agent_id),
            region: "eu".into(),
            certificate_chain,
        }))
    }

    async fn renew_identity(
        &self,
        request: Request<RenewIdentityRequest>,
    ) -> Result<Response<RenewIdentityResponse>, Status> {
        if peer(&request).is_none() {
            return Err(Status::unauthenticated("no certificate"));
        }
        let request = request.into_inner();
        let certificate_chain = self.issue(&request.certificate_signing_request)?;
        if self.refuse_renewal.load(Ordering::SeqCst) {
            return Err(Status::unavailable("try again"));
        }
        Ok(Response::new(RenewIdentityResponse { certificate_chain }))
    }

    async fn release_journal_key(
        &self,
        _: Request<ReleaseJournalKeyRequest>,
    ) -> Result<Response<ReleaseJournalKeyResponse>, Status> {
        Err(Status::unimplemented("these agents keep their own"))
    }
}

#[tonic::async_trait]
impl AgentSessionService for State {
    type ConnectStream = ReceiverStream<Result<ConnectResponse, Status>>;

    async fn connect(
        &self,
        request: Request<Streaming<ConnectRequest>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let certificate = peer(&request);
        let (outgoing, messages) = mpsc::channel(64);
        let (heard, incoming) = mpsc::unbounded_channel();
        let answers = outgoing.downgrade();
        let hearing = hear(request.into_inner(), heard, answers);
        self.tasks.spawn("session", OnFailure::Log, hearing);
        let session = Session {
            certificate,
            // Its hello says.
            sealing_key: [0; PUBLIC_LENGTH],
            incoming,
            outgoing,
        };
        let handed_over = self.sessions.send(session).await;
        handed_over.map_err(|_| Status::unavailable("the test has ended"))?;
        Ok(Response::new(ReceiverStream::new(messages)))
    }
}

/// Hands what the agent says to the test. That it is stopping is answered here, as a control plane
/// always does: that no more jobs come, after what the test has said.
async fn hear(
    mut incoming: Streaming<ConnectRequest>,
    heard: mpsc::UnboundedSender<ConnectRequest>,
    answers: mpsc::WeakSender<Result<ConnectResponse, Status>>,
) -> Result<(), Infallible> {
    while let Ok(Some(request)) = incoming.message().await {
        if let Some(FromAgent::Stopping(_)) = request.message {
            let message = Some(ToAgent::NoMoreJobs(v1::NoMoreJobs {}));
            if let Some(answers) = answers.upgrade() {
                // A test that has ended needs no answer.
                let _ = answers.send(Ok(ConnectResponse { message })).await;
            }
        } else if heard.send(request).is_err() {
            break;
        }
    }
    Ok(())
}

fn peer<T>(request: &Request<T>) -> Option<Vec<u8>> {
    request.extensions().get::<Peer>()?.0.clone()
}

#[derive(Clone)]
struct Peer(Option<Vec<u8>>);

/// A TLS stream as tonic wants it.
struct Io(TlsStream<TcpStream>);

impl Connected for Io {
    type ConnectInfo = Peer;
    fn connect_info(&self) -> Peer {
        let certificates = self.0.get_ref().1.peer_certificates();
        Peer(certificates.map(|chain| chain[0].to_vec()))
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
