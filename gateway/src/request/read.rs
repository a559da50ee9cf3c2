//! Reads a request's body within bounds. A body that is too large is never kept, only let pass by, so that the client,
//! which may not listen before it has sent all, gets to read the 413.

use crate::limits;
use crate::respond::Refusal;
use bytes::{Bytes, BytesMut};
use http::{Request, header};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};

/// The whole body.
pub(super) async fn body(request: Request<Incoming>) -> Result<Bytes, Refusal> {
    let reading = tokio::time::timeout(limits::BODY_TIMEOUT, read(request));
    reading.await.unwrap_or_else(|_| Err(Refusal::too_slow()))
}

async fn read(request: Request<Incoming>) -> Result<Bytes, Refusal> {
    let asks_first = request.headers().contains_key(header::EXPECT);
    let mut body = request.into_body();
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > limits::BODY_BYTES_MAX {
        // A client that asks before it sends has sent nothing yet, and one that announces too much is not worth the wait.
        if !asks_first && announced <= limits::DISCARD_BYTES_MAX {
            discard(&mut body).await;
        }
        return Err(Refusal::too_large());
    }
    let mut bytes = BytesMut::with_capacity(announced);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Refusal::body("The body of the request broke off."))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len().saturating_add(data.len()) > limits::BODY_BYTES_MAX {
            drop(bytes);
            discard(&mut body).await;
            return Err(Refusal::too_large());
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

async fn discard(body: &mut Incoming) {
    let mut left = limits::DISCARD_BYTES_MAX;
    while let Some(Ok(frame)) = body.frame().await {
        let Some(rest) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) else { return };
        left = rest;
    }
}
