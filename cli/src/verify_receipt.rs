//! `countersign verify-receipt`: receipts of attempts, verified without anybody's help: each by the certificate
//! that it carries, that by the agents' authority, and the order in which they were written by their chain.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::Args;
use countersign_control_plane::ca;
use countersign_shared::{
    receipt::{self, Read, Receipt, ReceiptError},
    time::Timestamp,
    tls::{self, PemError, certificates_from_pem},
};
use rustls_pki_types::{
    AlgorithmIdentifier, CertificateDer, SignatureVerificationAlgorithm, UnixTime, alg_id,
};
use serde::Serialize;
use serde_json::Value;
use thiserror::Error;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use crate::output;

/// Verify the receipts of attempts, offline.
///
/// Reads receipts, one in a line, or the JSON of ListAttempts and whatever else has members named `receipt`.
/// Exit status 0 when each is genuine and no chain is broken; gaps in a chain are told, and are no mistake: not
/// every receipt was asked for.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  curl -o agents.pem http://control-plane.example:8445/trust/agents.pem
  grpcurl … -d '{\"parent\": \"accounts/acme/destinations/orders/deliveries/…\"}' \\
    $API countersign.v1.DeliveryService/ListAttempts | countersign verify-receipt --ca agents.pem")]
pub(crate) struct Arguments {
    /// The agents' authority, in PEM: every generation that may have signed
    #[arg(long, value_name = "FILE")]
    ca: PathBuf,
    /// Trust domain of the installation
    #[arg(long, value_name = "NAME", default_value = "countersign.internal")]
    trust_domain: String,
    /// Print one JSON object for each receipt instead of a line for people
    #[arg(long)]
    json: bool,
    /// File with the receipts [default: standard input]
    file: Option<PathBuf>,
}

/// Why nothing could be verified.
#[derive(Debug, Error)]
enum Failure {
    #[error("{0}: {1}")]
    File(String, io::Error),
    #[error("{0}: {1}")]
    Authority(String, PemError),
    #[error("{0}: no certificate in it can be an authority")]
    NoAuthority(String),
    #[error("there is no receipt in the input: does the destination have delivery_receipts?")]
    Nothing,
}

/// Why a receipt is not genuine.
#[derive(Debug, Error, PartialEq, Eq)]
enum Untrue {
    #[error("it {0}")]
    Form(#[from] ReceiptError),
    #[error("its certificate is not one that the agents' authority had made for that time ({0})")]
    Certificate(webpki::Error),
    #[error("its certificate is no agent's of this trust domain")]
    NoAgent,
    #[error("it speaks for {0}, and its certificate is that of {1}")]
    OtherAgent(String, String),
    #[error("its signature is not right: it was altered, or is not by that certificate's key")]
    Signature,
    #[error("its time is not one")]
    Time,
    #[error("its chain is broken: it does not follow the receipt with the number before")]
    Broken,
}

/// What was found out of one receipt.
#[derive(Debug, Serialize)]
struct Finding {
    genuine: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    #[serde(flatten)]
    receipt: Option<Receipt>,
    #[serde(skip)]
    link: String,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    match verify(arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            output::error(&format!("countersign verify-receipt: {failure}"));
            ExitCode::from(2)
        }
    }
}

fn verify(arguments: &Arguments) -> Result<bool, Failure> {
    let path = arguments.ca.display().to_string();
    let pem = fs::read_to_string(&arguments.ca);
    let pem = pem.map_err(|error| Failure::File(path.clone(), error))?;
    let authorities = certificates_from_pem(&pem);
    let authorities = authorities.map_err(|error| Failure::Authority(path.clone(), error))?;
    if !authorities
        .iter()
        .any(|it| anchor_from_trusted_cert(it).is_ok())
    {
        return Err(Failure::NoAuthority(path));
    }
    let texts = receipts_in(&input(arguments.file.as_ref())?);
    if texts.is_empty() {
        return Err(Failure::Nothing);
    }
    let judge = Judge {
        authorities,
        trust_domain: &arguments.trust_domain,
    };
    let mut findings: Vec<Finding> = texts.iter().map(|text| judge.judge(text)).collect();
    let gaps = follow(&mut findings);
    for finding in &findings {
        output::result(&match arguments.json {
            true => serde_json::to_string(finding).unwrap_or_default(),
            false => shown(finding),
        });
    }
    if !arguments.json {
        for gap in gaps {
            output::result(&gap);
        }
        let good = findings.iter().filter(|it| it.genuine).count();
        output::result(&format!("{good} of {} genuine", findings.len()));
    }
    Ok(findings.iter().all(|it| it.genuine))
}

