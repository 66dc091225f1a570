//! Receivers that do not end what they begin, or end it too soon: each attempt has its class within its
//! bounds of time and bytes.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use countersign_shared::{bundle::Bundle, class::FailureClass as Class, outcome::Outcome};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::support::{bench::Bench, parties::Pki, receiver::Receiver};

/// Attempts may take so long.
const TIMEOUT: Duration = Duration::from_millis(700);
/// More than an agent may read of an answer before it gives up.
const FAR_TOO_MUCH: u64 = 16 << 20;

/// Delivers once to a receiver that reads the head of the request and then does as `serve` says; how many
/// bytes it could write.
async fn deliver_to<F>(
    serve: impl Fn(TlsStream<TcpStream>, Arc<AtomicU64>) -> F + Clone + Send + Sync + 'static,
) -> (Outcome, u64)
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let (bench, pki) = (Bench::new(), Pki::new());
    let acceptor = TlsAcceptor::from(Arc::new(pki.strict().config()));
    let written = Arc::<AtomicU64>::default();
    let counted = Arc::clone(&written);
    let address = Receiver::accepting(&bench.tasks, move |tcp| {
        let (acceptor, serve, counted) = (acceptor.clone(), serve.clone(), Arc::clone(&counted));
        async move {
            let mut stream = acceptor.accept(tcp).await?;
            stream.read_u8().await?;
            serve(stream, counted).await
        }
    })
    .await;
    bench.install(Bundle {
        attempt_timeout: TIMEOUT,
        ..pki.bundle(&format!("https://{address}/"))
    });
    let outcome = bench.deliver("x").await;
    bench.stop().await;
    (outcome, written.load(Ordering::SeqCst))
}

/// Writes `piece` again and again, as fast as it is taken or after a `pause`.
async fn without_end(
    mut stream: TlsStream<TcpStream>,
    written: &AtomicU64,
    piece: &[u8],
    pause: Duration,
) -> io::Result<()> {
    loop {
        stream.write_all(piece).await?;
        stream.flush().await?;
        written.fetch_add(piece.len() as u64, Ordering::SeqCst);
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
}

const SLOWLY: Duration = Duration::from_millis(20);

#[tokio::test]
async fn a_head_that_comes_a_byte_at_a_time_runs_out_of_time() {
    let (outcome, _) = deliver_to(|mut stream, written| async move {
        stream.write_all(b"HTTP/1.1 200 OK\r\nx-long: ").await?;
        without_end(stream, &written, b"y", SLOWLY).await
    })
    .await;
    assert_eq!(outcome.class, Class::RequestTimeout, "{outcome:?}");
}

#[tokio::test]
async fn headers_without_end_are_cut_off() {
    let (outcome, written) = deliver_to(|mut stream, written| async move {
        stream.write_all(b"HTTP/1.1 200 OK\r\n").await?;
        let header = b"x-more: 0123456789012345678901234567890123456789\r\n";
        without_end(stream, &written, header, Duration::ZERO).await
    })
    .await;
    assert_eq!(outcome.class, Class::HttpServerError, "{outcome:?}");
    assert!(written < FAR_TOO_MUCH, "{written} bytes were taken");
}

#[tokio::test]
async fn a_body_that_comes_a_byte_at_a_time_runs_out_of_time() {
    let (outcome, _) = deliver_to(|mut stream, written| async move {
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n";
        stream.write_all(head).await?;
        without_end(stream, &written, b"y", SLOWLY).await
    })
    .await;
    assert_eq!(outcome.class, Class::RequestTimeout, "{outcome:?}");
}

#[tokio::test]
async fn ten_gigabytes_are_not_read() {
    let (outcome, written) = deliver_to(|mut stream, written| async move {
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 10737418240\r\n\r\n";
        stream.write_all(head).await?;
        without_end(stream, &written, &[b'y'; 16 * 1024], Duration::ZERO).await
    })
    .await;
    assert_eq!(outcome.class, Class::Delivered, "{outcome:?}");
    assert!(written < FAR_TOO_MUCH, "{written} bytes were taken");
}

/// What it would be unpacked is never asked: answers are not decoded.
#[tokio::test]
async fn a_compressed_answer_is_left_as_it_is() {
    // An empty stream of gzip (RFC 1952) with a block that says that it goes on.
    let bomb = [
        0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x03, 0xed, 0xc1, 0x01, 0x0d, 0x00,
    ];
    let (outcome, _) = deliver_to(move |mut stream, _| async move {
        let head = "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 15\r\n\r\n";
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(&bomb).await?;
        stream.shutdown().await
    })
    .await;
    assert_eq!(outcome.class, Class::Delivered, "{outcome:?}");
}

#[tokio::test]
async fn a_reset_in_the_middle_of_an_answer_is_told() {
    let (outcome, _) = deliver_to(|mut stream, _| async move {
        stream.write_all(b"HTTP/1.1 2").await?;
        stream.flush().await?;
        // With unread bytes of the request, closing resets.
        drop(stream);
        Ok(())
    })
    .await;
    assert_eq!(outcome.class, Class::ConnectionLost, "{outcome:?}");
}
