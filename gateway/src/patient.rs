//! Patience with clients, which has an end: one that does not take its answer holds a connection, a place and a hold; one
//! that asks nothing holds a connection.

use crate::respond::Body;
use bytes::Bytes;
use http_body::Frame;
use http_body_util::BodyExt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::Sleep;

/// A connection that breaks when the other side takes nothing for so long.
#[derive(Debug)]
pub struct Patient<I> {
    inner: I,
    patience: Duration,
    /// Runs while a write waits.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<I> Patient<I> {
    /// Waits for room to write at most so long.
    pub const fn new(inner: I, patience: Duration) -> Self {
        Self { inner, patience, waiting: None }
    }

    fn judge(&mut self, context: &mut Context<'_>, wrote: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if wrote.is_ready() {
            self.waiting = None;
            return wrote;
        }
        let patience = self.patience;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        ready!(waiting.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not take its answer")))
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Patient<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Patient<I> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.judge(context, wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.inner).poll_write_vectored(context, slices);
        self.judge(context, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

/// The requests of one connection.
#[derive(Debug, Default)]
pub struct Requests(watch::Sender<Traffic>);

#[derive(Debug, Default)]
struct Traffic {
    /// Not answered to their end.
    open: usize,
    /// There has been one.
    asked: bool,
}

/// One of them; over when it is dropped.
#[derive(Debug)]
pub struct Open(watch::Sender<Traffic>);

impl Requests {
    /// The headers of a request are here.
    pub fn open(&self) -> Open {
        self.0.send_modify(|traffic| *traffic = Traffic { open: traffic.open.saturating_add(1), asked: true });
        Open(self.0.clone())
    }

    /// Returns when there was nothing to do for so long: `first` from now on, `later` from the end of a request on.
    /// `true`: there has been a request.
    pub async fn quiet(&self, first: Duration, later: Duration) -> bool {
        let mut changes = self.0.subscribe();
        loop {
            let idle = changes.wait_for(|traffic| traffic.open == 0).await;
            let asked = idle.is_ok_and(|traffic| traffic.asked);
            let patience = if asked { later } else { first };
            if tokio::time::timeout(patience, changes.changed()).await.is_err() {
                return asked;
            }
        }
    }
}

impl Open {
    /// The answer; when it is over, so is the request.
    pub fn until_end_of(self, body: Body) -> impl http_body::Body<Data = Bytes, Error = io::Error> + Send + 'static {
        body.map_err(move |error| {
            let _kept = &self;
            error
        })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|traffic| traffic.open = traffic.open.saturating_sub(1));
    }
}

/// What a watched body and its watch share.
struct Slot {
    body: Option<Body>,
    /// When a frame was handed over after which nobody has asked for the next.
    handed: Option<Instant>,
}

/// A body that is let go when nobody asks for its next frame for so long. [`Patient`] alone does not see an HTTP/2 client
/// that lives and keeps the window of one stream shut.
struct Watched(Arc<Mutex<Slot>>);

/// Watches a body. Needs a runtime.
pub fn watched(body: Body, patience: Duration) -> Body {
    let slot = Arc::new(Mutex::new(Slot { body: Some(body), handed: None }));
    tokio::spawn(watch(Arc::downgrade(&slot), patience));
    Watched(slot).boxed_unsync()
}

async fn watch(slot: Weak<Mutex<Slot>>, patience: Duration) {
    loop {
        tokio::time::sleep(patience / 4).await;
        let Some(slot) = slot.upgrade() else { return };
        let mut slot = lock(&slot);
        if slot.handed.is_some_and(|handed| handed.elapsed() >= patience) {
            tracing::info!("a client does not take its answer");
            // Dropping it settles what was streamed and stops the replica.
            slot.body = None;
            return;
        }
    }
}

fn lock(slot: &Mutex<Slot>) -> MutexGuard<'_, Slot> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let mut slot = lock(&self.0);
        slot.handed = None;
        let Some(body) = slot.body.as_mut() else {
            let error = io::Error::new(io::ErrorKind::TimedOut, "the client did not take its answer");
            return Poll::Ready(Some(Err(error)));
        };
        let frame = ready!(Pin::new(body).poll_frame(context));
        slot.handed = frame.is_some().then(Instant::now);
        Poll::Ready(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt;
    use http_body_util::StreamBody;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const SHORT: Duration = Duration::from_millis(40);

    #[tokio::test]
    async fn a_request_before_the_first_look_counts() {
        let (requests, long) = (Requests::default(), Duration::from_secs(60));
        let open = requests.open();
        let mut quiet = std::pin::pin!(requests.quiet(long, SHORT));
        assert!(tokio::time::timeout(SHORT * 4, quiet.as_mut()).await.is_err(), "it is not answered yet");
        drop(open);
        assert!(quiet.await);
        assert!(requests.quiet(long, SHORT).await);
        assert!(!Requests::default().quiet(SHORT, long).await);
    }

    #[tokio::test]
    async fn a_reader_that_stops_breaks_the_connection() {
        let (ours, mut theirs) = tokio::io::duplex(8);
        let mut ours = Patient::new(ours, SHORT);
        let error = ours.write_all(&[7; 100]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let mut taken = [0; 8];
        theirs.read_exact(&mut taken).await.unwrap();
        assert_eq!(taken, [7; 8]);
    }

    #[tokio::test]
    async fn a_reader_that_goes_on_is_waited_for() {
        let (ours, mut theirs) = tokio::io::duplex(8);
        let mut ours = Patient::new(ours, Duration::from_secs(60));
        let reading = async {
            let mut all = [0; 100];
            theirs.read_exact(&mut all).await.unwrap();
        };
        let (wrote, ()) = tokio::join!(ours.write_all(&[7; 100]), reading);
        wrote.unwrap();
        assert!(ours.waiting.is_none());
    }

    /// Endless frames; the sender tells when they are let go.
    fn endless(token: Arc<()>) -> Body {
        let frames = futures::stream::repeat_with(move || {
            let _kept = &token;
            Ok(Frame::data(Bytes::from_static(b"x")))
        });
        StreamBody::new(frames.boxed()).boxed_unsync()
    }

    #[tokio::test]
    async fn a_body_that_nobody_asks_for_is_let_go() {
        let token = Arc::new(());
        let mut body = watched(endless(Arc::clone(&token)), SHORT);
        assert!(body.frame().await.unwrap().is_ok());
        for _ in 0..1000 {
            if Arc::strong_count(&token) == 1 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(Arc::strong_count(&token), 1, "it is still there");
        assert_eq!(body.frame().await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_body_whose_source_is_slow_is_kept() {
        let slow = futures::stream::once(async {
            tokio::time::sleep(SHORT * 4).await;
            Ok(Frame::data(Bytes::from_static(b"late")))
        });
        let mut body = watched(StreamBody::new(slow.boxed()).boxed_unsync(), SHORT);
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "late");
        assert!(body.frame().await.is_none());
    }
}
