//! A PostgreSQL server for the benchmark: in a folder of its own, on a socket there, with the settings of
//! a small production server and every commit on disk.

use std::{
    fs, io,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

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
    user: Option<(u32, u32)>,
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
        let user = other_user(folder.path())?;
        if let Some((uid, gid)) = user {
            chown(folder.path(), Some(uid), Some(gid))?;
        }
        let data = folder.path().join("data");
        let mut initdb = command(user, "initdb")?;
        initdb.args(["--auth=trust", "--username=countersign", "--pgdata"]);
        succeeded(&initdb.arg(&data).output()?)?;
        let mut server = command(user, "postgres")?;
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
            user,
            folder,
        })
    }

    fn answers(&self) -> bool {
        let ask = || {
            let mut psql = command(self.user, "psql")?;
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
            succeeded(&psql.arg(self.folder.path()).output()?)
        };
        ask().is_ok()
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
        if let Ok(mut stop) = command(self.user, "pg_ctl") {
            stop.args(["stop", "--mode=immediate", "--pgdata"]);
            let _ = stop.arg(self.folder.path().join("data")).output();
        }
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// A program of the newest version that is installed.
fn command(user: Option<(u32, u32)>, program: &str) -> io::Result<Command> {
    let mut command = Command::new(programs()?.join(program));
    // Not in a folder that the user may not see.
    command.current_dir("/").env("LC_ALL", "C.UTF-8");
    if let Some((uid, gid)) = user {
        command.gid(gid).uid(uid);
    }
    Ok(command)
}

fn programs() -> io::Result<PathBuf> {
    let mut found = Vec::new();
    for version in fs::read_dir("/usr/lib/postgresql")? {
        let path = version?.path();
        let number = path
            .file_name()
            .and_then(|name| name.to_str()?.parse().ok());
        found.extend(number.map(|number: u32| (number, path.join("bin"))));
    }
    let newest = found.into_iter().max().map(|(_, path)| path);
    newest.ok_or_else(|| io::ErrorKind::NotFound.into())
}

fn succeeded(output: &Output) -> io::Result<()> {
    match output.status.success() {
        true => Ok(()),
        false => Err(io::Error::other(
            String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        )),
    }
}

/// The server refuses to run as root: the user of the package, if this is root.
fn other_user(ours: &Path) -> io::Result<Option<(u32, u32)>> {
    if ours.metadata()?.uid() != 0 {
        return Ok(None);
    }
    let passwd = fs::read_to_string("/etc/passwd")?;
    let line = passwd
        .lines()
        .find_map(|line| line.strip_prefix("postgres:"));
    let ids = line.and_then(|line| {
        let mut fields = line.split(':').skip(1);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    });
    let missing = || io::Error::other("there is no user postgres to run it as");
    ids.map(Some).ok_or_else(missing)
}
