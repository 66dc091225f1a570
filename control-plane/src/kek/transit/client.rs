//! Calls of the HTTP API of HashiCorp Vault and OpenBao: who calls is logged in, and answers are sorted by
//! what they mean for the caller.

use std::{fs, time::Duration};

use countersign_shared::{secret::SecretBytes, tls};
use reqwest::{Method, StatusCode, redirect, tls::Certificate};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::login::{Logins, Session};
use crate::{kek::with_causes, model::TransitKey};

/// For a connection, and for a whole call.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// A standby server may send its clients to the active one.
const REDIRECTS: usize = 2;
/// No answer of these calls is larger.
const LARGEST: usize = 256 * 1024;

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server can't be reached, is sealed, or can't serve now.
    Away(String),
    /// It does not let us in.
    Login(String),
    /// It does not allow it.
    Denied(String),
    /// What was asked for is not there.
    Missing(String),
    /// It does not take the request.
    Bad(String),
}

/// A client that is logged in when it needs to be.
#[derive(Debug)]
pub(super) struct Client {
    http: Http,
    logins: Logins,
}

impl Client {
    /// # Errors
    /// What is wrong with the settings.
    pub(super) fn new(settings: TransitKey) -> Result<Self, String> {
        let http = Http::new(&settings)?;
        let logins = Logins::new(settings.login);
        Ok(Self { http, logins })
    }

    pub(super) async fn get(&self, path: &str) -> Result<SecretBytes, Failure> {
        self.call(Method::GET, path, None).await
    }

    pub(super) async fn post(
        &self,
        path: &str,
        request: &impl Serialize,
    ) -> Result<SecretBytes, Failure> {
        self.call(Method::POST, path, Some(body(request)?)).await
    }

    /// Calls; a login that is refused is done anew, once.
    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<SecretBytes>,
    ) -> Result<SecretBytes, Failure> {
        let session = self.logins.session(&self.http).await?;
        let first = self
            .http
            .call(method.clone(), path, body.clone(), Some(&session))
            .await;
        let Err(Failure::Denied(_)) = first else {
            return first;
        };
        let session = self.logins.anew(&self.http, &session).await?;
        self.http.call(method, path, body, Some(&session)).await
    }
}

/// A request's body, which may hold a key.
pub(super) fn body(request: &impl Serialize) -> Result<SecretBytes, Failure> {
    let body = serde_json::to_vec(request);
    Ok(SecretBytes::from(body.map_err(|error| {
        Failure::Bad(format!("the request has no JSON form: {error}"))
    })?))
}

/// Calls as they are, with or without a login.
#[derive(Debug)]
pub(super) struct Http {
    client: reqwest::Client,
    address: String,
    namespace: Option<String>,
}

impl Http {
    fn new(settings: &TransitKey) -> Result<Self, String> {
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_WITHIN)
            .timeout(ANSWER_WITHIN)
            .redirect(redirect::Policy::custom(same_protection));
        if let Some(file) = &settings.ca_file {
            let path = file.display();
            let pem = fs::read_to_string(file).map_err(|error| format!("{path}: {error}"))?;
            let authorities = tls::certificates_from_pem(&pem);
            let authorities = authorities.map_err(|error| format!("{path}: {error}"))?;
            let authorities: Result<Vec<_>, _> = authorities
                .iter()
                .map(|der| Certificate::from_der(der))
                .collect();
            let authorities = authorities.map_err(|error| format!("{path}: {error}"))?;
            builder = builder.tls_certs_only(authorities);
        }
        let client = builder.build();
        Ok(Self {
            client: client
                .map_err(|error| format!("no client can be made: {}", with_causes(&error)))?,
            address: settings.address.clone(),
            namespace: settings.namespace.clone(),
        })
    }

    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<SecretBytes>,
        session: Option<&Session>,
    ) -> Result<SecretBytes, Failure> {
        let mut request = self
            .client
            .request(method, format!("{}/v1/{path}", self.address))
            // What proxies in front of the server are told, so that no form in a browser can call it.
            .header("X-Vault-Request", "true");
        if let Some(namespace) = &self.namespace {
            request = request.header("X-Vault-Namespace", namespace);
        }
        if let Some(session) = session {
            request = request.header("X-Vault-Token", session.header());
        }
        if let Some(body) = body {
            request = request
                .header("Content-Type", "application/json")
                .body(body.expose().to_vec());
        }
        let away = |error: reqwest::Error| Failure::Away(with_causes(&error.without_url()));
        let mut response = request.send().await.map_err(away)?;
        let status = response.status();
        let mut answer = Zeroizing::new(Vec::new());
        while let Some(chunk) = response.chunk().await.map_err(away)? {
            if answer.len() + chunk.len() > LARGEST {
                return Err(Failure::Away("its answer is too large".to_owned()));
            }
            answer.extend_from_slice(&chunk);
        }
        judge(status, SecretBytes::from(std::mem::take(&mut *answer)))
    }
}

/// Follows a redirect that keeps the call's protection.
fn same_protection(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let protected = |url: &url::Url| url.scheme() == "https";
    let keeps = attempt
        .previous()
        .first()
        .is_none_or(|first| protected(attempt.url()) || !protected(first));
    if keeps && attempt.previous().len() <= REDIRECTS {
        attempt.follow()
    } else {
        attempt.stop()
    }
}

/// By the status codes that the API uses.
fn judge(status: StatusCode, answer: SecretBytes) -> Result<SecretBytes, Failure> {
    if status.is_success() {
        return Ok(answer);
    }
    let said = said(&answer);
    Err(match status {
        StatusCode::BAD_REQUEST => Failure::Bad(said),
        StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => Failure::Denied(said),
        StatusCode::NOT_FOUND => Failure::Missing(said),
        StatusCode::SERVICE_UNAVAILABLE => {
            Failure::Away(format!("{said}: the server is sealed or starting"))
        }
        _ => Failure::Away(format!("{said} (status {})", status.as_u16())),
    })
}

/// The server's own words.
fn said(answer: &SecretBytes) -> String {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<String>,
    }
    let errors = serde_json::from_slice::<Errors>(answer.expose());
    let words = errors.map_or_else(|_| String::new(), |said| said.errors.join("; "));
    let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
    match words.as_str() {
        "" => "it gives no reason".to_owned(),
        words => format!("it says '{}'", words.chars().take(300).collect::<String>()),
    }
}
