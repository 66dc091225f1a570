//! Being logged in: with a token from a file, or one that AppRole or Kubernetes gives. Tokens are renewed
//! before use once two thirds of their life are over, and made anew when they are refused; the file of a
//! token is read again then, since an agent of the server may have put a new one there.

use std::{path::Path, time::Duration};

use countersign_shared::{
    files,
    secret::{SecretBytes, SecretText},
};
use reqwest::{Method, header::HeaderValue};
use serde::{Deserialize, Serialize};
use tokio::{sync::Mutex, time::Instant};

use super::client::{Failure, Http, body};
use crate::model::TransitLogin;

/// After a renewal that failed, it is tried again after this time, while the token lasts.
const RENEW_AGAIN: Duration = Duration::from_secs(5);

/// A token, ready to send.
#[derive(Debug, Clone)]
pub(super) struct Session {
    token: SecretText,
    header: HeaderValue,
}

impl Session {
    /// # Errors
    /// When it is no token.
    fn new(token: SecretText) -> Result<Self, Failure> {
        let header = HeaderValue::from_str(token.expose());
        let unfit = |_| Failure::Login("what should be a token is none".to_owned());
        let mut header = header.map_err(unfit)?;
        header.set_sensitive(true);
        Ok(Self { token, header })
    }

    pub(super) fn header(&self) -> HeaderValue {
        self.header.clone()
    }
}

/// A session and its life.
#[derive(Debug)]
struct Held {
    session: Session,
    /// `None`: it needs none.
    renew_at: Option<Instant>,
}

/// Logs in, once for all who ask.
#[derive(Debug)]
pub(super) struct Logins {
    login: TransitLogin,
    held: Mutex<Option<Held>>,
}

#[derive(Deserialize)]
struct Authenticated {
    auth: Auth,
}

#[derive(Deserialize)]
struct Auth {
    client_token: String,
    lease_duration: u64,
    renewable: bool,
}

#[derive(Deserialize)]
struct LookedUp {
    data: Token,
}

#[derive(Deserialize)]
struct Token {
    ttl: u64,
    renewable: bool,
}

#[derive(Serialize)]
struct AppRole<'a> {
    role_id: &'a str,
    secret_id: &'a str,
}

#[derive(Serialize)]
struct Kubernetes<'a> {
    role: &'a str,
    jwt: &'a str,
}

#[derive(Serialize)]
struct Nothing {}

impl Logins {
    pub(super) fn new(login: TransitLogin) -> Self {
        Self {
            login,
            held: Mutex::default(),
        }
    }

    /// The present session, renewed when it is time.
    pub(super) async fn session(&self, http: &Http) -> Result<Session, Failure> {
        let mut held = self.held.lock().await;
        let present = match held.take() {
            None => self.log_in(http).await?,
            Some(present) if present.renew_at.is_some_and(|at| Instant::now() >= at) => {
                match self.renewed(http, &present).await {
                    Ok(renewed) => renewed,
                    Err(Failure::Away(problem)) => {
                        tracing::warn!(%problem, "the key service's token is not renewed yet");
                        Held {
                            renew_at: Some(Instant::now() + RENEW_AGAIN),
                            ..present
                        }
                    }
                    // Not renewable any more, or revoked.
                    Err(_) => self.log_in(http).await?,
                }
            }
            Some(present) => present,
        };
        let session = present.session.clone();
        *held = Some(present);
        Ok(session)
    }

    /// A session in the place of one that was refused, unless somebody has made one already.
    pub(super) async fn anew(&self, http: &Http, refused: &Session) -> Result<Session, Failure> {
        let mut held = self.held.lock().await;
        let present = match held.take() {
            Some(present) if present.session.token != refused.token => present,
            _ => self.log_in(http).await?,
        };
        let session = present.session.clone();
        *held = Some(present);
        Ok(session)
    }