fn input(file: Option<&PathBuf>) -> Result<String, Failure> {
    match file {
        Some(file) => {
            let name = file.display().to_string();
            fs::read_to_string(file).map_err(|error| Failure::File(name, error))
        }
        None => {
            let mut text = String::new();
            let read = io::stdin().read_to_string(&mut text);
            read.map_err(|error| Failure::File("standard input".to_owned(), error))?;
            Ok(text)
        }
    }
}

/// Every receipt in JSON documents one after the other; in anything else each line is one.
fn receipts_in(text: &str) -> Vec<String> {
    let documents = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let documents: Result<Vec<Value>, _> = documents.collect();
    let Ok(documents) = documents else {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        return lines.map(str::to_owned).collect();
    };
    let mut found = Vec::new();
    for document in &documents {
        collect(document, &mut found);
    }
    found
}

fn collect(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                match member {
                    Value::String(text) if name == "receipt" && !text.is_empty() => {
                        found.push(text.clone());
                    }
                    other => collect(other, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
        _ => {}
    }
}

struct Judge<'a> {
    authorities: Vec<CertificateDer<'static>>,
    trust_domain: &'a str,
}

impl Judge<'_> {
    fn judge(&self, text: &str) -> Finding {
        let read = receipt::read(text);
        let problem = match &read {
            Ok(read) => self.check(read).err(),
            Err(error) => Some((*error).into()),
        };
        Finding {
            genuine: problem.is_none(),
            problem: problem.map(|problem| problem.to_string()),
            receipt: read.ok().map(|read| read.receipt),
            link: receipt::link(text),
        }
    }

    fn check(&self, read: &Read) -> Result<(), Untrue> {
        let said = &read.receipt;
        let at = OffsetDateTime::parse(&said.started_at, &Rfc3339).map_err(|_| Untrue::Time)?;
        let at = Timestamp::from(at).as_unix_seconds();
        let at = u64::try_from(at).map_err(|_| Untrue::Time)?;
        let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(at));
        let anchors = self.authorities.iter();
        let anchors: Vec<_> = anchors
            .filter_map(|it| anchor_from_trusted_cert(it).ok())
            .collect();
        let provider = tls::provider();
        let algorithms = provider.signature_verification_algorithms.all;
        let leaf = EndEntityCert::try_from(&read.certificate).map_err(Untrue::Certificate)?;
        let usage = KeyUsage::client_auth();
        leaf.verify_for_usage(algorithms, &anchors, &[], at, usage, None, None)
            .map_err(Untrue::Certificate)?;
        let agent = ca::identity_of(self.trust_domain, &read.certificate).ok_or(Untrue::NoAgent)?;
        if agent.to_string() != said.agent {
            return Err(Untrue::OtherAgent(said.agent.clone(), agent.to_string()));
        }
        let algorithm = algorithm(algorithms, alg_id::ECDSA_P256, alg_id::ECDSA_SHA256);
        let algorithm = algorithm.ok_or(Untrue::Signature)?;
        leaf.verify_signature(algorithm, read.signed.as_bytes(), &read.signature)
            .map_err(|_| Untrue::Signature)
    }
}

