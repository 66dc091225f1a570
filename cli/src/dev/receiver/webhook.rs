//! One webhook: read within bounds, verified as Standard Webhooks says, and recorded.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use countersign_shared::{
    secret::SecretBytes,
    signature::{self, ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER},
    time::{Clock, Timestamp},
};
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Body;

use super::record::{Connection, Reception, Verdict};

/// Where webhooks are taken.
pub(crate) const PATH: &str = "/webhooks";
/// Largest body in bytes: the most that a control plane can be told to accept.
const MAX_BODY: usize = 16 * 1024 * 1024;
/// How long a body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// How far off a signed timestamp may be, either way.
const TOLERANCE: Duration = Duration::from_secs(300);

/// Takes a request.
///
/// # Errors
/// The status to answer with, when the request is no webhook: 404, 405, 408 or 413.
pub(crate) async fn take<B>(
    request: Request<B>,
    secret: &SecretBytes,
    connection: &Arc<Connection>,
    clock: &dyn Clock,
) -> Result<Reception, StatusCode>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    let (head, body) = request.into_parts();
    if head.uri.path() != PATH {
        return Err(StatusCode::NOT_FOUND);
    }
    if head.method != Method::POST {
        return Err(StatusCode::METHOD_NOT_ALLOWED);
    }
    let reading = Limited::new(body, MAX_BODY).collect();
    let body = match tokio::time::timeout(BODY_TIMEOUT, reading).await {
        Ok(Ok(collected)) => collected.to_bytes(),
        Ok(Err(_)) => return Err(StatusCode::PAYLOAD_TOO_LARGE),
        Err(_) => return Err(StatusCode::REQUEST_TIMEOUT),
    };
    let now = clock.now();
    let text = |name| text(&head.headers, name).unwrap_or_default().to_owned();
    Ok(Reception {
        at: now,
        id: text(ID_HEADER),
        body_bytes: body.len(),
        content_type: text(header::CONTENT_TYPE.as_str()),
        user_agent: text(header::USER_AGENT.as_str()),
        verdict: verify(&head.headers, &body, secret, now),
        connection: Arc::clone(connection),
    })
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Whether the request was signed with `secret`, at most five minutes from `now`.
fn verify(headers: &HeaderMap, body: &[u8], secret: &SecretBytes, now: Timestamp) -> Verdict {
    let required = |name| text(headers, name).ok_or(Verdict::Header(name));
    let check = || {
        let id = required(ID_HEADER)?;
        let timestamp = required(TIMESTAMP_HEADER)?;
        let signatures = required(SIGNATURE_HEADER)?;
        let seconds = timestamp.parse().map_err(|_| Verdict::Timestamp)?;
        let signed_at = Timestamp::from_unix_seconds(seconds);
        let off = now.since(signed_at).max(signed_at.since(now));
        if off > TOLERANCE {
            return Err(Verdict::Stale(off));
        }
        if !signature::verify_v1(secret, id, seconds, body, signatures) {
            return Err(Verdict::Signature);
        }
        Ok(Verdict::Verified)
    };
    check().unwrap_or_else(|refused| refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_700_000_000;
    const BODY: &[u8] = b"{\"order\":1001}";

    fn signed(secret: &SecretBytes, at: i64) -> HeaderMap {
        let signed_at = Timestamp::from_unix_seconds(at);
        let signature = signature::sign_v1([secret], "d-1", signed_at, BODY);
        let mut headers = HeaderMap::new();
        headers.insert(ID_HEADER, "d-1".parse().unwrap());
        headers.insert(TIMESTAMP_HEADER, at.to_string().parse().unwrap());
        headers.insert(SIGNATURE_HEADER, signature.parse().unwrap());
        headers
    }

    fn verdict(headers: &HeaderMap, body: &[u8], secret: &SecretBytes) -> Verdict {
        verify(headers, body, secret, Timestamp::from_unix_seconds(NOW))
    }

    #[test]
    fn what_was_signed_verifies_and_what_was_tampered_with_does_not() {
        let secret = signature::generate_secret();
        let headers = signed(&secret, NOW);
        assert_eq!(verdict(&headers, BODY, &secret), Verdict::Verified);
        assert_eq!(
            verdict(&headers, b"{\"order\":9999}", &secret),
            Verdict::Signature
        );
        let other = signature::generate_secret();
        assert_eq!(verdict(&headers, BODY, &other), Verdict::Signature);
        let mut renamed = headers;
        renamed.insert(ID_HEADER, "d-2".parse().unwrap());
        assert_eq!(verdict(&renamed, BODY, &secret), Verdict::Signature);
    }

    #[test]
    fn five_minutes_is_the_limit_both_ways() {
        let secret = signature::generate_secret();
        let at = |seconds| verdict(&signed(&secret, seconds), BODY, &secret);
        let stale = Verdict::Stale(Duration::from_secs(301));
        assert_eq!(at(NOW - 300), Verdict::Verified);
        assert_eq!(at(NOW - 301), stale);
        assert_eq!(at(NOW + 300), Verdict::Verified);
        assert_eq!(at(NOW + 301), stale);
        assert_eq!(stale.status(), StatusCode::UNAUTHORIZED);
    }

    #[test]
    fn missing_and_broken_headers_are_named() {
        let secret = signature::generate_secret();
        for name in [ID_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER] {
            let mut headers = signed(&secret, NOW);
            headers.remove(name);
            let found = verdict(&headers, BODY, &secret);
            assert_eq!(found, Verdict::Header(name));
            assert_eq!(found.status(), StatusCode::BAD_REQUEST);
        }
        let mut headers = signed(&secret, NOW);
        headers.insert(TIMESTAMP_HEADER, "yesterday".parse().unwrap());
        assert_eq!(verdict(&headers, BODY, &secret), Verdict::Timestamp);
    }
}
