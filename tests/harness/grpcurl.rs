//! grpcurl: the API as a person uses it, found by server reflection, JSON in and out.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::{
    process::{Finished, run},
    tools,
};

/// A caller of one control plane.
#[derive(Clone)]
pub struct Grpcurl {
    address: SocketAddr,
    ca_file: PathBuf,
    key: Option<String>,
    certificate: Option<(PathBuf, PathBuf)>,
}

/// What a refused call says.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Name of the status code (google.rpc.Code), such as `NOT_FOUND`.
    pub code: String,
    /// Text for people.
    pub message: String,
    /// The `google.rpc` details, as JSON with an `@type` each.
    pub details: Vec<Value>,
}

impl Grpcurl {
    /// A caller without an API key that trusts `ca_file`.
    pub fn new(address: SocketAddr, ca_file: &Path) -> Self {
        Self {
            address,
            ca_file: ca_file.to_owned(),
            key: None,
            certificate: None,
        }
    }

    /// The same with an API key.
    #[must_use]
    pub fn with_key(mut self, key: &str) -> Self {
        self.key = Some(key.to_owned());
        self
    }

    /// The same with a client certificate: files with it and with its private key, in PEM.
    #[must_use]
    pub fn with_certificate(mut self, certificate: &Path, key: &Path) -> Self {
        self.certificate = Some((certificate.to_owned(), key.to_owned()));
        self
    }

    /// The methods of a service of package `countersign.v1`, as reflection tells, `Service/Method`.
    ///
    /// # Panics
    /// When reflection does not answer.
    pub fn methods(&self, service: &str) -> Vec<String> {
        let full_name = format!("countersign.v1.{service}");
        let finished = self.run(&[], &["list", &full_name], &[]);
        assert!(finished.status.success(), "{finished:?}");
        let names = finished.stdout.lines();
        let names = names.filter_map(|line| line.trim().strip_prefix(&format!("{full_name}.")));
        names.map(|name| format!("{service}/{name}")).collect()
    }

    /// The services that reflection tells of.
    ///
    /// # Panics
    /// When reflection does not answer.
    pub fn services(&self) -> Vec<String> {
        let finished = self.run(&[], &["list"], &[]);
        assert!(finished.status.success(), "{finished:?}");
        finished.stdout.lines().map(str::to_owned).collect()
    }

    /// Calls `method`, such as `AccountService/GetAccount`.
    ///
    /// # Errors
    /// [`Refusal`] when the answer is not OK.
    ///
    /// # Panics
    /// When there is no answer: no connection, or grpcurl does not know the method.
    pub fn call(&self, method: &str, request: &Value) -> Result<Value, Refusal> {
        let mut answers = self.stream(method, request)?;
        match answers.len() {
            1 => Ok(answers.remove(0)),
            count => panic!("{method}: {count} answers"),
        }
    }

    /// As [`Grpcurl::call`], for methods with any number of answers, which end.
    ///
    /// # Errors
    /// [`Refusal`] when the answer is not OK.
    ///
    /// # Panics
    /// As [`Grpcurl::call`].
    pub fn stream(&self, method: &str, request: &Value) -> Result<Vec<Value>, Refusal> {
        let method = if method.contains('.') {
            method.to_owned()
        } else {
            format!("countersign.v1.{method}")
        };
        let finished = self.run(&["-d", "@"], &[&method], request.to_string().as_bytes());
        if finished.status.success() {
            let answers = serde_json::Deserializer::from_str(&finished.stdout).into_iter();
            let answers = answers.map(|answer| {
                let answer =
                    answer.unwrap_or_else(|error| panic!("{method}: {error}: {finished:?}"));
                with_proto_names(answer)
            });
            return Ok(answers.collect());
        }
        match serde_json::from_str::<Value>(&finished.stderr) {
            Ok(status) => Err(Refusal::read(&with_proto_names(status))),
            Err(_) => panic!("{method}: no answer: {finished:?}"),
        }
    }

    /// As [`Grpcurl::call`], for what has to succeed.
    ///
    /// # Panics
    /// When it is refused.
    pub fn ok(&self, method: &str, request: &Value) -> Value {
        self.call(method, request)
            .unwrap_or_else(|refusal| panic!("{method} {}: {refusal:?}", excerpt(request)))
    }

    /// As [`Grpcurl::call`], for what has to be refused.
    ///
    /// # Panics
    /// When it is not.
    pub fn refused(&self, method: &str, request: &Value) -> Refusal {
        match self.call(method, request) {
            Err(refusal) => refusal,
            Ok(answer) => panic!("{method} {} was not refused: {answer}", excerpt(request)),
        }
    }

    fn run(&self, flags: &[&str], method: &[&str], input: &[u8]) -> Finished {
        let mut command = Command::new(tools::grpcurl());
        command.arg("-cacert").arg(&self.ca_file);
        command.args(["-format-error", "-emit-defaults", "-max-time", "30"]);
        command.args(["-max-msg-sz", "67108864"]);
        if let Some(key) = &self.key {
            command
                .arg("-H")
                .arg(format!("authorization: Bearer {key}"));
        }
        if let Some((certificate, key)) = &self.certificate {
            command.arg("-cert").arg(certificate).arg("-key").arg(key);
        }
        command.args(flags).arg(self.address.to_string());
        run(command.args(method), input)
    }
}

/// JSON has lowerCamelCase names; stories read the names of the proto files.
fn with_proto_names(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(with_proto_names).collect(),
        Value::Object(members) => {
            let members = members.into_iter();
            let named = members.map(|(name, value)| (proto_name(&name), with_proto_names(value)));
            Value::Object(named.collect())
        }
        other => other,
    }
}

fn proto_name(json_name: &str) -> String {
    json_name.chars().fold(String::new(), |mut name, letter| {
        if letter.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
        name
    })
}

impl Refusal {
    fn read(status: &Value) -> Self {
        let code = status["code"].as_u64().expect("a code");
        Self {
            code: code_name(code).to_owned(),
            message: status["message"].as_str().unwrap_or_default().to_owned(),
            details: status["details"].as_array().cloned().unwrap_or_default(),
        }
    }

    /// The detail of one type, such as `ErrorInfo`.
    ///
    /// # Panics
    /// When grpcurl could not read it, because reflection does not tell its type: then a person sees
    /// base64 instead of what to do.
    pub fn detail(&self, name: &str) -> Option<&Value> {
        let wanted = format!("type.googleapis.com/google.rpc.{name}");
        let found = self
            .details
            .iter()
            .find(|detail| detail["@type"] == wanted)?;
        assert!(
            found.get("@error").is_none(),
            "reflection does not tell what google.rpc.{name} is: {self:?}"
        );
        Some(found)
    }

    /// The reason of its `ErrorInfo`; empty without one.
    pub fn reason(&self) -> &str {
        self.detail("ErrorInfo")
            .and_then(|info| info["reason"].as_str())
            .unwrap_or_default()
    }

    /// The fields that its `BadRequest` names.
    pub fn fields(&self) -> Vec<&str> {
        self.detail("BadRequest")
            .and_then(|bad| bad["field_violations"].as_array())
            .into_iter()
            .flatten()
            .filter_map(|violation| violation["field"].as_str())
            .collect()
    }
}

/// The start of a request: enough to recognise it.
pub fn excerpt(request: &Value) -> String {
    request.to_string().chars().take(300).collect()
}

fn code_name(code: u64) -> &'static str {
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    usize::try_from(code)
        .ok()
        .and_then(|code| NAMES.get(code))
        .expect("a code of google.rpc.Code")
}
