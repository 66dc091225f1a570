//! Enrollment: the right control plane, once, with a key that survives a lost answer; and renewal.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use arc_swap::ArcSwap;
use countersign_agent::{
    identity::{
        Held, IdentityFile, OnDisk,
        enroll::{EnrollError, Enrolled, Enrollment, enroll},
        kek_file, open_kek, renew,
    },
    metrics::Metrics,
    transport::Places,
};
use countersign_shared::{
    join_token::JoinToken,
    tasks::Tasks,
    time::{Clock as _, ManualClock, SystemClock},
};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::support::{control_plane::ControlPlane, pki::Authority};

async fn enroll_at(url: &str, token: JoinToken, data_dir: &Path) -> Result<Enrolled, EnrollError> {
    let enrollment = Enrollment {
        kek_file: None,
        control_plane: url.parse().unwrap(),
        token,
        agent: "agents/edge-1".parse().unwrap(),
    };
    enroll(data_dir, &enrollment, SystemClock.now()).await
}

/// Others may enter a temporary directory, but not a data directory.
fn at(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("agent")
}

async fn with_control_plane() -> (Tasks, ControlPlane, tempfile::TempDir) {
    let (tasks, _failures) = Tasks::new();
    let control_plane = ControlPlane::start(&tasks).await;
    (tasks, control_plane, tempfile::tempdir().unwrap())
}

async fn stop(tasks: Tasks) {
    tasks.stop(Duration::from_secs(10)).await.unwrap();
}

#[tokio::test]
async fn a_token_becomes_an_identity_once() {
    let (tasks, control_plane, folder) = with_control_plane().await;
    let url = control_plane.url();
    let first = enroll_at(&url, control_plane.token(), &at(&folder)).await;
    let Enrolled::Now(identity) = first.unwrap() else {
        panic!("already enrolled");
    };
    assert_eq!(identity.agent.to_string(), "agents/edge-1");
    assert_eq!(identity.region, "eu");
    assert_eq!(identity.ca, control_plane.ca.der());

    let again = enroll_at(&url, control_plane.token(), &at(&folder)).await;
    assert!(matches!(again, Ok(Enrolled::Already(_))), "{again:?}");
    assert_eq!(control_plane.state.keys.lock().unwrap().len(), 1);

    let elsewhere = enroll_at("https://127.0.0.1:1", control_plane.token(), &at(&folder)).await;
    let error = elsewhere.unwrap_err().to_string();
    assert!(error.contains("belongs to agents/edge-1"), "{error}");

    for entry in std::fs::read_dir(at(&folder)).unwrap() {
        let raw = std::fs::read(entry.unwrap().path()).unwrap();
        let key = identity.private_key.expose();
        assert!(!raw.windows(key.len()).any(|window| window == key));
    }
    stop(tasks).await;
}

#[tokio::test]
async fn a_lost_answer_is_repeated_with_the_same_key() {
    let (tasks, control_plane, folder) = with_control_plane().await;
    control_plane
        .state
        .lose_answer
        .store(true, Ordering::SeqCst);
    let (url, token) = (control_plane.url(), control_plane.token());
    let lost = enroll_at(&url, token.clone(), &at(&folder)).await;
    let error = lost.unwrap_err().to_string();
    assert!(error.contains("UNAVAILABLE"), "{error}");
    let second = enroll_at(&url, token, &at(&folder)).await;
    assert!(matches!(second, Ok(Enrolled::Now(_))), "{second:?}");
    let keys = control_plane.state.keys.lock().unwrap().clone();
    assert_eq!(keys.len(), 2);
    assert_eq!(keys[0], keys[1]);
    stop(tasks).await;
}

#[tokio::test]
async fn another_control_plane_learns_nothing() {
    let (tasks, control_plane, folder) = with_control_plane().await;
    let other = Authority::new("Countersign Server CA");
    let token = JoinToken::generate(control_plane.token().id, other.pin());
    let refused = enroll_at(&control_plane.url(), token, &at(&folder)).await;
    let error = refused.unwrap_err().to_string();
    assert!(
        error.contains("not the control plane that made the token"),
        "{error}"
    );
    assert!(control_plane.state.keys.lock().unwrap().is_empty());
    stop(tasks).await;
}

