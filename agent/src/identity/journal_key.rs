//! The journal's key where the agent keeps none: the control plane releases it at each start, sealed to a key that
//! is made for that and vouched for by the identity. It is held in memory alone, so the disk of an agent that
//! was taken out tells nothing of what it has delivered, or with which keys.

use std::time::Duration;

use countersign_proto::v1::{
    ReleaseJournalKeyRequest, enrollment_service_client::EnrollmentServiceClient,
};
use countersign_shared::{
    hpke::{self, HpkeError, RecipientKey, Sealed},
    random,
    seal::{SealError, SealingKey},
};
use thiserror::Error;
use tonic::{Code, Status};

use super::agent_identity::{Identity, IdentityError};
use crate::transport::{ControlPlaneUrl, DialError, Places, channel, dial};

/// How long one try may take, and how long to wait between two: it grows up to the second.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Why there is no key.
#[derive(Debug, Error)]
pub enum JournalKeyError {
    /// The control plane says no.
    #[error("the control plane does not release the journal's key: {0}")]
    Refused(String),
    /// The identity is not usable.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A key could not be made, or the answer does not open.
    #[error("the journal's key: {0}")]
    Hpke(#[from] HpkeError),
    /// The identity's key does not sign.
    #[error("the journal's key: {0}")]
    Key(#[from] rcgen::Error),
    /// What was released is no key.
    #[error("the journal's key: {0}")]
    Seal(#[from] SealError),
}

/// Why one try came to nothing, and the next may not.
#[derive(Debug, Error)]
enum Failed {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("{0}")]
    Transport(#[from] tonic::transport::Error),
    #[error("{0}")]
    Answer(String),
    #[error("no answer within {} s", CALL_TIMEOUT.as_secs())]
    Timeout,
    #[error(transparent)]
    ForGood(#[from] JournalKeyError),
}

/// Asks until the key is there: any of the control planes will do.
///
/// # Errors
/// [`JournalKeyError`] when trying again does not help.
pub async fn released(identity: &Identity, places: &Places) -> Result<SealingKey, JournalKeyError> {
    let mut window = PAUSE.0;
    loop {
        let place = places.current();
        match ask(identity, place).await {
            Ok(key) => return Ok(key),
            Err(Failed::ForGood(error)) => return Err(error),
            Err(error) => {
                tracing::warn!(control_plane = %place, %error, "the journal's key is not released yet; trying again");
            }
        }
        places.next();
        tokio::time::sleep(window / 2 + random::full_jitter(window / 2)).await;
        window = PAUSE.1.min(window * 2);
    }
}

async fn ask(identity: &Identity, place: &ControlPlaneUrl) -> Result<SealingKey, Failed> {
    let key = RecipientKey::generate().map_err(JournalKeyError::from)?;
    let signature = identity
        .vouch(key.public())
        .map_err(JournalKeyError::from)?;
    let request = ReleaseJournalKeyRequest {
        sealing_key: key.public().to_vec().into(),
        sealing_key_signature: signature.into(),
    };
    let tls = identity.tls().map_err(JournalKeyError::from)?;
    let asked = async {
        let stream = dial(place, tls).await?;
        let mut client = EnrollmentServiceClient::new(channel(place, stream).await?);
        let answer = client.release_journal_key(request).await;
        Ok::<_, Failed>(answer.map_err(|status| judged(&status))?.into_inner())
    };
    let answer = tokio::time::timeout(CALL_TIMEOUT, asked).await;
    let answer = answer.map_err(|_| Failed::Timeout)??;
    let sealed = Sealed {
        encapsulated_key: answer.encapsulated_key.to_vec(),
        ciphertext: answer.ciphertext.to_vec(),
    };
    let opened = key.open(&sealed, &hpke::journal_key_of(&identity.agent));
    let raw = opened.map_err(JournalKeyError::from)?;
    Ok(SealingKey::from_bytes(raw).map_err(JournalKeyError::from)?)
}

fn judged(status: &Status) -> Failed {
    let text = status.message().to_owned();
    match status.code() {
        Code::PermissionDenied | Code::Unauthenticated | Code::Unimplemented | Code::NotFound => {
            JournalKeyError::Refused(text).into()
        }
        _ => Failed::Answer(text),
    }
}
