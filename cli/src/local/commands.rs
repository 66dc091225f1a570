//! How the parts of the product are started and reached: their arguments, and the administrator's
//! way to the API.

use std::{
    ffi::OsString,
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use countersign_shared::{files, name::Id, secret::SecretText};
use thiserror::Error;

use super::directory::{Addresses, Directory};
use crate::api_client::{ApiClient, ConnectError};

/// Why there is no way to the API.
#[derive(Debug, Error)]
pub(crate) enum AccessError {
    /// The CA file or the administrator's key.
    #[error("can't read {}: {error}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the operating system says.
        error: io::Error,
    },
    /// The connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
}

/// Runs a control plane that listens at `wanted`, or at any free ports of the loopback interface.
/// `settings` is its configuration file.
pub(crate) fn control_plane(
    directory: &Directory,
    wanted: Option<Addresses>,
    settings: Option<&Path>,
) -> Vec<OsString> {
    control_plane_in(&directory.control_plane(), directory, wanted, settings)
}

/// As [`control_plane`], with another data directory.
pub(crate) fn control_plane_in(
    data_dir: &Path,
    directory: &Directory,
    wanted: Option<Addresses>,
    settings: Option<&Path>,
) -> Vec<OsString> {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let address = |pick: fn(Addresses) -> SocketAddr| wanted.map_or(any, pick).to_string();
    let mut arguments: Vec<OsString> = vec![
        "control-plane".into(),
        "--data-dir".into(),
        data_dir.into(),
        "--admin-key-file".into(),
        directory.key_file().into(),
        "--listen-api".into(),
        address(|wanted| wanted.api).into(),
        "--listen-agents".into(),
        address(|wanted| wanted.agents).into(),
        "--listen-http".into(),
        address(|wanted| wanted.http).into(),
    ];
    if let Some(settings) = settings {
        arguments.extend(["--config".into(), settings.into()]);
    }
    arguments
}

/// Enrolls `agent` with the control plane at `agents`; its join token goes to standard input, where
/// other users of the host can't see it.
pub(crate) fn enroll(directory: &Directory, agent: &Id, agents: SocketAddr) -> Vec<OsString> {
    vec![
        "agent".into(),
        "enroll".into(),
        "--data-dir".into(),
        directory.agent(agent).into(),
        "--control-plane".into(),
        format!("https://{agents}").into(),
        "--token-file".into(),
        "-".into(),
        "--name".into(),
        agent.as_str().into(),
    ]
}

/// Runs an enrolled agent.
pub(crate) fn agent(directory: &Directory, agent: &Id) -> Vec<OsString> {
    vec![
        "agent".into(),
        "run".into(),
        "--data-dir".into(),
        directory.agent(agent).into(),
        // Receivers are on this host, and an agent connects to public addresses unless told.
        "--egress-allow".into(),
        "127.0.0.0/8".into(),
        "--egress-allow".into(),
        "::1/128".into(),
    ]
}

/// A client of the API at `api` with the key in `key_file`, which only its owner may read.
///
/// # Errors
/// [`AccessError`].
pub(crate) async fn connect(
    api: SocketAddr,
    ca_file: &Path,
    key_file: &Path,
) -> Result<ApiClient, AccessError> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |error| AccessError::Read { path, error }
    };
    let ca_pem = fs::read_to_string(ca_file).map_err(unreadable(ca_file))?;
    let key = files::read_private(key_file).map_err(unreadable(key_file))?;
    // Not UTF-8 is not an API key either: the client says so.
    let key = SecretText::from(String::from_utf8(key).unwrap_or_else(|_| "\n".to_owned()));
    Ok(ApiClient::connect(api, &ca_pem, &key).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_missing_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let (ca_file, key_file) = (folder.path().join("ca.pem"), folder.path().join("key"));
        let api = SocketAddr::from(([127, 0, 0, 1], 1));
        let error = connect(api, &ca_file, &key_file).await.unwrap_err();
        assert!(error.to_string().contains("ca.pem"), "{error}");
        fs::write(&ca_file, "x").unwrap();
        let error = connect(api, &ca_file, &key_file).await.unwrap_err();
        assert!(error.to_string().contains("/key"), "{error}");
    }

    #[test]
    fn a_control_plane_takes_any_port_unless_told() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::open(Some(&folder.path().join("data")), false, "x-").unwrap();
        let any = control_plane(&directory, None, None);
        assert_eq!(any.iter().filter(|text| *text == "127.0.0.1:0").count(), 3);
        let wanted = Addresses {
            api: "127.0.0.1:1".parse().unwrap(),
            agents: "127.0.0.1:2".parse().unwrap(),
            http: "127.0.0.1:3".parse().unwrap(),
        };
        let told = control_plane(&directory, Some(wanted), None);
        assert!(told.ends_with(&["--listen-http".into(), "127.0.0.1:3".into()]));
        let set = control_plane(&directory, None, Some(Path::new("/x.toml")));
        assert!(set.ends_with(&["--config".into(), "/x.toml".into()]));
    }
}
