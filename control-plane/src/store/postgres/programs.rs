//! PostgreSQL's own programs on this host, for servers that live as long as a benchmark or a test.

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::{
        fs::{MetadataExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::Command,
};

/// Where Debian's packages put them.
const FOLDER: &str = "/usr/lib/postgresql";

/// The programs of one version, and whom they run as.
#[derive(Debug, Clone)]
pub struct Programs {
    folder: PathBuf,
    /// The server refuses to run as root.
    user: Option<(u32, u32)>,
}

impl Programs {
    /// Those of the newest version that is installed. If `ours` is root's, they run as the user that
    /// Debian's package made, and `ours` is given to that user.
    ///
    /// # Errors
    /// When none are installed, or there is no such user.
    pub fn for_folder(ours: &Path) -> io::Result<Self> {
        let mut found = Vec::new();
        for version in fs::read_dir(FOLDER)? {
            let path = version?.path();
            let number = path.file_name().and_then(OsStr::to_str);
            let number: Option<u32> = number.and_then(|number| number.parse().ok());
            found.extend(number.map(|number| (number, path.join("bin"))));
        }
        let newest = found.into_iter().max().map(|(_, folder)| folder);
        let programs = Self {
            folder: newest.ok_or(io::ErrorKind::NotFound)?,
            user: match ours.metadata()?.uid() {
                0 => Some(postgres_user()?),
                _ => None,
            },
        };
        programs.give(ours)?;
        Ok(programs)
    }

    /// Where they are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// One of them.
    pub fn command(&self, program: &str) -> Command {
        self.other(self.folder.join(program))
    }

    /// Another program, as the same user.
    pub fn other(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        // Not in a folder that the user may not see.
        command.current_dir("/").env("LC_ALL", "C.UTF-8");
        if let Some((uid, gid)) = self.user {
            command.gid(gid).uid(uid);
        }
        command
    }

    /// Gives a file to the user.
    ///
    /// # Errors
    /// When it is not ours to give.
    pub fn give(&self, path: &Path) -> io::Result<()> {
        match self.user {
            Some((uid, gid)) => chown(path, Some(uid), Some(gid)),
            None => Ok(()),
        }
    }

    /// Makes a cluster in the folder `data`, with more arguments of `initdb`.
    ///
    /// # Errors
    /// With what it says.
    pub fn make_cluster(&self, data: &Path, arguments: &[&str]) -> io::Result<()> {
        let mut initdb = self.command("initdb");
        let made = initdb.args(arguments).arg("--pgdata").arg(data).output()?;
        match made.status.success() {
            true => Ok(()),
            false => Err(io::Error::other(
                String::from_utf8_lossy(&made.stderr).trim().to_owned(),
            )),
        }
    }

    /// Ends the server of a cluster at once, with whatever it is doing. One that has ended stays so.
    pub fn stop_at_once(&self, data: &Path) {
        let mut stop = self.command("pg_ctl");
        stop.args(["stop", "--mode=immediate", "--pgdata"]);
        let _ = stop.arg(data).output();
    }
}

fn postgres_user() -> io::Result<(u32, u32)> {
    let passwd = fs::read_to_string("/etc/passwd")?;
    let line = passwd
        .lines()
        .find_map(|line| line.strip_prefix("postgres:"));
    let ids = line.and_then(|line| {
        let mut fields = line.split(':').skip(1);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    });
    ids.ok_or_else(|| io::Error::other("there is no user postgres to run the server as"))
}
