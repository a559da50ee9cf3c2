//! Tells a client that waits for its stream that it is not forgotten, or a proxy between would cut the silent connection.
//!
//! Only after a while: once the first comment has gone, an error can't be a status code any more, it is the last event.

use crate::deadline::Deadline;
use crate::patient;
use crate::respond::{Body, Refusal};
use crate::upstream::sse;
use crate::{limits, respond};
use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{HeaderValue, Response, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use std::io;
use std::pin::Pin;
use std::time::Duration;

const COMMENT: &[u8] = b": waiting\n\n";

/// What the client waits for.
type Work = Pin<Box<dyn Future<Output = Result<Response<Body>, Refusal>> + Send>>;

/// The work's own answer if it comes soon, else a stream of comments until it does.
pub async fn answer<W>(work: W, every: Duration, deadline: Deadline, id: &str) -> Result<Response<Body>, Refusal>
where
    W: Future<Output = Result<Response<Body>, Refusal>> + Send + 'static,
{
    let mut work: Work = Box::pin(deadline.within(work));
    if let Ok(answer) = tokio::time::timeout(every, &mut work).await {
        return answer;
    }
    tracing::info!(request = id, "the client waits for its stream");
    let waiting = Waiting { every, id: id.to_owned(), state: State::For(work) };
    let comment = stream::iter([Ok(Frame::data(Bytes::from_static(COMMENT)))]);
    let frames = comment.chain(stream::unfold(waiting, Waiting::next));
    let body = StreamBody::new(frames.boxed()).boxed_unsync();
    let mut response = Response::new(patient::watched(body, limits::CLIENT_STALL));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(sse::CONTENT_TYPE));
    response.headers_mut().insert(header::CACHE_CONTROL, respond::NO_CACHE);
    Ok(response)
}

struct Waiting {
    every: Duration,
    id: String,
    state: State,
}

enum State {
    For(Work),
    /// The stream has come.
    Through(Body),
    Over,
}

impl Waiting {
    async fn next(mut self) -> Option<(io::Result<Frame<Bytes>>, Self)> {
        if let State::For(work) = &mut self.state {
            let Ok(answer) = tokio::time::timeout(self.every, work).await else {
                return Some((Ok(Frame::data(Bytes::from_static(COMMENT))), self));
            };
            match answer {
                Ok(response) if sse::is_stream(response.headers()) => self.state = State::Through(response.into_body()),
                Ok(response) => return self.whole(response.into_body()).await,
                Err(refusal) => return Some(self.refused(&refusal)),
            }
        }
        let State::Through(body) = &mut self.state else { return None };
        let frame = body.frame().await?;
        Some((frame, self))
    }

    /// The engine does not stream: all it says is one event.
    async fn whole(mut self, body: Body) -> Option<(io::Result<Frame<Bytes>>, Self)> {
        self.state = State::Over;
        let whole = body.collect().await.map(|whole| Frame::data(sse::event(&whole.to_bytes())));
        Some((whole, self))
    }

    fn refused(mut self, refusal: &Refusal) -> (io::Result<Frame<Bytes>>, Self) {
        let status = refusal.status.as_u16();
        tracing::info!(request = self.id, status, refusal.code, "refused in a stream that had begun");
        self.state = State::Over;
        (Ok(Frame::data(sse::event(&refusal.json()))), self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;
    use std::sync::Arc;
    use tokio::sync::oneshot;

    const SOON: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(60);

    type Answer = Result<Response<Body>, Refusal>;

    fn streamed(events: &'static str) -> Response<Body> {
        let mut response = Response::new(respond::full(Bytes::from_static(events.as_bytes())));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(sse::CONTENT_TYPE));
        response
    }

    /// What the client reads when the answer comes only after it was told twice that it waits, those two left out.
    async fn late(come: Answer) -> String {
        let (send, receive) = oneshot::channel();
        let work = async { receive.await.unwrap() };
        let response = answer(work, SOON, Deadline::begin(LONG), "a").await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[header::CONTENT_TYPE], sse::CONTENT_TYPE);
        let mut body = response.into_body();
        for _ in 0..2 {
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), COMMENT);
        }
        assert!(send.send(come).is_ok());
        rest(body).await.replace(": waiting\n\n", "")
    }

    async fn rest(body: Body) -> String {
        String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn what_comes_soon_is_left_alone() {
        let deadline = Deadline::begin(LONG);
        let refused = answer(async { Err(Refusal::upstream()) }, LONG, deadline, "a").await;
        assert_eq!(refused.unwrap_err(), Refusal::upstream());
        let response = answer(async { Ok(streamed("data: x\n\n")) }, LONG, deadline, "a").await.unwrap();
        assert_eq!(rest(response.into_body()).await, "data: x\n\n");
    }

    #[tokio::test]
    async fn who_waits_hears_so_until_the_stream_comes() {
        let stream = "data: x\n\ndata: [DONE]\n\n";
        assert_eq!(late(Ok(streamed(stream))).await, stream);
    }

    #[tokio::test]
    async fn an_error_after_the_first_comment_is_the_last_event() {
        let text = late(Err(Refusal::upstream())).await;
        assert_eq!(text.as_bytes(), sse::event(&Refusal::upstream().json()));
    }

    #[tokio::test]
    async fn an_engine_that_does_not_stream_makes_one_event() {
        let json = Response::new(respond::full(Bytes::from_static(b"{\n \"a\": 1}\n")));
        assert_eq!(late(Ok(json)).await, "data: {  \"a\": 1} \n\n");
    }

    #[tokio::test]
    async fn waiting_ends_at_the_deadline_and_drops_the_work() {
        let token = Arc::new(());
        let kept = Arc::clone(&token);
        let work = async move {
            let _kept = kept;
            std::future::pending().await
        };
        let response = answer(work, SOON, Deadline::begin(Duration::from_secs(1)), "a").await.unwrap();
        assert!(rest(response.into_body()).await.contains("deadline_exceeded"));
        assert_eq!(Arc::strong_count(&token), 1);
    }
}