fn algorithm(
    all: &'static [&'static dyn SignatureVerificationAlgorithm],
    key: AlgorithmIdentifier,
    signature: AlgorithmIdentifier,
) -> Option<&'static dyn SignatureVerificationAlgorithm> {
    let mut fitting = all.iter();
    let fitting =
        fitting.find(|it| it.public_key_alg_id() == key && it.signature_alg_id() == signature);
    fitting.copied()
}

/// Follows each chain; tells where receipts are missing.
fn follow(findings: &mut [Finding]) -> Vec<String> {
    let mut chains: BTreeMap<(String, String), BTreeMap<u64, usize>> = BTreeMap::new();
    for (place, finding) in findings.iter().enumerate() {
        if let Some(said) = finding.receipt.as_ref().filter(|_| finding.genuine) {
            // Only the agent itself goes on with its chain.
            let chain = (said.agent.clone(), said.chain.clone());
            chains
                .entry(chain)
                .or_default()
                .insert(said.sequence, place);
        }
    }
    let mut gaps = Vec::new();
    for ((agent, chain), places) in chains {
        let mut before: Option<(u64, String)> = None;
        for (sequence, place) in places {
            let finding = &mut findings[place];
            let named = finding
                .receipt
                .as_ref()
                .map(|said| said.previous_sha256.clone());
            match before {
                Some((last, link)) if last + 1 == sequence && named.as_ref() != Some(&link) => {
                    finding.genuine = false;
                    finding.problem = Some(Untrue::Broken.to_string());
                }
                Some((last, _)) if last + 1 < sequence => gaps.push(format!(
                    "not here: {} to {} of chain {chain} by {agent}",
                    last + 1,
                    sequence - 1
                )),
                _ => {}
            }
            before = Some((sequence, finding.link.clone()));
        }
    }
    gaps
}

fn shown(finding: &Finding) -> String {
    let Some(said) = &finding.receipt else {
        let problem = finding.problem.as_deref().unwrap_or_default();
        return format!("NOT GENUINE: {problem}");
    };
    let status = said
        .http_status
        .map_or_else(String::new, |status| format!(" {status}"));
    let what = format!(
        "{} {}{status} {} delivery {} attempt {} by {}",
        said.started_at, said.class, said.destination, said.delivery, said.attempt, said.agent
    );
    match &finding.problem {
        None => format!("genuine: {what}"),
        Some(problem) => format!("NOT GENUINE: {problem}; it says {what}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receipts_are_found_in_lines_and_in_documents() {
        assert_eq!(receipts_in("a.b.c\n\n d.e.f \n"), ["a.b.c", "d.e.f"]);
        let documents =
            r#"{"attempts": [{"receipt": "a.b.c"}, {"receipt": ""}, {}]} {"receipt": "d"}"#;
        assert_eq!(receipts_in(documents), ["a.b.c", "d"]);
        assert!(receipts_in("").is_empty());
    }

    fn finding(sequence: u64, link: &str, previous: &str) -> Finding {
        let receipt = Receipt {
            agent: "agents/a".to_owned(),
            destination: String::new(),
            url: String::new(),
            delivery: String::new(),
            attempt: 1,
            started_at: String::new(),
            class: String::new(),
            http_status: None,
            payload_sha256: String::new(),
            client_certificate_serial: None,
            chain: "c".to_owned(),
            sequence,
            previous_sha256: previous.to_owned(),
        };
        Finding {
            genuine: true,
            problem: None,
            receipt: Some(receipt),
            link: link.to_owned(),
        }
    }

    #[test]
    fn a_chain_is_followed_in_whatever_order_it_comes() {
        let mut all = [
            finding(3, "three", "two"),
            finding(1, "one", "zero"),
            finding(2, "two", "one"),
            finding(7, "seven", "six"),
        ];
        let gaps = follow(&mut all);
        assert!(all.iter().all(|it| it.genuine));
        assert_eq!(gaps, ["not here: 4 to 6 of chain c by agents/a"]);
        // One that was put in the place of another.
        all[2].link = "other".to_owned();
        follow(&mut all);
        assert!(!all[0].genuine);
    }
}
