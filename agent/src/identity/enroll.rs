//! Enrollment: a join token becomes an identity.
//!
//! The key is made and on disk before the first call, so that an `enroll` that is repeated after a
//! lost answer asks for the same key. The control plane must present the CA that the token pins
//! before it learns anything of the token.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use countersign_proto::v1::{
    EnrollRequest, EnrollResponse, enrollment_service_client::EnrollmentServiceClient,
};
use countersign_shared::{
    join_token::JoinToken,
    name::{AgentName, NameError},
    time::Timestamp,
};
use thiserror::Error;

use super::{
    agent_identity::{Identity, IdentityError, Parts, der_chain},
    file::{FileError, IdentityFile, OnDisk, Pending},
    kek::{KekError, kek_file, open_kek, open_or_create_kek},
    keys,
    pin::PinVerifier,
};
use crate::{
    data_dir::{DataDir, DataDirError},
    transport::{ControlPlaneUrl, DialError, channel, code_name, dial, tls_builder},
};

/// What enrollment needs.
#[derive(Debug)]
pub struct Enrollment {
    /// Where the control plane is.
    pub control_plane: ControlPlaneUrl,
    /// The join token.
    pub token: JoinToken,
    /// The name that the agent wants.
    pub agent: AgentName,
    /// Where the agent\'s key is, or is made. Default: `kek` in the data directory.
    pub kek_file: Option<PathBuf>,
}

/// How enrollment ended well.
#[derive(Debug)]
pub enum Enrolled {
    /// There is an identity now.
    Now(Identity),
    /// There was a good one already; nothing was changed.
    Already(Identity),
}

/// Why there is no identity.
#[derive(Debug, Error)]
pub enum EnrollError {
    /// The data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The agent's key.
    #[error(transparent)]
    Kek(#[from] KekError),
    /// The identity file.
    #[error(transparent)]
    File(#[from] FileError),
    /// Enrolled elsewhere.
    #[error(
        "this data directory belongs to {agent} of {control_plane}: use another data directory, or \
         remove {file} to give that identity up"
    )]
    Elsewhere {
        /// Who it is.
        agent: AgentName,
        /// Where it is enrolled.
        control_plane: ControlPlaneUrl,
        /// Which file to remove.
        file: String,
    },
    /// Enrolled here, and no longer valid.
    #[error(
        "the identity of {agent} was valid until {until}: remove {file} and enroll again with a new \
         join token, under another name or after EvictAgent"
    )]
    Expired {
        /// Who it is.
        agent: AgentName,
        /// Since when.
        until: Timestamp,
        /// Which file to remove.
        file: String,
    },
    /// The pin does not match.
    #[error(
        "{0} is not the control plane that made the token: its CA has another key. Check the \
         address, or make a token at that control plane"
    )]
    OtherControlPlane(ControlPlaneUrl),
    /// No connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The control plane refused.
    #[error("the control plane refused the enrollment ({code}): {message}")]
    Refused {
        /// The gRPC status code.
        code: &'static str,
        /// What it said.
        message: String,
    },
    /// A key could not be made or used.
    #[error("no key could be made for the agent ({0})")]
    Key(#[from] rcgen::Error),
    /// An answer that makes no sense.
    #[error("the control plane's answer is not usable: {0}")]
    Name(#[from] NameError),
    /// A certificate that does not fit.
    #[error("the control plane's answer is not usable: {0}")]
    Identity(#[from] IdentityError),
}

/// Enrolls the agent of `data_dir`.
///
/// # Errors
/// [`EnrollError`]. After one a repeated call goes on where this one stopped.
pub async fn enroll(
    data_dir: &Path,
    enrollment: &Enrollment,
    now: Timestamp,
) -> Result<Enrolled, EnrollError> {
    // Looked at without taking the directory: an agent may be running on it.
    if let Some(already) = existing(data_dir, enrollment, now)? {
        return Ok(Enrolled::Already(already));
    }
    let taken = DataDir::take(data_dir)?;
    let kek = kek_file(taken.path(), enrollment.kek_file.as_deref());
    let file = IdentityFile::new(taken.path(), &open_or_create_kek(&kek)?);
    let pending = pending(&file, enrollment)?;
    let identity = exchange(enrollment, &pending).await?;
    file.save_identity(&identity)?;
    Ok(Enrolled::Now(identity))
}

/// The identity that is there already.
fn existing(
    data_dir: &Path,
    enrollment: &Enrollment,
    now: Timestamp,
) -> Result<Option<Identity>, EnrollError> {
    if !data_dir.join("identity").exists() {
        return Ok(None);
    }
    let kek = kek_file(data_dir, enrollment.kek_file.as_deref());
    let file = IdentityFile::new(data_dir, &open_kek(&kek)?);
    let OnDisk::Enrolled(identity) = file.load()? else {
        return Ok(None);
    };
    if identity.control_plane != enrollment.control_plane {
        return Err(EnrollError::Elsewhere {
            agent: identity.agent.clone(),
            control_plane: identity.control_plane.clone(),
            file: file.path().to_string(),
        });
    }
    if now >= identity.not_after {
        return Err(EnrollError::Expired {
            agent: identity.agent.clone(),
            until: identity.not_after,
            file: file.path().to_string(),
        });
    }
    Ok(Some(*identity))
}

/// The key to enroll with: that of an enrollment that was begun, or a new one, on disk either way.
fn pending(file: &IdentityFile, enrollment: &Enrollment) -> Result<Pending, EnrollError> {
    let private_key = match file.load()? {
        OnDisk::Pending(begun) => begun.private_key,
        OnDisk::Nothing | OnDisk::Enrolled(_) => keys::generate()?,
    };
    let pending = Pending {
        agent: enrollment.agent.clone(),
        private_key,
    };
    file.save_pending(&pending)?;
    Ok(pending)
}

async fn exchange(enrollment: &Enrollment, pending: &Pending) -> Result<Identity, EnrollError> {
    let verifier = Arc::new(PinVerifier::new(enrollment.token.pin));
    let config = tls_builder()
        .map_err(DialError::Tls)?
        .dangerous() // stricter than the usual verifier: one authority, known by its key
        .with_custom_certificate_verifier(Arc::clone(&verifier) as _)
        .with_no_client_auth();
    let url = &enrollment.control_plane;
    let stream = match dial(url, config).await {
        Ok(stream) => stream,
        Err(_) if verifier.saw_another_authority() => {
            return Err(EnrollError::OtherControlPlane(url.clone()));
        }
        Err(error) => return Err(error.into()),
    };
    let ca = verifier.authority().ok_or(IdentityError::Authority)?;
    let request = EnrollRequest {
        token: enrollment.token.to_text().expose().to_owned(),
        agent_id: pending.agent.id().to_string(),
        certificate_signing_request: keys::signing_request(&pending.private_key)?.into(),
    };
    let mut client = EnrollmentServiceClient::new(channel(url, stream).await?);
    let answer = client.enroll(request).await.map_err(refusal)?.into_inner();
    let EnrollResponse {
        agent,
        region,
        certificate_chain,
    } = answer;
    Ok(Identity::new(Parts {
        control_plane: url.clone(),
        ca,
        agent: agent.parse()?,
        region,
        chain: der_chain(certificate_chain),
        private_key: pending.private_key.clone(),
    })?)
}

fn refusal(status: tonic::Status) -> EnrollError {
    EnrollError::Refused {
        code: code_name(status.code()),
        message: status.message().replace('\n', " "),
    }
}
