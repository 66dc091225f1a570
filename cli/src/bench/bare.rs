//! The floor, a process of its own: a bare HTTP client that POSTs the same payload to the same
//! receiver over mutual TLS in a loop, and keeps no promise. What a delivery costs beyond that is
//! the price of signing, durability, leases, records and rotation.

use std::{
    io::{self, Read as _},
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use clap::Args;
use countersign_shared::{
    random,
    signature::{ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER},
    tasks::{OnFailure, Tasks},
    time::{Clock as _, SystemClock, Timestamp},
    tls::{self, PemError, certificates_from_pem},
};
use reqwest::{Client, header::CONTENT_TYPE};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use thiserror::Error;
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use super::{
    child,
    files::{BareResult, Listening, tell, told},
    payload,
    process::Usage,
    receiver::BARE,
};
use crate::mutual_tls::HTTP_1_1;

/// Between the last connection's first answer and what is measured.
const WARM_UP: Duration = Duration::from_millis(500);
/// Longest identity on standard input, in bytes.
const MAX_IDENTITY: u64 = 64 * 1024;

/// Flags of the bare client; its certificate and key come on standard input, in PEM.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Where the receiver says that it listens.
    #[arg(long)]
    listening: PathBuf,
    /// Size of a payload in bytes.
    #[arg(long)]
    payload: usize,
    /// How many requests are under way at once.
    #[arg(long)]
    concurrency: usize,
    /// How long to measure, in milliseconds.
    #[arg(long)]
    milliseconds: u64,
    /// Where to write the result.
    #[arg(long)]
    result: PathBuf,
}

#[derive(Debug, Error)]
enum BareError {
    #[error("a file of the benchmark: {0}")]
    Io(#[from] io::Error),
    #[error("the receiver's authority {0}")]
    Authority(#[from] PemError),
    #[error("the client certificate is not PEM: {0}")]
    Identity(#[from] rustls_pki_types::pem::Error),
    #[error("TLS configuration: {0}")]
    Tls(#[from] rustls::Error),
    #[error("a request failed: {0:?}")]
    Request(#[from] reqwest::Error),
    #[error("not one request was answered")]
    Nothing,
}

/// What each loop needs.
#[derive(Clone)]
struct Loop {
    client: Client,
    url: String,
    payload: Bytes,
    /// What counts begins and ends then; known once every connection is open.
    measured: Arc<OnceLock<(Timestamp, Timestamp)>>,
}

/// Runs for the time that it is told.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    child::run("bare client", measure(arguments))
}

async fn measure(arguments: &Arguments) -> Result<(), BareError> {
    let receiver: Listening =
        told(&arguments.listening)?.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    let elapsed = Duration::from_millis(arguments.milliseconds);
    let each = Loop {
        client: client(&receiver.ca_pem, arguments.concurrency)?,
        url: format!("https://{}{BARE}", receiver.address),
        payload: payload::of_size(arguments.payload),
        measured: Arc::default(),
    };
    let (tasks, _failures) = Tasks::new();
    let (counts, mut counted) = mpsc::channel(arguments.concurrency.max(1));
    let (open, mut opened) = mpsc::channel(arguments.concurrency.max(1));
    for _ in 0..arguments.concurrency {
        let (each, counts, open) = (each.clone(), counts.clone(), open.clone());
        tasks.spawn("loop", OnFailure::Log, async move {
            // Nobody listens when another one failed.
            let _ = counts.send(each.run(open).await).await;
            Ok::<_, BareError>(())
        });
    }
    drop((counts, open));
    while opened.recv().await.is_some() {}
    let from = SystemClock.now().plus(WARM_UP);
    each.measured.get_or_init(|| (from, from.plus(elapsed)));
    tokio::time::sleep(WARM_UP).await;
    let before = Usage::of(std::process::id())?;
    let mut posts = 0;
    while let Some(count) = counted.recv().await {
        posts += count?;
    }
    let cpu = Usage::of(std::process::id())?.since(before).cpu;
    if posts == 0 {
        return Err(BareError::Nothing);
    }
    let result = BareResult {
        posts,
        elapsed,
        cpu,
    };
    Ok(tell(&arguments.result, &result)?)
}

impl Loop {
    /// How many requests were answered in the measured time. Lets go of `open` when the first one is.
    async fn run(self, open: mpsc::Sender<()>) -> Result<usize, BareError> {
        let id = random::uuid_v7(SystemClock.now()).to_string();
        let (mut open, mut count) = (Some(open), 0);
        loop {
            let request = self
                .client
                .post(&self.url)
                .header(CONTENT_TYPE, payload::CONTENT_TYPE)
                .header(ID_HEADER, &id)
                .header(TIMESTAMP_HEADER, "1700000000")
                // As long as a real one.
                .header(
                    SIGNATURE_HEADER,
                    "v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
                )
                .body(self.payload.clone());
            let response = request.send().await?.error_for_status()?;
            response.bytes().await?;
            drop(open.take());
            let Some((from, to)) = self.measured.get() else {
                continue;
            };
            let now = SystemClock.now();
            if now >= *to {
                return Ok(count);
            }
            count += usize::from(now >= *from);
        }
    }
}

/// A client that trusts the receiver alone and presents the identity on standard input.
fn client(server_ca_pem: &str, concurrency: usize) -> Result<Client, BareError> {
    let mut pem = Zeroizing::new(Vec::new());
    io::stdin().take(MAX_IDENTITY).read_to_end(&mut pem)?;
    let chain = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(&pem)?;
    let mut roots = RootCertStore::empty();
    for authority in certificates_from_pem(server_ca_pem)? {
        roots.add(authority)?;
    }
    let mut config = ClientConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(Arc::new(roots))
        .with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![HTTP_1_1.to_vec()];
    // A proxy from the environment has no business on the loopback interface.
    let client = Client::builder()
        .tls_backend_preconfigured(config)
        .http1_only()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .pool_max_idle_per_host(concurrency);
    Ok(client.build()?)
}
