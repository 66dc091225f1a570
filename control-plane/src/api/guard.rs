//! The one way into the API: who calls, how often, and whether that one may call this for that
//! account, before any service sees the request. What the table of rules does not know is not let in,
//! but for health and reflection, which tell only what is public.

use std::{
    convert::Infallible,
    future::Future,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use countersign_shared::time::Clock;
use http::{Request, Response, header::AUTHORIZATION};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};

use super::{
    authenticate::Peer,
    status::{self, status},
};
use crate::{
    audit::{self, Call, Refusal, Refusals},
    auth::{ApiKeys, Denied, Principal, Refused, Rules},
    metrics::Metrics,
};

/// What is served to everybody.
const PUBLIC: [&str; 3] = [
    "/grpc.health.v1.Health/",
    "/grpc.reflection.v1.ServerReflection/",
    "/grpc.reflection.v1alpha.ServerReflection/",
];
/// Before each message: whether it is compressed, and its length (the gRPC protocol over HTTP/2).
const PREFIX: usize = 5;

/// Lets in whom the rules let in.
#[derive(Clone)]
pub struct Guard {
    /// Who may do what.
    pub rules: Arc<Rules>,
    /// The keys that are valid.
    pub keys: Arc<ApiKeys>,
    /// Counts refusals.
    pub metrics: Metrics,
    /// Largest message in bytes.
    pub max_message: usize,
    /// Gathers refusals for the audit log.
    pub refusals: Arc<Refusals>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
}

impl<S> Layer<S> for Guard {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded {
            guard: self.clone(),
            inner,
        }
    }
}

/// Services behind a [`Guard`].
#[derive(Clone)]
pub struct Guarded<S> {
    guard: Guard,
    inner: S,
}

impl<S> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone,
    S: Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let judged = self.guard.judge(&mut request);
        let caller = Caller::of(&request);
        match judged {
            Ok(Judged::Allowed) => {
                let call = self.inner.call(request);
                Box::pin(async { call.await.map(blame_the_request) })
            }
            Err(refused) => {
                self.guard.refused(&caller, &refused);
                Box::pin(async move { Ok(refused.into_http()) })
            }
            Ok(Judged::Read { by_message }) => {
                let guard = self.guard.clone();
                // The one that was polled to be ready is the one that is called.
                let ready = self.inner.clone();
                let mut inner = std::mem::replace(&mut self.inner, ready);
                Box::pin(async move {
                    match guard.judge_message(&caller, by_message, request).await {
                        Ok((request, Some(call))) => {
                            let answer = audit::scope(call, inner.call(request)).await;
                            answer.map(blame_the_request)
                        }
                        Ok((request, None)) => inner.call(request).await.map(blame_the_request),
                        Err(refused) => {
                            guard.refused(&caller, &refused);
                            Ok(refused.into_http())
                        }
                    }
                })
            }
        }
    }
}

/// How tonic begins to say that a message can't be decoded, as the header has it.
const UNDECODABLE: &str = "failed to decode";

/// A message that can't be decoded is the caller's mistake; tonic calls that an internal error.
fn blame_the_request(answer: Response<Body>) -> Response<Body> {
    let headers = answer.headers();
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let internal =
        text("grpc-status") == Some("13") && !headers.contains_key("grpc-status-details-bin");
    let message = text("grpc-message").unwrap_or_default().replace("%20", " ");
    if internal && message.starts_with(UNDECODABLE) {
        let problem = "it is not a message of this type".to_owned();
        return status::denied(&Denied::Unreadable(problem)).into_http();
    }
    answer
}

/// What is known of a call before its message is read.
enum Judged {
    /// It is let in.
    Allowed,
    /// Its message has to be read first.
    Read {
        /// Whether it is let in depends on the message. If not, the audit log needs it.
        by_message: bool,
    },
}

/// Who calls what, for the audit log.
struct Caller {
    principal: Option<Arc<Principal>>,
    address: Option<IpAddr>,
    path: String,
}

impl Caller {
    fn of(request: &Request<Body>) -> Self {
        let extensions = request.extensions();
        Self {
            principal: extensions.get::<Arc<Principal>>().cloned(),
            address: extensions.get::<Peer>().and_then(|peer| peer.address),
            path: request.uri().path().to_owned(),
        }
    }

    fn name(&self) -> &str {
        self.principal.as_ref().map_or("", |it| it.name.as_str())
    }
}

