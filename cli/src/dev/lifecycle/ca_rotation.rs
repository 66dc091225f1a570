//! An account's authority gets a new key while deliveries flow, and the receiver takes its time.

use std::time::Duration;

use countersign_proto::v1::{ClientCertificateState as State, RotationPhase, TrustState};
use tonic::Code;

use super::stage::{Seen, Stage};
use crate::{
    dev::{certificate::Certificate, failure::Failure, timeline::Entry},
    local::provision::ApiError,
};

const SOON: Duration = Duration::from_secs(15);
/// The receiver is asked again at growing distances.
const ASKED_AGAIN: Duration = Duration::from_secs(40);
const AGAIN: Duration = Duration::from_millis(200);
/// How many deliveries flow at least before the story goes on.
const FEW: u64 = 20;

/// Plays.
///
/// # Errors
/// [`Failure`].
pub(super) async fn play(stage: &mut Stage<'_>) -> Result<(), Failure> {
    let began = |seen: &Seen| seen.tally.received() >= FEW;
    stage.until("the first deliveries", SOON, began).await?;

    stage.chapter("PREPARED: generation 2 exists and is published, and signs nothing");
    let start = stage.now();
    let rotation = stage.api().rotate_authority(&stage.account).await?;
    expect(rotation.phase, RotationPhase::Prepared)?;
    tell_bundle(stage, "RotateCertificateAuthority").await?;
    let first = stage.seen.view.serial(1).to_owned();
    stage.carried(&first, FEW, SOON).await?;

    stage.chapter("ISSUING: generation 2 signs; the receiver still trusts generation 1 alone");
    let rotation = stage.api().advance_rotation(&stage.account).await?;
    expect(rotation.phase, RotationPhase::Issuing)?;
    stage.tell(Entry::new("AdvanceRotation is answered: ISSUING"));
    let waiting = "a certificate of generation 2 to be presented";
    let used = |seen: &Seen| {
        seen.view.is(2, State::Active) && seen.tally.webhooks(seen.view.serial(2)) > 0
    };
    stage.until(waiting, SOON, used).await?;
    let second = stage.seen.view.serial(2).to_owned();
    stage.tell(Entry::new(
        "Its chain leads to generation 1: nothing had to be done at the receiver",
    ));
    blocked(stage, "certificates of generation 1 are still in use").await?;
    let waiting = "the grace period of the last certificate of generation 1";
    stage
        .until(waiting, SOON, |seen| seen.view.is_gone(1))
        .await?;
    trust(stage, TrustState::ProbedRefused).await?;

    stage.chapter("RETIRING: no certificate of generation 1 is in use; who still needs it?");
    let rotation = stage.api().advance_rotation(&stage.account).await?;
    expect(rotation.phase, RotationPhase::Retiring)?;
    stage.tell(Entry::new("AdvanceRotation is answered: RETIRING"));
    blocked(stage, "the receiver does not trust generation 2 by itself").await?;
    let both = stage.anchors().await?;
    let entry = Entry::new("The receiver's operator installs the trust bundle")
        .fact("it trusts", names(&both));
    stage.receiver(entry, |demand| demand.anchors = both)?;
    trust(stage, TrustState::ProbedOk).await?;
    stage.carried(&second, FEW, SOON).await?;

    stage.chapter("STABLE: generation 1 is out of the trust bundle");
    let rotation = stage.api().advance_rotation(&stage.account).await?;
    expect(rotation.phase, RotationPhase::Stable)?;
    tell_bundle(stage, "AdvanceRotation").await?;
    let after = stage.anchors().await?;
    let entry = Entry::new("The receiver's operator installs the trust bundle again")
        .fact("it trusts", names(&after));
    stage.receiver(entry, |demand| demand.anchors = after)?;
    stage.carried(&second, 2 * FEW, SOON).await?;
    stage.took(
        "generation 1 → generation 2, all phases",
        start,
        stage.now(),
    );
    Ok(())
}

fn expect(phase: i32, expected: RotationPhase) -> Result<(), Failure> {
    if phase == i32::from(expected) {
        return Ok(());
    }
    let (phase, expected) = (
        RotationPhase::try_from(phase)
            .unwrap_or_default()
            .as_str_name(),
        expected.as_str_name(),
    );
    Err(Failure::Promise(format!(
        "the rotation is in {phase} and should be in {expected}"
    )))
}

/// Tells what receivers get now.
async fn tell_bundle(stage: &mut Stage<'_>, call: &str) -> Result<(), Failure> {
    let anchors = stage.anchors().await?;
    let entry = Entry::new(format!("{call} is answered"));
    stage.tell(entry.fact("the trust bundle holds", names(&anchors)));
    Ok(())
}

fn names(anchors: &[rustls_pki_types::CertificateDer<'static>]) -> String {
    let read = anchors.iter().filter_map(|der| Certificate::read(der));
    read.map(|it| it.common_name)
        .collect::<Vec<_>>()
        .join(" and ")
}

/// The rotation must not go on now.
async fn blocked(stage: &mut Stage<'_>, because: &str) -> Result<(), Failure> {
    match stage.api().advance_rotation(&stage.account).await {
        Err(error) if error.is(Code::FailedPrecondition) => {
            let ApiError::Refused { message, .. } = error else {
                return Err(error.into());
            };
            let headline = format!("AdvanceRotation is refused: {because}");
            stage.tell(Entry::new(headline).fact("it says", message));
            Ok(())
        }
        Err(error) => Err(error.into()),
        Ok(_) => Err(Failure::Promise(format!(
            "AdvanceRotation went on although {because}"
        ))),
    }
}

/// Waits until the receiver is known to stand so towards generation 2.
async fn trust(stage: &mut Stage<'_>, wanted: TrustState) -> Result<(), Failure> {
    let began = stage.now();
    loop {
        let found = stage
            .api()
            .trust(&stage.account, &stage.destination)
            .await?;
        if found.is_some_and(|it| it.state == i32::from(wanted)) {
            break;
        }
        if stage.now().since(began) > ASKED_AGAIN {
            let name = wanted.as_str_name();
            return Err(Failure::Promise(format!(
                "the receiver's trust was not seen to become {name}"
            )));
        }
        stage.linger(AGAIN).await?;
    }
    let name = wanted.as_str_name().trim_start_matches("TRUST_STATE_");
    let how = "a probe presented the certificate alone, without the cross-signed one";
    let what = match wanted {
        TrustState::ProbedOk => "it trusts generation 2 by itself",
        _ => "it still needs generation 1",
    };
    stage.tell(Entry::new(format!("The receiver's trust is {name}: {what}")).fact("because", how));
    Ok(())
}
