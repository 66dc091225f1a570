//! Enrollment: the right control plane, once, with a key that survives a lost answer; and renewal.

use std::{
    path::{Path, PathBuf},
    sync::atomic::Ordering,
    time::Duration,
};

use countersign_agent::identity::enroll::{EnrollError, Enrolled, Enrollment, enroll};
use countersign_shared::{
    join_token::JoinToken,
    tasks::Tasks,
    time::{Clock as _, SystemClock},
};
use tonic::Status;

use crate::support::{control_plane::ControlPlane, pki::Authority};

async fn enroll_at(url: &str, token: JoinToken, data_dir: &Path) -> Result<Enrolled, EnrollError> {
    let enrollment = Enrollment {
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