    async fn log_in(&self, http: &Http) -> Result<Held, Failure> {
        match &self.login {
            TransitLogin::TokenFile(file) => {
                let token = private(file)?;
                let session = Session::new(token)?;
                let answer = http
                    .call(Method::GET, "auth/token/lookup-self", None, Some(&session))
                    .await;
                let token = match answer {
                    Ok(answer) => parse::<LookedUp>(&answer)?.data,
                    Err(Failure::Denied(problem)) => {
                        let file = file.display();
                        let text = format!("the token in {file} is not accepted: {problem}");
                        return Err(Failure::Login(text));
                    }
                    Err(failure) => return Err(failure),
                };
                Ok(Held {
                    renew_at: renewal(token.ttl, token.renewable),
                    session,
                })
            }
            TransitLogin::AppRole {
                mount,
                role_id,
                secret_id_file,
            } => {
                let secret_id = private(secret_id_file)?;
                let request = body(&AppRole {
                    role_id,
                    secret_id: secret_id.expose(),
                })?;
                authenticate(http, mount, request).await
            }
            TransitLogin::Kubernetes {
                mount,
                role,
                token_file,
            } => {
                // Kubernetes keeps this file fresh, and says who may read it.
                let jwt = std::fs::read_to_string(token_file);
                let jwt = jwt.map_err(|error| unreadable(token_file, &error))?;
                let jwt = SecretText::from(jwt);
                let request = body(&Kubernetes {
                    role,
                    jwt: jwt.expose().trim(),
                })?;
                authenticate(http, mount, request).await
            }
        }
    }

    async fn renewed(&self, http: &Http, held: &Held) -> Result<Held, Failure> {
        let path = "auth/token/renew-self";
        let request = body(&Nothing {})?;
        let session = &held.session;
        let answer = http
            .call(Method::POST, path, Some(request), Some(session))
            .await?;
        let auth = parse::<Authenticated>(&answer)?.auth;
        Ok(Held {
            renew_at: renewal(auth.lease_duration, auth.renewable),
            session: session.clone(),
        })
    }
}

async fn authenticate(http: &Http, mount: &str, request: SecretBytes) -> Result<Held, Failure> {
    let path = format!("auth/{mount}/login");
    let answer = http.call(Method::POST, &path, Some(request), None).await;
    let answer = answer.map_err(|failure| match failure {
        // A login that is not accepted is answered with 400, too.
        Failure::Denied(problem) | Failure::Bad(problem) | Failure::Missing(problem) => {
            Failure::Login(format!("the login at {mount} is not accepted: {problem}"))
        }
        other => other,
    })?;
    let auth = parse::<Authenticated>(&answer)?.auth;
    Ok(Held {
        renew_at: renewal(auth.lease_duration, auth.renewable),
        session: Session::new(SecretText::from(auth.client_token))?,
    })
}

/// When two thirds of a token's life are over; one that can't be renewed is used until it is refused.
fn renewal(seconds: u64, renewable: bool) -> Option<Instant> {
    (renewable && seconds > 0).then(|| Instant::now() + Duration::from_millis(seconds * 2000 / 3))
}

fn parse<'a, T: Deserialize<'a>>(answer: &'a SecretBytes) -> Result<T, Failure> {
    serde_json::from_slice(answer.expose())
        .map_err(|_| Failure::Away("its answer to a login is none".to_owned()))
}

/// A secret in a file of one line.
fn private(file: &Path) -> Result<SecretText, Failure> {
    let content = files::read_private(file).map_err(|error| unreadable(file, &error))?;
    let content = SecretBytes::from(content);
    let text = std::str::from_utf8(content.expose()).map(str::trim);
    match text {
        Ok(text) if !text.is_empty() => Ok(SecretText::from(text.to_owned())),
        _ => Err(Failure::Login(format!(
            "{} holds no line of text",
            file.display()
        ))),
    }
}

fn unreadable(file: &Path, error: &std::io::Error) -> Failure {
    Failure::Login(format!("{}: {error}", file.display()))
}
