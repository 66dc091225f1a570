//! What a stream does when its writes fail, and when it is pulled down.

use rustls::AlertDescription;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

/// Refuses every write; its reads give `answers` in turn.
struct Refusing(Vec<io::Result<&'static [u8]>>);

impl AsyncRead for Refusing {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.0.pop() {
            Some(Ok(data)) => {
                buffer.put_slice(data);
                Poll::Ready(Ok(()))
            }
            Some(Err(error)) => Poll::Ready(Err(error)),
            None => Poll::Pending,
        }
    }
}

impl AsyncWrite for Refusing {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn stream(answers: Vec<io::Result<&'static [u8]>>) -> Stream<Refusing> {
    Stream::new(Refusing(answers), End(Arc::default()), |_| ())
}

#[tokio::test]
async fn the_alert_behind_a_failed_write_is_found() {
    let alert = rustls::Error::AlertReceived(AlertDescription::CertificateExpired);
    let mut stream = stream(vec![Err(io::Error::new(io::ErrorKind::InvalidData, alert))]);
    stream.write_all(&[0; 100_000]).await.unwrap();
    assert!(stream.read_u8().await.is_err());
    assert_eq!(
        stream.handshake.record(true).alert.as_ref().unwrap().number,
        45
    );
}

#[tokio::test]
async fn an_answer_behind_a_failed_write_is_read_and_then_the_error_comes_out() {
    let mut stream = stream(vec![Ok(b""), Ok(b"HTTP/1.1 413")]);
    stream.write_all(b"body").await.unwrap();
    let mut answer = Vec::new();
    let error = stream.read_to_end(&mut answer).await.unwrap_err();
    assert_eq!(answer, b"HTTP/1.1 413");
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn patience_with_a_silent_receiver_ends() {
    let mut stream = stream(Vec::new());
    stream.patience = Duration::ZERO;
    stream.write_all(b"body").await.unwrap();
    let error = stream.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn a_connection_that_is_pulled_down_neither_reads_nor_writes_and_wakes_who_waits() {
    let (near, mut far) = tokio::io::duplex(64);
    let mut stream = Stream::new(near, End(Arc::default()), |_| ());
    let handshake = Arc::clone(&stream.handshake);
    let read = async {
        let error = stream.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    };
    let pull = async {
        tokio::task::yield_now().await;
        handshake.cord().pull();
    };
    tokio::join!(read, pull);
    assert!(stream.write_all(b"body").await.is_err());
    drop(stream);
    handshake.closed().await;
    let mut got = Vec::new();
    far.read_to_end(&mut got).await.unwrap();
    assert!(got.is_empty());
}
