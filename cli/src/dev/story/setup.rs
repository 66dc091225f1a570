//! How the demonstration is set up and taken down, in words: one timeline entry for each step.

use std::{io, path::Path};

use crate::{
    dev::{certificate::Certificate, grpcurl_hints::Hint, timeline::Entry},
    local::{directory::Addresses, provision::Origin},
};

fn made(origin: Origin) -> &'static str {
    match origin {
        Origin::New => "created",
        Origin::Earlier => "taken over from an earlier run",
    }
}

/// The first entry.
pub(crate) fn starting(data_dir: &Path, temporary: bool) -> Entry {
    let until = if temporary {
        " (removed at the end)"
    } else {
        ""
    };
    Entry::new("Starting the control plane")
        .fact("data directory", format!("{}{until}", data_dir.display()))
}

/// The control plane listens and answers.
pub(crate) fn control_plane_up(at: &Addresses) -> Entry {
    Entry::new("Control plane is up")
        .fact("API", format!("{}  TLS 1.3, gRPC, bearer key", at.api))
        .fact(
            "for agents",
            format!("{}  TLS 1.3, gRPC, client certificates", at.agents),
        )
        .fact(
            "HTTP",
            format!("{}  metrics, health, trust anchors", at.http),
        )
}

/// There is an account; its receivers get `anchors` from `url`.
pub(crate) fn account(name: &str, origin: Origin, url: &str, anchors: &[Certificate]) -> Entry {
    let headline = format!(
        "{name} {}: it has a certificate authority of its own",
        made(origin)
    );
    anchors
        .iter()
        .fold(Entry::new(headline), |entry, anchor| {
            entry
                .fact("trust anchor", &anchor.common_name)
                .fact("valid", anchor.validity())
                .fact("SHA-256", &anchor.sha256)
        })
        .fact("receivers get it from", url)
}

/// The receiver is ready to listen at `url` and trusts `anchors` alone.
pub(crate) fn receiver_up(url: &str, anchors: &[Certificate]) -> Entry {
    let names: Vec<&str> = anchors
        .iter()
        .map(|anchor| anchor.common_name.as_str())
        .collect();
    Entry::new("Receiver is up: an ordinary HTTPS server")
        .fact("URL", url)
        .fact(
            "it demands",
            format!("a client certificate signed by {}", names.join(" or ")),
        )
        .fact(
            "it verifies",
            "webhook-signature, and that webhook-timestamp is within 5 minutes",
        )
}

/// There is a destination; `issued` is its client certificate, if it has one already.
pub(crate) fn destination(name: &str, origin: Origin, issued: Option<&Certificate>) -> Entry {
    let Some(issued) = issued else {
        return Entry::new(format!("{name} {}", made(origin))).fact(
            "client certificate",
            "none yet: the receiver's CA has to sign it",
        );
    };
    Entry::new(format!(
        "{name} {}, with a client certificate",
        made(origin)
    ))
    .fact("subject CN", &issued.common_name)
    .fact("issuer", &issued.issuer_common_name)
    .fact("serial", &issued.serial)
    .fact("valid", issued.validity())
    .fact("SPIFFE URI", issued.uri.as_deref().unwrap_or_default())
}

/// Deliveries flow from now on.
pub(crate) fn flowing(rate: u32) -> Entry {
    Entry::new(format!(
        "Deliveries flow from now on: {rate} a second, until the end"
    ))
}

/// The agent is connected.
pub(crate) fn agent(name: &str, origin: Origin) -> Entry {
    Entry::new(match origin {
        Origin::New => format!("{name} enrolled with a one-time token, and is connected"),
        Origin::Earlier => format!("{name}, enrolled by an earlier run, is connected"),
    })
}

/// What comes after the first delivery: commands to try.
pub(crate) fn ready(hints: &[Hint]) -> String {
    let commands = hints
        .iter()
        .map(|hint| format!("# {}\n{}", hint.what, hint.command));
    let commands: Vec<_> = commands.collect();
    format!(
        "\nAll of it is running. Ask the API yourself, with grpcurl:\n\n{}\n\nCtrl-C stops \
         everything.\n",
        commands.join("\n\n")
    )
}

/// It failed; a temporary directory is about to go.
pub(crate) fn failed(reason: &str, temporary: bool) -> String {
    let advice = if temporary {
        "\nTo look at its files, run it again with --keep or --data-dir."
    } else {
        ""
    };
    format!("\nFailed: {reason}{advice}\n")
}

/// It is about to end, and why.
pub(crate) fn stopping(why: &str) -> Entry {
    Entry::new(format!("{why}: stopping agent, control plane and receiver"))
}

/// It has ended; `killed` did not stop by themselves.
pub(crate) fn stopped(killed: &[&str], kept: Option<&Path>) -> Entry {
    let headline = match killed {
        [] => "Everything is stopped".to_owned(),
        names => format!(
            "Everything is stopped; had to be killed: {}",
            names.join(", ")
        ),
    };
    let place = kept.map_or_else(|| "removed".to_owned(), |path| path.display().to_string());
    Entry::new(headline).fact("data directory", place)
}

/// It has ended and left something behind.
pub(crate) fn not_removed(error: &io::Error) -> Entry {
    Entry::new(format!(
        "Everything is stopped, but the temporary directory can't be removed: {error}"
    ))
}
