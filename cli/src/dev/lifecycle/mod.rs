//! `countersign dev --story`: what becomes of certificates in minutes instead of months, while
//! deliveries flow, told as it happens, with a summary of what both ends counted.
//!
//! Floors in this folder, lowest first; a module imports only from floors below its own:
//!
//! 1. `list`, `tally`, `traffic`
//! 2. `outcome`, `view`
//! 3. `stock`
//! 4. `stage`
//! 5. `ca_rotation`, `expiry`, `revocation`, `rotation`

mod ca_rotation;
mod expiry;
mod list;
mod outcome;
mod revocation;
mod rotation;
mod stage;
mod stock;
mod tally;
mod traffic;
mod view;

use std::time::Duration;

use clap::ValueEnum;
use countersign_proto::v1::TrustModel;

pub(crate) use outcome::Outcome;

use super::{failure::Failure, system::System};
use stage::{Setting, Stage};

/// What there is to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Story {
    /// Client certificates renew by themselves, on request, and past a receiver that refuses one
    Rotation,
    /// An account's authority gets a new key; the receiver changes its trust when it likes
    CaRotation,
    /// A certificate is revoked amid busy connections
    Revocation,
    /// Nobody renews a certificate that the receiver's CA signs, and it ends
    Expiry,
}

const DAY: Duration = Duration::from_secs(24 * 3600);

impl Story {
    /// As it is asked for.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rotation => "rotation",
            Self::CaRotation => "ca-rotation",
            Self::Revocation => "revocation",
            Self::Expiry => "expiry",
        }
    }

    /// `life`, in seconds, is of the certificates whose end matters to the story.
    fn setting(self, life: u64) -> Setting {
        let usual = Setting {
            life,
            grace: (life / 6).max(1),
            rate: 20,
            takes: Duration::ZERO,
            trust_model: TrustModel::Dedicated,
            server_life: 90 * DAY,
        };
        match self {
            Self::Rotation => usual,
            // The waits between probes go with the life, and no certificate ends in this story.
            Self::CaRotation => Setting {
                life: 300,
                grace: 2,
                ..usual
            },
            Self::Revocation => Setting {
                life: 3600,
                grace: 60,
                rate: 100,
                takes: Duration::from_millis(40),
                ..usual
            },
            Self::Expiry => Setting {
                trust_model: TrustModel::Customer,
                server_life: expiry::ALMOST_OVER,
                ..usual
            },
        }
    }

    /// Classes of failed attempts that are part of the story.
    fn allowed(self) -> &'static [&'static str] {
        match self {
            Self::Rotation | Self::CaRotation => &[],
            Self::Revocation => revocation::CUT_OFF,
            Self::Expiry => &["CLIENT_CERTIFICATE_EXPIRED"],
        }
    }
}

/// Plays a story from its beginning to its end, and judges it.
///
/// # Errors
/// [`Failure`] when it broke off; what was started until then is in `system`.
pub(crate) async fn play(system: &mut System, story: Story, life: u64) -> Result<Outcome, Failure> {
    let mut stage = Stage::set(system, story.name(), story.setting(life)).await?;
    let life = Duration::from_secs(life);
    let played = match story {
        Story::Rotation => rotation::play(&mut stage, life).await,
        Story::CaRotation => ca_rotation::play(&mut stage).await,
        Story::Revocation => revocation::play(&mut stage).await,
        Story::Expiry => expiry::play(&mut stage, life).await,
    };
    stage.catch_up();
    played?;
    let mut outcome = stage.end(story.name()).await?;
    outcome.judge(story.allowed());
    Ok(outcome)
}