#[tokio::test]
async fn a_refusal_is_one_clear_line() {
    let (tasks, control_plane, folder) = with_control_plane().await;
    let status = Status::unauthenticated("the join token has expired:\nmake a new one");
    *control_plane.state.refuse.lock().unwrap() = Some(status);
    let refused = enroll_at(&control_plane.url(), control_plane.token(), &at(&folder)).await;
    let error = refused.unwrap_err().to_string();
    assert_eq!(
        error,
        "the control plane refused the enrollment (UNAUTHENTICATED): the join token has expired: \
         make a new one"
    );
    stop(tasks).await;
}

#[tokio::test]
async fn nobody_there_is_told_with_the_address() {
    let (tasks, control_plane, folder) = with_control_plane().await;
    let nobody = enroll_at("https://127.0.0.1:1", control_plane.token(), &at(&folder)).await;
    let error = nobody.unwrap_err().to_string();
    assert!(error.contains("127.0.0.1:1"), "{error}");
    stop(tasks).await;
}

/// Runs the renewal of a fresh identity whose half of life is over, until the control plane has been
/// asked; returns the identity in use and the one on disk.
async fn renewed(control_plane: &ControlPlane, data_dir: &Path) -> (Held, OnDisk) {
    let enrolled = enroll_at(&control_plane.url(), control_plane.token(), data_dir).await;
    let Enrolled::Now(identity) = enrolled.unwrap() else {
        panic!("already enrolled");
    };
    let end = identity.not_after;
    let held: Held = Arc::new(ArcSwap::from_pointee(identity));
    let kek = open_kek(&kek_file(data_dir, None)).unwrap();
    let metrics = Arc::new(Metrics::default());
    let shutdown = CancellationToken::new();
    let renewal = renew::keep_fresh(
        Arc::clone(&held),
        Places::new(&[], &held.load().control_plane, Duration::from_secs(1)),
        IdentityFile::new(data_dir, &kek),
        Arc::new(ManualClock::at(end.minus(Duration::from_secs(1)))),
        metrics,
        shutdown.clone(),
    );
    let asked = async {
        let before = held.load_full();
        // The second request for a certificate is the renewal's.
        while control_plane.state.keys.lock().unwrap().len() < 2 {
            tokio::task::yield_now().await;
        }
        let refused = control_plane.state.refuse_renewal.load(Ordering::SeqCst);
        while !refused && Arc::ptr_eq(&before, &held.load()) {
            tokio::task::yield_now().await;
        }
        shutdown.cancel();
    };
    tokio::join!(renewal, asked);
    let on_disk = IdentityFile::new(data_dir, &kek).load().unwrap();
    (held, on_disk)
}

#[tokio::test]
async fn an_identity_is_renewed_with_a_new_key() {
    let (tasks, control_plane, folder) = with_control_plane().await;
    let (held, on_disk) = renewed(&control_plane, &at(&folder)).await;
    let keys = control_plane.state.keys.lock().unwrap().clone();
    assert_ne!(keys[0], keys[1]);
    let OnDisk::Enrolled(stored) = on_disk else {
        panic!("the identity is gone");
    };
    assert_eq!(stored.chain, held.load().chain);
    assert!(stored.private_key == held.load().private_key);
    let (_, leaf) = x509_parser::parse_x509_certificate(&stored.chain[0]).unwrap();
    assert!(leaf.public_key().raw.ends_with(&keys[1]));
    stop(tasks).await;
}

#[tokio::test]
async fn a_failed_renewal_keeps_the_last_good_identity() {
    let (tasks, control_plane, folder) = with_control_plane().await;
    let data_dir = at(&folder);
    control_plane
        .state
        .refuse_renewal
        .store(true, Ordering::SeqCst);
    let (held, on_disk) = renewed(&control_plane, &data_dir).await;
    let OnDisk::Enrolled(stored) = on_disk else {
        panic!("the identity is gone");
    };
    let keys = control_plane.state.keys.lock().unwrap().clone();
    let (_, leaf) = x509_parser::parse_x509_certificate(&stored.chain[0]).unwrap();
    assert!(leaf.public_key().raw.ends_with(&keys[0]));
    assert_eq!(stored.chain, held.load().chain);
    stop(tasks).await;
}
