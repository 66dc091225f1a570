//! Opens a session: a fresh connection with the identity in use, `hello`, and the control plane's
//! `welcome`.

use std::time::Duration;

use countersign_proto::v1::{
    ConnectRequest, ConnectResponse, Hello, Welcome,
    agent_session_service_client::AgentSessionServiceClient, connect_request,
    connect_response::Message,
};
use countersign_shared::hpke::HpkeError;
use thiserror::Error;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::{
    identity::{Identity, IdentityError},
    transport::{ControlPlaneUrl, DialError, MAX_MESSAGE, channel, code_name, dial},
};

/// How long the control plane may take to say welcome.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(30);
/// Messages on their way out; more wait in the session, which goes on reading meanwhile.
const OUTGOING: usize = 16;

/// An open session.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) welcome: Welcome,
    pub(super) incoming: Streaming<ConnectResponse>,
    pub(super) outgoing: mpsc::Sender<ConnectRequest>,
}

/// Why there is no session.
#[derive(Debug, Error)]
pub(super) enum OpenError {
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("{}", refusal(.0))]
    Refused(#[from] Status),
    #[error("the control plane did not say welcome within {} s", WELCOME_TIMEOUT.as_secs())]
    Silent,
    #[error("the control plane's first message is not welcome")]
    NoWelcome,
    #[error("no key could be made for the session ({0})")]
    Key(#[from] HpkeError),
    #[error("the identity's key does not sign ({0})")]
    Sign(#[from] rcgen::Error),
}

fn refusal(status: &Status) -> String {
    let (code, message) = (code_name(status.code()), status.message());
    let advice = match status.code() {
        Code::Unauthenticated => {
            "; if the agent was evicted or its identity has expired, remove the file 'identity' \
             from the data directory and enroll again with a new join token: one that recovers keeps the \
             agent's name"
        }
        _ => "",
    };
    format!("the control plane ended the session ({code}): {message}{advice}")
}

/// Opens a session with `hello`.
pub(super) async fn open(
    url: &ControlPlaneUrl,
    identity: &Identity,
    hello: Hello,
) -> Result<Open, OpenError> {
    let stream = dial(url, identity.tls()?).await?;
    let mut client = AgentSessionServiceClient::new(channel(url, stream).await?)
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let (outgoing, messages) = mpsc::channel(OUTGOING);
    let hello = ConnectRequest {
        message: Some(connect_request::Message::Hello(hello)),
    };
    // There is room for the first.
    outgoing.try_send(hello).map_err(|_| OpenError::Silent)?;
    let talk = async {
        let answer = client.connect(ReceiverStream::new(messages)).await?;
        let mut incoming = answer.into_inner();
        let first = incoming.message().await?.and_then(|it| it.message);
        match first {
            Some(Message::Welcome(welcome)) => Ok(Open {
                welcome,
                incoming,
                outgoing,
            }),
            _ => Err(OpenError::NoWelcome),
        }
    };
    timeout(WELCOME_TIMEOUT, talk)
        .await
        .map_err(|_| OpenError::Silent)?
}
