//! `countersign verify-audit-log`: an export of the audit log, verified without anybody's help: that its records
//! hang together, and that the signatures over it are by the installation's key.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::PathBuf,
    process::ExitCode,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::Args;
use countersign_control_plane::audit::export::{Export, Told, Wrong};
use countersign_shared::digest::unhex;
use serde::Serialize;
use thiserror::Error;

use crate::output;

/// Verify an export of the audit log, offline.
///
/// Reads the lines that ExportAuditLog returns. Exit status 0 when every record follows from the one before and
/// every signature is right.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  grpcurl … $API countersign.v1.AuditService/ExportAuditLog | jq -r '.lines[]' > audit.jsonl
  countersign verify-audit-log audit.jsonl

  By the key that ListAuditCheckpoints has told you before, so that no other installation can have signed:
    countersign verify-audit-log --public-key 4f1c… audit.jsonl")]
pub(crate) struct Arguments {
    /// Public key of the signatures (Ed25519), in base64 or hex [default: the one that the export names]
    #[arg(long, value_name = "KEY", value_parser = public_key)]
    public_key: Option<[u8; 32]>,
    /// Print one JSON object instead of lines for people
    #[arg(long)]
    json: bool,
    /// File with the export [default: standard input]
    file: Option<PathBuf>,
}

fn public_key(text: &str) -> Result<[u8; 32], &'static str> {
    // ListAuditCheckpoints tells it in base64, this command in hex; the lengths differ.
    let bytes = unhex(text).or_else(|| STANDARD.decode(text).ok());
    let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or("a public key has 32 bytes: 44 characters of base64, or 64 hexadecimal digits")
}

/// Why nothing could be verified.
#[derive(Debug, Error)]
enum Failure {
    #[error("{0}: {1}")]
    File(String, io::Error),
    #[error(
        "there is no record in the input: it takes the lines of ExportAuditLog, one after the other"
    )]
    Nothing,
}

/// What was found.
#[derive(Debug, Serialize)]
struct Finding {
    intact: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    broken_line: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    #[serde(flatten)]
    told: Told,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    let found = open(arguments.file.as_ref())
        .and_then(|(name, input)| verify(input, arguments.public_key, &name));
    match found {
        Ok(finding) => {
            if arguments.json {
                output::result(&serde_json::to_string(&finding).unwrap_or_default());
            } else {
                for line in shown(&finding, arguments.public_key.is_some()) {
                    output::result(&line);
                }
            }
            match finding.intact {
                true => ExitCode::SUCCESS,
                false => ExitCode::FAILURE,
            }
        }
        Err(failure) => {
            output::error(&format!("countersign verify-audit-log: {failure}"));
            ExitCode::from(2)
        }
    }
}

fn open(file: Option<&PathBuf>) -> Result<(String, Box<dyn BufRead>), Failure> {
    let Some(file) = file else {
        let input = BufReader::new(io::stdin());
        return Ok(("standard input".to_owned(), Box::new(input)));
    };
    let name = file.display().to_string();
    match File::open(file) {
        Ok(file) => Ok((name, Box::new(BufReader::new(file)))),
        Err(error) => Err(Failure::File(name, error)),
    }
}

fn verify(
    input: impl BufRead,
    public_key: Option<[u8; 32]>,
    name: &str,
) -> Result<Finding, Failure> {
    let mut export = Export::signed_by(public_key);
    let mut broken: Option<(u64, Wrong)> = None;
    for (number, line) in (1..).zip(input.lines()) {
        let line = line.map_err(|error| Failure::File(name.to_owned(), error))?;
        if let Err(wrong) = export.follow(&line) {
            broken = Some((number, wrong));
            break;
        }
    }
    let told = export.told();
    let strange = matches!(broken, Some((1, Wrong::Unreadable)));
    if told.records == 0 && (broken.is_none() || strange) {
        return Err(Failure::Nothing);
    }
    Ok(Finding {
        intact: broken.is_none(),
        broken_line: broken.as_ref().map(|(line, _)| *line),
        problem: broken.map(|(_, wrong)| wrong.to_string()),
        told,
    })
}

fn shown(finding: &Finding, key_is_given: bool) -> Vec<String> {
    let told = &finding.told;
    let mut lines = Vec::new();
    if let (Some(line), Some(problem)) = (finding.broken_line, &finding.problem) {
        lines.push(format!("NOT INTACT: line {line}: {problem}"));
    }
    let (from, to) = (told.began_after + 1, told.last_sequence);
    lines.push(match told.records {
        0 => "no record hangs together".to_owned(),
        _ => format!(
            "records {from} to {to} hang together; the last has the hash {}",
            told.last_hash
        ),
    });
    lines.push(match told.signatures {
        0 => "no signature: export again when a minute has passed, or keep the hash elsewhere"
            .to_owned(),
        signatures => format!(
            "signatures that are right: {signatures}, the last over record {}, by the key {}",
            told.signed_sequence, told.public_key
        ),
    });
    if told.signatures > 0 && !key_is_given {
        lines.push(
            "compare the key with the one that you know, or give it: --public-key".to_owned(),
        );
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_export_is_said_to_be_none() {
        for text in ["", "hello\n", "{}\n"] {
            let failure = verify(text.as_bytes(), None, "x").unwrap_err();
            assert!(matches!(failure, Failure::Nothing), "{text}");
        }
    }

    #[test]
    fn a_key_is_taken_in_hex_and_in_base64() {
        assert_eq!(public_key(&"07".repeat(32)), Ok([7; 32]));
        assert_eq!(public_key(&STANDARD.encode([7; 32])), Ok([7; 32]));
        assert!(public_key("07").is_err());
        assert!(public_key("x").is_err());
    }
}
