//! The application behind a receiver's proxy: `receiver.py`, which keeps what it got.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::{process::Process, tools};

/// A running receiver.
pub struct ReceiverScript {
    folder: PathBuf,
    port: u16,
    _process: Process,
}

/// One request as it came.
#[derive(Debug)]
pub struct Request {
    /// Method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Names and values, in order.
    pub headers: Vec<(String, String)>,
    /// Body, byte for byte.
    pub body: Vec<u8>,
}

impl Request {
    /// The value of the one header with this name, in whatever case; `None` when it is not there.
    ///
    /// # Panics
    /// When it is there more than once.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self
            .headers
            .iter()
            .filter(|(candidate, _)| candidate.eq_ignore_ascii_case(name));
        let value = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "{name} came twice: {self:?}");
        value
    }
}

impl ReceiverScript {
    /// Starts one that keeps requests in `folder`.
    pub fn start(folder: PathBuf) -> Self {
        let mut command = Command::new(tools::python());
        command
            .arg(tools::project().join("tests/harness/receiver.py"))
            .arg(&folder);
        let mut process = Process::start(command, "receiver", &folder);
        let port = process.wait_until("its port file", || {
            fs::read_to_string(folder.join("port")).ok()?.parse().ok()
        });
        Self {
            folder,
            port,
            _process: process,
        }
    }

    /// Where it listens on the loopback interface.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Makes it answer with `status` from now on.
    ///
    /// # Panics
    /// When the folder can't be written.
    pub fn answer(&self, status: u16) {
        let (path, beside) = (self.folder.join("answer"), self.folder.join("answer.new"));
        fs::write(&beside, status.to_string()).expect("writing the answer");
        fs::rename(beside, path).expect("setting the answer");
    }

    /// Makes it wait for so many seconds before it answers, from now on.
    ///
    /// # Panics
    /// When the folder can't be written.
    pub fn delay(&self, seconds: f64) {
        let (path, beside) = (self.folder.join("delay"), self.folder.join("delay.new"));
        fs::write(&beside, seconds.to_string()).expect("writing the delay");
        fs::rename(beside, path).expect("setting the delay");
    }

    /// The requests so far, in the order they came.
    pub fn requests(&self) -> Vec<Request> {
        (1..).map_while(|number| self.request(number)).collect()
    }

    fn request(&self, number: u32) -> Option<Request> {
        let facts = fs::read(self.folder.join(format!("{number}.json"))).ok()?;
        let facts: Value = serde_json::from_slice(&facts).expect("whole JSON");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let headers = facts["headers"].as_array().expect("headers");
        Some(Request {
            method: text(&facts["method"]),
            path: text(&facts["path"]),
            headers: headers
                .iter()
                .map(|pair| (text(&pair[0]), text(&pair[1])))
                .collect(),
            body: read(&self.folder.join(format!("{number}.body"))),
        })
    }
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).expect("the body is there before the facts")
}
