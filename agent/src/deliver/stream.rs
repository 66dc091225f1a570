//! A receiver's connection as the HTTP library sees it: it remembers the TLS alert in whatever error
//! brings it, and after a failed write it lets the reads tell why.
//!
//! A receiver that refuses our certificate while a body is being written has sent its alert, and
//! then closed; the write fails first. So a failed write is held back: further writes are taken and
//! dropped, and reading goes on until an answer, the alert, the end, or [`PATIENCE`] is over. Only
//! then does the write's error come out.
//!
//! Before every read and write it looks whether the connection is pulled down from outside.

use std::{
    future::Future as _,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use super::{
    alert::alert_in,
    handshake::{End, Handshake},
};

/// How long to read on after a failed write.
const PATIENCE: Duration = Duration::from_secs(1);
/// How much is read on after a failed write, in bytes.
const ENOUGH: usize = 256 * 1024;

/// A connection that remembers what it was told. `S` is a TLS stream.
#[derive(Debug)]
pub(super) struct Stream<S> {
    inner: S,
    handshake: Arc<Handshake>,
    failed: Option<FailedWrite>,
    patience: Duration,
    /// Makes closing `inner` drop what is not sent yet.
    abort: fn(&S),
    /// After `inner`: once its end is known, nothing is left of it.
    _end: End,
}

#[derive(Debug)]
struct FailedWrite {
    error: io::Error,
    patience: Pin<Box<Sleep>>,
    left: usize,
}

impl<S> Stream<S> {
    /// `abort` makes closing the connection drop what is not sent yet; it is called when the
    /// connection is pulled down.
    pub(super) fn new(inner: S, end: End, abort: fn(&S)) -> Self {
        Self {
            inner,
            handshake: Arc::clone(&end.0),
            failed: None,
            patience: PATIENCE,
            abort,
            _end: end,
        }
    }

    /// What it goes over.
    pub(super) fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Goes on, unless the connection is pulled down.
    fn holds(&self) -> io::Result<()> {
        if self.handshake.cord().is_pulled() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }

    /// What a poll came to. The one that waits is woken when the connection is pulled down.
    fn or_pulled<T>(&self, polled: Poll<io::Result<T>>, cx: &Context<'_>) -> Poll<io::Result<T>> {
        if polled.is_pending() && self.handshake.cord().watch(cx) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        polled
    }

    fn note(&self, error: &io::Error) {
        if let Some(alert) = alert_in(error) {
            self.handshake.alerted(alert);
        }
    }

    /// Holds a write's error back, unless the alert is known already or the connection is pulled
    /// down.
    fn write_failed(&mut self, error: io::Error, swallowed: usize) -> Poll<io::Result<usize>> {
        self.note(&error);
        if self.handshake.has_alert() || self.handshake.cord().is_pulled() {
            return Poll::Ready(Err(error));
        }
        self.failed = Some(FailedWrite {
            error,
            patience: Box::pin(sleep(self.patience)),
            left: ENOUGH,
        });
        Poll::Ready(Ok(swallowed))
    }
}

impl<S> Drop for Stream<S> {
    fn drop(&mut self) {
        if self.handshake.cord().is_pulled() {
            (self.abort)(&self.inner);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.holds()?;
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buffer);
        let read = self.or_pulled(read, cx);
        let this = &mut *self;
        if let Poll::Ready(Err(error)) = &read {
            this.note(error);
        }
        let Some(failed) = &mut this.failed else {
            return read;
        };
        match read {
            Poll::Ready(Ok(())) => {
                let more = buffer.filled().len() - before;
                if more > 0 && more <= failed.left {
                    failed.left -= more;
                    return Poll::Ready(Ok(()));
                }
                buffer.set_filled(before);
            }
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => ready!(failed.patience.as_mut().poll(cx)),
        }
        Poll::Ready(Err(copy(&failed.error)))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.holds()?;
        if self.failed.is_some() {
            return Poll::Ready(Ok(data.len()));
        }
        let written = Pin::new(&mut self.inner).poll_write(cx, data);
        match ready!(self.or_pulled(written, cx)) {
            Ok(written) => Poll::Ready(Ok(written)),
            Err(error) => self.write_failed(error, data.len()),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.holds()?;
        let all = data.iter().map(|slice| slice.len()).sum();
        if self.failed.is_some() {
            return Poll::Ready(Ok(all));
        }
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, data);
        match ready!(self.or_pulled(written, cx)) {
            Ok(written) => Poll::Ready(Ok(written)),
            Err(error) => self.write_failed(error, all),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.holds()?;
        if self.failed.is_some() {
            return Poll::Ready(Ok(()));
        }
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        match ready!(self.or_pulled(flushed, cx)) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(error) => self.write_failed(error, 0).map_ok(|_| ()),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.holds()?;
        let shut = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.or_pulled(shut, cx)
    }
}

/// An error of the same kind. What it said is not used: users get texts from a fixed list.
fn copy(error: &io::Error) -> io::Error {
    error.kind().into()
}

#[cfg(test)]
mod tests;
