//! An agent that was let in and does not keep to what it is there for: a session of its own, over which a story
//! says whatever it likes to the control plane.

use std::path::Path;

use countersign_agent::{
    identity::{
        Identity,
        enroll::{Enrolled, Enrollment, enroll},
    },
    transport::{ControlPlaneUrl, channel, dial},
};
use countersign_proto::v1::{
    ConnectRequest, ConnectResponse, Hello,
    agent_session_service_client::AgentSessionServiceClient, connect_request, connect_response,
};
use countersign_shared::{
    VERSION,
    hpke::RecipientKey,
    join_token::JoinToken,
    name::Id,
    time::{Clock as _, SystemClock},
    wire,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// A session that was welcomed.
pub struct FalseAgent {
    outgoing: mpsc::Sender<ConnectRequest>,
    incoming: Streaming<ConnectResponse>,
}

impl FalseAgent {
    /// Enrolls as `name` with its files in `folder`, connects, and waits for the welcome. It takes no jobs.
    ///
    /// # Panics
    /// When it is not let in.
    pub async fn connect(folder: &Path, agents_url: &str, token: &str, name: &str) -> Self {
        let url: ControlPlaneUrl = agents_url.parse().expect("a URL");
        let enrollment = Enrollment {
            kek_file: None,
            control_plane: url.clone(),
            token: JoinToken::parse(token).expect("a join token"),
            agent: Id::chosen(name).expect("an id").into(),
        };
        let enrolled = enroll(folder, &enrollment, SystemClock.now()).await;
        let (Enrolled::Now(identity) | Enrolled::Already(identity)) = enrolled.expect("enrolling");
        Self::with(&identity, &url).await
    }

    async fn with(identity: &Identity, url: &ControlPlaneUrl) -> Self {
        let tls = identity.tls().expect("a TLS configuration");
        let stream = dial(url, tls).await.expect("a connection");
        let channel = channel(url, stream).await.expect("HTTP/2");
        let key = RecipientKey::generate().expect("a key");
        let vouched = identity.vouch(key.public()).expect("a signature");
        let hello = Hello {
            version: VERSION.to_owned(),
            agent_time: Some(wire::timestamp_to_wire(SystemClock.now())),
            sealing_key: key.public().to_vec().into(),
            sealing_key_signature: vouched.into(),
            ..Hello::default()
        };
        let (outgoing, messages) = mpsc::channel(16);
        let mut client = AgentSessionServiceClient::new(channel);
        let hello = connect_request::Message::Hello(hello);
        outgoing.send(request(hello)).await.expect("room");
        let answer = client.connect(ReceiverStream::new(messages)).await;
        let mut agent = Self {
            outgoing,
            incoming: answer.expect("a session").into_inner(),
        };
        let first = agent.next().await;
        assert!(matches!(first, connect_response::Message::Welcome(_)));
        agent
    }

    /// Says something.
    ///
    /// # Panics
    /// When the session has ended.
    pub async fn say(&self, message: connect_request::Message) {
        self.outgoing
            .send(request(message))
            .await
            .expect("a session");
    }

    /// What it is told next.
    ///
    /// # Panics
    /// When the session has ended.
    pub async fn next(&mut self) -> connect_response::Message {
        let message = self.incoming.message().await.expect("no error");
        message.and_then(|it| it.message).expect("a message")
    }
}

fn request(message: connect_request::Message) -> ConnectRequest {
    ConnectRequest {
        message: Some(message),
    }
}