impl Guard {
    fn judge(&self, request: &mut Request<Body>) -> Result<Judged, Status> {
        let path = request.uri().path();
        if PUBLIC.iter().any(|public| path.starts_with(public)) {
            return Ok(Judged::Allowed);
        }
        let Some(rule) = self.rules.get(path) else {
            let text = "there is no such method here: see reflection";
            return Err(status(Code::Unimplemented, "NO_SUCH_METHOD", text));
        };
        let on_record = rule.is_on_record();
        let principal = self.authenticate(request)?;
        // From here on it is known who calls, also when that one is refused.
        let extensions = request.extensions_mut();
        extensions.insert(Arc::clone(&principal));
        if let Err(wait) = principal.count(self.keys.now()) {
            self.metrics.limited_calls.inc();
            return Err(status::too_many_calls(&principal.name, wait));
        }
        let by_message = self.rules.judge(request.uri().path(), &principal);
        let by_message = by_message.map_err(|denied| self.denied(denied))?;
        Ok(match by_message || on_record {
            true => Judged::Read { by_message },
            false => Judged::Allowed,
        })
    }

    fn authenticate(&self, request: &Request<Body>) -> Result<Arc<Principal>, Status> {
        let header = request.headers().get(AUTHORIZATION);
        let header = header.and_then(|value| value.to_str().ok());
        let peer = request.extensions().get::<Peer>();
        let client = peer.and_then(|peer| peer.client.as_ref());
        if let (None, Some(client)) = (request.headers().get(AUTHORIZATION), client) {
            return self.still_valid(client);
        }
        let address = peer.and_then(|peer| peer.address);
        let refused = match self.keys.authenticate(header, address.map(Into::into)) {
            Ok(principal) => return Ok(principal),
            Err(refused) => refused,
        };
        self.metrics.authentication_failures.inc();
        Err(match refused {
            Refused::Key => status::no_key(),
            Refused::TooManyFailures(wait) => status::too_many_failures(wait),
        })
    }

    /// A connection outlives the certificate that it was made with.
    fn still_valid(&self, client: &Arc<Principal>) -> Result<Arc<Principal>, Status> {
        if client.is_valid(self.keys.now()) {
            return Ok(Arc::clone(client));
        }
        self.metrics.authentication_failures.inc();
        Err(status::certificate_expired(&client.name))
    }

    fn denied(&self, denied: Denied) -> Status {
        self.metrics.denied_calls.inc();
        tracing::info!(%denied, "call denied");
        status::denied(&denied)
    }

    /// For the audit log. What is no method of ours is nobody's to refuse.
    fn refused(&self, caller: &Caller, refused: &Status) {
        let Some(rule) = self.rules.get(&caller.path) else {
            return;
        };
        let refusal = Refusal {
            principal: caller.name().to_owned(),
            address: caller.address,
            method: rule.method.to_owned(),
            reason: status::reason(refused),
        };
        self.refusals.note(refusal, self.clock.now());
    }

    /// Reads the message of a call and judges it, if it has to be; the same request comes out again, and
    /// what is to be known of it while it is served. A unary call has one message, and nothing is
    /// answered before all of it is here anyway.
    async fn judge_message(
        &self,
        caller: &Caller,
        by_message: bool,
        request: Request<Body>,
    ) -> Result<(Request<Body>, Option<Call>), Status> {
        let (head, body) = request.into_parts();
        let body = Limited::new(body, PREFIX + self.max_message)
            .collect()
            .await;
        let body = body.map_err(|error| unread(error.as_ref()))?.to_bytes();
        let message = only_message(&body)?;
        let path = head.uri.path();
        if let (true, Some(principal)) = (by_message, &caller.principal) {
            let judged = self.rules.judge_message(path, principal, message);
            judged.map_err(|denied| self.denied(denied))?;
        }
        let rule = self.rules.get(path).filter(|rule| rule.is_on_record());
        let call = rule.map(|rule| {
            let about = self.rules.about(path, message);
            let clock = Arc::clone(&self.clock);
            Call::new(
                caller.name(),
                caller.address,
                rule.method,
                message,
                about,
                clock,
            )
        });
        let request = Request::from_parts(head, Body::new(Full::new(body)));
        Ok((request, call))
    }
}

fn unread(error: &(dyn std::error::Error + Send + Sync + 'static)) -> Status {
    if error.is::<LengthLimitError>() {
        let text = "the message is larger than this control plane takes";
        return status(Code::OutOfRange, "MESSAGE_TOO_LARGE", text);
    }
    status(Code::Cancelled, "REQUEST_ENDED", "the request ended early")
}

/// The message of a body that has one.
fn only_message(body: &Bytes) -> Result<&[u8], Status> {
    let refused = || {
        let text = "a call like this has one message, which is not compressed";
        status(Code::InvalidArgument, "REQUEST_UNREADABLE", text)
    };
    let (prefix, message) = body.split_at_checked(PREFIX).ok_or_else(refused)?;
    let [0, length @ ..] = prefix else {
        return Err(refused());
    };
    let length = length
        .iter()
        .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
    match message.len() == length {
        true => Ok(message),
        false => Err(refused()),
    }
}

#[cfg(test)]
mod tests;
