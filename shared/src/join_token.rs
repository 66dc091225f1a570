//! Join tokens: `csj_<id>.<secret>.<pin>`, the one-time secret that enrolls an agent.
//!
//! The pin is the SHA-256 of the public key (SubjectPublicKeyInfo) of the CA that signs the control
//! plane's server certificate. With it the agent knows that it talks to the right control plane
//! before it says anything.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use thiserror::Error;

use crate::{
    digest::sha256,
    name::Id,
    random,
    secret::{SecretBytes, SecretText},
};

const PREFIX: &str = "csj_";
const SECRET_LENGTH: usize = 32;

/// A join token, taken apart.
#[derive(Debug, Clone)]
pub struct JoinToken {
    /// Which token; not secret.
    pub id: Id,
    /// What proves possession: 32 random bytes.
    pub secret: SecretBytes,
    /// SHA-256 of the public key of the control plane's CA.
    pub pin: [u8; 32],
}

/// Why a text is not a join token. It does not repeat the text.
#[derive(Debug, Error, PartialEq, Eq, Clone, Copy)]
#[error(
    "this is not a join token: it has the form csj_<id>.<secret>.<pin>, as CreateJoinToken returned \
     it (was it cut when it was copied?)"
)]
pub struct JoinTokenError;

impl JoinToken {
    /// A new token.
    pub fn generate(id: Id, pin: [u8; 32]) -> Self {
        Self {
            id,
            secret: random::secret::<SECRET_LENGTH>(),
            pin,
        }
    }

    /// The text that is given to the agent.
    pub fn to_text(&self) -> SecretText {
        let secret = URL_SAFE_NO_PAD.encode(self.secret.expose());
        let pin = URL_SAFE_NO_PAD.encode(self.pin);
        SecretText::from(format!("{PREFIX}{}.{secret}.{pin}", self.id))
    }

    /// Parses what [`JoinToken::to_text`] made; white space around it is ignored.
    ///
    /// # Errors
    /// [`JoinTokenError`].
    pub fn parse(text: &str) -> Result<Self, JoinTokenError> {
        let parts = text.trim().strip_prefix(PREFIX).ok_or(JoinTokenError)?;
        let mut parts = parts.split('.');
        let mut next = || parts.next().ok_or(JoinTokenError);
        let (id, secret, pin) = (next()?, next()?, next()?);
        if parts.next().is_some() {
            return Err(JoinTokenError);
        }
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| JoinTokenError);
        let secret = SecretBytes::from(decode(secret)?);
        if secret.len() != SECRET_LENGTH {
            return Err(JoinTokenError);
        }
        Ok(Self {
            id: Id::existing(id).map_err(|_| JoinTokenError)?,
            secret,
            pin: decode(pin)?.try_into().map_err(|_| JoinTokenError)?,
        })
    }

    /// What the store keeps instead of the secret. The secret has 256 random bits, so a plain hash
    /// can't be guessed backwards.
    pub fn secret_hash(&self) -> [u8; 32] {
        sha256(self.secret.expose())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_round_trips_and_refuses_what_was_cut() {
        let token = JoinToken::generate(Id::chosen("edge-1").unwrap(), [7; 32]);
        let text = token.to_text();
        let parsed = JoinToken::parse(&format!(" {}\n", text.expose())).unwrap();
        assert_eq!(parsed.id, token.id);
        assert_eq!(parsed.pin, token.pin);
        assert_eq!(parsed.secret_hash(), token.secret_hash());
        for length in 0..text.expose().len() {
            assert!(
                JoinToken::parse(&text.expose()[..length]).is_err(),
                "{length}"
            );
        }
        assert!(JoinToken::parse(&format!("{}.x", text.expose())).is_err());
    }
}
