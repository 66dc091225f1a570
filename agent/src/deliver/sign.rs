//! From a leased job to a signed request: the Standard Webhooks headers over the payload, byte for
//! byte.

use bytes::Bytes;
use countersign_shared::{
    VERSION,
    job::LeasedJob,
    signature::{ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, ed25519::sign_v1a, sign_v1},
    time::Timestamp,
};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request,
    header::{CONTENT_TYPE, HOST, USER_AGENT},
};

use super::prepared::Prepared;

const ID: HeaderName = HeaderName::from_static(ID_HEADER);
const TIMESTAMP: HeaderName = HeaderName::from_static(TIMESTAMP_HEADER);
const SIGNATURE: HeaderName = HeaderName::from_static(SIGNATURE_HEADER);

/// Signs `job` as sent at `at`: a request in the form for HTTP/1.1.
///
/// # Errors
/// When the media type or a header of the sender's can't be one.
pub(super) fn sign(
    job: &LeasedJob,
    bundle: &Prepared,
    at: Timestamp,
) -> Result<Request<Bytes>, http::Error> {
    let id = job.lease.delivery.to_string();
    let mut signature = sign_v1(&bundle.signing_secrets, &id, at, &job.payload);
    if !bundle.signing_keys.is_empty() {
        if !signature.is_empty() {
            signature.push(' ');
        }
        signature += &sign_v1a(&bundle.signing_keys, &id, at, &job.payload);
    }
    let mut headers = HeaderMap::with_capacity(8);
    // First, as RFC 9110 section 7.2 wants it.
    headers.insert(HOST, bundle.target.host.clone());
    for (name, value) in job.headers.iter() {
        headers.insert(HeaderName::try_from(name)?, HeaderValue::try_from(value)?);
    }
    // After the sender's: what is ours can't be replaced.
    headers.insert(ID, HeaderValue::try_from(id)?);
    headers.insert(TIMESTAMP, HeaderValue::from(at.as_unix_seconds()));
    headers.insert(SIGNATURE, HeaderValue::try_from(signature)?);
    headers.insert(CONTENT_TYPE, HeaderValue::from_str(&job.content_type)?);
    headers.insert(USER_AGENT, user_agent());
    let mut request = Request::new(job.payload.clone());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = bundle.target.origin.clone();
    *request.headers_mut() = headers;
    Ok(request)
}

/// What the agent calls itself.
pub(super) fn user_agent() -> HeaderValue {
    static VALUE: std::sync::OnceLock<HeaderValue> = std::sync::OnceLock::new();
    let value = VALUE.get_or_init(|| {
        HeaderValue::try_from(format!("Countersign/{VERSION}"))
            // A version is digits, letters and dots.
            .unwrap_or_else(|_| HeaderValue::from_static("Countersign"))
    });
    value.clone()
}
