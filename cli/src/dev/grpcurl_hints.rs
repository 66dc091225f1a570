//! grpcurl commands that work as they stand against the running demonstration.

use std::{net::SocketAddr, path::Path};

/// Where and how the API is reached, and what there is to ask about.
#[derive(Debug)]
pub(crate) struct Target<'a> {
    /// The API's address.
    pub(crate) api: SocketAddr,
    /// The CA file.
    pub(crate) ca_file: &'a Path,
    /// The file with the API key.
    pub(crate) key_file: &'a Path,
    /// `accounts/{account}`.
    pub(crate) account: &'a str,
    /// `accounts/{account}/destinations/{destination}`.
    pub(crate) destination: &'a str,
    /// `accounts/{account}/deliveries/{delivery}`.
    pub(crate) delivery: &'a str,
}

/// A command, and what it is for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Hint {
    /// What it does.
    pub(crate) what: &'static str,
    /// For a POSIX shell; may have several lines.
    pub(crate) command: String,
}

/// The commands.
pub(crate) fn hints(target: &Target<'_>) -> Vec<Hint> {
    let Target {
        account,
        destination,
        delivery,
        ..
    } = target;
    // Double quotes, so that the shell encodes the payload: it is easy to change.
    let submission = format!(
        r#""{{\"destination\":\"{destination}\",\"payload\":\"$(printf '%s' '{{"hello":"again"}}' | base64)\"}}""#
    );
    let parent = |name: &str| format!(r#"'{{"parent":"{name}"}}'"#);
    let call = |what, data: Option<String>, method: &str| Hint {
        what,
        command: command(target, data.as_deref(), method),
    };
    vec![
        call("List the services", None, "list"),
        call(
            "List the account's destinations",
            Some(parent(account)),
            "countersign.v1.DestinationService/ListDestinations",
        ),
        call(
            "Submit another delivery: it shows up here",
            Some(submission),
            "countersign.v1.DeliveryService/SubmitDelivery",
        ),
        call(
            "See the attempts of the first delivery, with their handshake records",
            Some(parent(delivery)),
            "countersign.v1.DeliveryService/ListAttempts",
        ),
        call(
            "Get what a receiver installs to accept the account's client certificates",
            Some(parent(account)),
            "countersign.v1.CertificateService/GetTrustBundle",
        ),
    ]
}

fn command(target: &Target<'_>, data: Option<&str>, method: &str) -> String {
    let ca = quoted(target.ca_file);
    let key = quoted(target.key_file);
    let data = data.map_or_else(String::new, |data| format!("\n  -d {data} \\"));
    format!(
        "grpcurl -cacert {ca} -H \"authorization: Bearer $(cat {key})\" \\{data}\n  {} {method}",
        target.api
    )
}

/// A path for a POSIX shell.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if text.chars().all(plain) {
        return text;
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// What a real shell makes of a command: `printf` in grpcurl's place shows its arguments.
    fn arguments(command: &str) -> Vec<String> {
        let script = format!("grpcurl() {{ printf '%s\\n' \"$@\"; }}; {command}");
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_shell_reads_them_as_meant() {
        let folder = tempfile::tempdir().unwrap();
        let key_file = folder.path().join("it's a key");
        std::fs::write(&key_file, "csk_secret").unwrap();
        let hints = hints(&Target {
            api: "127.0.0.1:4000".parse().unwrap(),
            ca_file: Path::new("/tmp/ca.pem"),
            key_file: &key_file,
            account: "accounts/demo",
            destination: "accounts/demo/destinations/orders",
            delivery: "accounts/demo/deliveries/1",
        });
        let all: Vec<_> = hints.iter().map(|hint| arguments(&hint.command)).collect();
        let start = [
            "-cacert",
            "/tmp/ca.pem",
            "-H",
            "authorization: Bearer csk_secret",
        ];
        for arguments in &all {
            assert_eq!(arguments[..4], start);
            assert!(arguments.contains(&"127.0.0.1:4000".to_owned()));
        }
        assert_eq!(all[0].last().unwrap(), "list");
        assert_eq!(all[1][5], r#"{"parent":"accounts/demo"}"#);
        let submission: serde_json::Value = serde_json::from_str(&all[2][5]).unwrap();
        assert_eq!(submission["payload"], "eyJoZWxsbyI6ImFnYWluIn0=");
        assert_eq!(
            submission["destination"],
            "accounts/demo/destinations/orders"
        );
    }
}
