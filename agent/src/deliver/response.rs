//! A receiver's answer, bounded: at most [`MAX_BODY`] of the body is read, the rest is dropped with
//! its connection. Of an error's body a first piece is looked at, because nginx says there what it
//! thinks of a client certificate.

use std::time::Duration;

use http::{Response, StatusCode, header::RETRY_AFTER};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Incoming};

use super::{
    facts::{Ending, Page},
    retry_after,
};
use countersign_shared::time::Timestamp;

/// Most of a body that is read, in bytes.
const MAX_BODY: usize = 64 * 1024;
/// Most of an error's body that is looked at, in bytes.
const MAX_PAGE: usize = 4 * 1024;

/// The head of an answer, as far as it matters.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) status: StatusCode,
    pub(super) retry_after: Option<Duration>,
}

/// Reads the head.
pub(super) fn head(response: &Response<Incoming>, now: Timestamp) -> Head {
    let retry_after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| retry_after::parse(value, now));
    Head {
        status: response.status(),
        retry_after,
    }
}

/// Reads the body to its end or to the bound.
pub(super) async fn finish(status: StatusCode, mut body: Incoming) -> Ending {
    let mut page = Vec::new();
    let mut read = 0;
    let wanted = if status == StatusCode::BAD_REQUEST {
        MAX_PAGE
    } else {
        0
    };
    // What announces more than is read is not begun: it would only have to be dropped.
    let mut more = body.size_hint().lower() <= MAX_BODY as u64 || wanted > 0;
    while more {
        let data = match body.frame().await {
            None => break,
            Some(Err(_)) => return Ending::AnswerCut,
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
        };
        let room = wanted - page.len();
        page.extend_from_slice(&data[..data.len().min(room)]);
        read += data.len();
        more = read <= MAX_BODY;
    }
    Ending::Answered {
        status: status.as_u16(),
        page: said(&page),
    }
}

/// What nginx's pages for its codes 495 and 496 say, which it sends with status 400.
fn said(page: &[u8]) -> Option<Page> {
    let has = |text: &[u8]| page.windows(text.len()).any(|window| window == text);
    if has(b"No required SSL certificate was sent") {
        Some(Page::NoCertificate)
    } else if has(b"The SSL certificate error") {
        Some(Page::CertificateError)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nginx_s_pages_are_recognised() {
        let page = b"<html>\r\n<head><title>400 No required SSL certificate was sent</title>";
        assert_eq!(said(page), Some(Page::NoCertificate));
        let page = b"<html>\r\n<head><title>400 The SSL certificate error</title></head>";
        assert_eq!(said(page), Some(Page::CertificateError));
        assert_eq!(said(b"400 Bad Request"), None);
        assert_eq!(said(b""), None);
    }
}
