//! A PostgreSQL server for the benchmark: in a folder of its own, on a socket there, with the settings of
//! a small production server and every commit on disk.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    process::{Child, Stdio},
    time::Duration,
};

use countersign_control_plane::store::postgres::Programs;
use tempfile::TempDir;

use super::{failure::Failure, process::Usage};

/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Of the folder with its socket, whose name has 14 bytes more.
const LONGEST_FOLDER: usize = 90;
/// How often that is looked at.
const POLL: Duration = Duration::from_millis(50);
/// Between its checkpoints there is room for the whole run; the rest is as it comes.
const SETTINGS: [&str; 4] = [
    "listen_addresses=",
    "shared_buffers=256MB",
    "max_wal_size=8GB",
    "log_min_messages=warning",
];

/// A running server; it is stopped and its folder removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Database {
    server: Child,
    programs: Programs,
    folder: TempDir,
}

impl Database {
    /// Makes a cluster and starts it.
    ///
    /// # Errors
    /// [`Failure`]: its programs are not there, or fail.
    pub(crate) async fn start() -> Result<Self, Failure> {
        let failed = Failure::io("can't start a PostgreSQL server (Debian's package postgresql)");
        let database = Self::begin().map_err(failed)?;
        let began = tokio::time::Instant::now();
        while !database.answers() {
            if began.elapsed() > PATIENCE {
                return Err(Failure::Deadline {
                    seconds: PATIENCE.as_secs(),
                    what: "the PostgreSQL server",
                });
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(database)
    }

    fn begin() -> io::Result<Self> {
        // Not in the data directory: another user has to get at it.
        let folder = tempfile::Builder::new()
            .prefix("cs-pg-")
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir()?;
        // A socket's whole path has at most 107 bytes (unix(7)).
        if folder.path().as_os_str().len() > LONGEST_FOLDER {
            return Err(io::Error::other(
                "the path of the temporary directory is too long for a socket in it: set a shorter TMPDIR",
            ));
        }
        let programs = Programs::for_folder(folder.path())?;
        let data = folder.path().join("data");
        programs.make_cluster(&data, &["--auth=trust", "--username=countersign"])?;
        let mut server = programs.command("postgres");
        server.arg("-D").arg(&data).arg("-k").arg(folder.path());
        for setting in SETTINGS {
            server.args(["-c", setting]);
        }
        let server = server
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self {
            server,
            programs,
            folder,
        })
    }

    fn answers(&self) -> bool {
        let mut psql = self.programs.command("psql");
        psql.args([
            "-q",
            "-U",
            "countersign",
            "-d",
            "postgres",
            "-c",
            "SELECT 1",
            "-h",
        ]);
        let asked = psql.arg(self.folder.path()).output();
        asked.is_ok_and(|asked| asked.status.success())
    }

    /// The setting of a control plane that has its store there.
    pub(crate) fn setting(&self) -> String {
        let socket = self.folder.path().display().to_string().replace('/', "%2F");
        format!("[store]\nurl = \"postgres://countersign@{socket}/postgres\"\n")
    }

    /// What all of its processes have cost so far.
    ///
    /// # Errors
    /// When `/proc` does not tell.
    pub(crate) fn usage(&self) -> io::Result<Usage> {
        Usage::of_all(self.server.id())
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // Nothing in it is needed any more.
        self.programs.stop_at_once(&self.folder.path().join("data"));
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
