//! A simulator of AWS, and its keys and secrets as boto3, AWS's own client for Python, makes them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use crate::{process::Process, python::judge, tools};

/// A running simulator.
pub struct Moto {
    endpoint: String,
    credentials: PathBuf,
    process: Process,
}

impl Moto {
    /// Starts one with its files in `folder`.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start(folder: &Path) -> Self {
        let mut command = Command::new(tools::python());
        command.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]);
        // Otherwise its line with the address would stay in a buffer.
        command.env("PYTHONUNBUFFERED", "1");
        let mut process = Process::start(command, "moto", folder);
        let log = folder.join("moto.log");
        let endpoint = process.wait_until("the simulator's address", || {
            let said = fs::read_to_string(&log).ok()?;
            let line = said
                .lines()
                .find_map(|line| line.split_once("Running on "))?;
            line.1.split_whitespace().next().map(str::to_owned)
        });
        let credentials = folder.join("aws-credentials");
        let text = "[default]\naws_access_key_id = someone\naws_secret_access_key = something\n";
        fs::write(&credentials, text).expect("credentials");
        Self {
            endpoint,
            credentials,
            process,
        }
    }

    /// Stops it where it is: calls get no answer.
    pub fn pause(&self) {
        self.process.pause();
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.process.resume();
    }

    /// Where it listens.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Variables of the environment with which AWS's clients find their credentials, which are in a file.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            (
                "AWS_SHARED_CREDENTIALS_FILE",
                self.credentials.display().to_string(),
            ),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
        ]
    }

    /// Has boto3 make calls, one after the other: a service with an operation, and arguments. Gives the
    /// answers.
    pub fn call(&self, calls: &[(&str, Value)]) -> Value {
        let question = json!({"endpoint": self.endpoint, "calls": calls});
        judge("aws.py", &question)
    }
}
