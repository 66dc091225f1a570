//! The KEK in the transit engine of HashiCorp Vault or OpenBao. Data keys are encrypted by the server, with
//! what they are for as associated data; the blob is the server's text, `vault:v<version>:…`, so that keys
//! which were rotated there still unwrap.
//!
//! The client is a small one of our own over `reqwest`: four calls of a stable HTTP API. The client libraries
//! that there are bring outdated second versions of a dozen crates into the tree.

mod client;
mod login;

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use countersign_shared::{
    digest::{hex, sha256},
    seal::SealError,
    secret::{SecretBytes, SecretText},
};
use serde::{Deserialize, Serialize};

use self::client::{Client, Failure};
use super::{KekError, KekProvider, try_out, whose_fault};
use crate::model::{KekSource, TransitKey};

/// A KEK in a transit engine.
#[derive(Debug)]
pub struct TransitKek {
    client: Client,
    id: String,
    /// Which key and where, for people.
    place: String,
    encrypt: String,
    decrypt: String,
}

#[derive(Serialize)]
struct Encrypt<'a> {
    plaintext: &'a str,
    associated_data: &'a str,
}

#[derive(Serialize)]
struct Decrypt<'a> {
    ciphertext: &'a str,
    associated_data: &'a str,
}

#[derive(Deserialize)]
struct Answer<T> {
    data: T,
}

#[derive(Deserialize)]
struct Encrypted {
    ciphertext: String,
}

#[derive(Deserialize)]
struct Decrypted {
    plaintext: String,
}

/// What the server says of a key, to those who may read that.
#[derive(Deserialize)]
struct Facts {
    exportable: bool,
    allow_plaintext_backup: bool,
}

impl TransitKek {
    /// Logs in, looks at the key and tries it out.
    ///
    /// # Errors
    /// [`KekError::Away`], [`KekError::Refused`] and [`KekError::Environment`], which say what to do.
    pub async fn open(settings: TransitKey) -> Result<Self, KekError> {
        refuse_environment()?;
        let named = [
            settings.namespace.as_deref().unwrap_or_default(),
            &settings.mount,
            &settings.key,
        ];
        // Not the address: a server that is reached by another name has the same key.
        let id = hex(&sha256(format!("transit\0{}", named.join("\0")).as_bytes())[..8]);
        let (mount, key) = (&settings.mount, &settings.key);
        let path = |action: &str| format!("{mount}/{action}/{key}");
        let (encrypt, decrypt, keys) = (path("encrypt"), path("decrypt"), path("keys"));
        let place = KekSource::Transit(settings.clone()).to_string();
        let client = Client::new(settings).map_err(|problem| KekError::Refused {
            place: place.clone(),
            problem,
        })?;
        let kek = Self {
            client,
            id,
            place,
            encrypt,
            decrypt,
        };
        kek.inspect(&keys).await?;
        try_out(&kek).await?;
        Ok(kek)
    }

    /// Refuses a key that is not there, which the server would make on first use, and one that can be taken
    /// out. Who may only use the key may not ask; then its use shows.
    async fn inspect(&self, keys: &str) -> Result<(), KekError> {
        let refused = |problem: &str| KekError::Refused {
            place: self.place.clone(),
            problem: problem.to_owned(),
        };
        match self.client.get(keys).await {
            Ok(answer) => {
                let facts: Answer<Facts> = self.parse(&answer)?;
                if facts.data.exportable || facts.data.allow_plaintext_backup {
                    return Err(refused(
                        "it is exportable or allows plaintext backups, so it can leave the server: make \
                         another one without (vault write -f <mount>/keys/<key>)",
                    ));
                }
                Ok(())
            }
            Err(Failure::Denied(_)) => Ok(()),
            Err(Failure::Missing(_)) => Err(refused(
                "there is no such key: make it (vault write -f <mount>/keys/<key>)",
            )),
            Err(failure) => Err(self.failed(failure)),
        }
    }

    fn failed(&self, failure: Failure) -> KekError {
        let place = self.place.clone();
        match failure {
            Failure::Away(problem) => KekError::Away { place, problem },
            Failure::Denied(problem) => KekError::Refused {
                place,
                problem: format!(
                    "{problem}: the policy must allow 'update' on {} and {}",
                    self.encrypt, self.decrypt
                ),
            },
            Failure::Login(problem) | Failure::Missing(problem) | Failure::Bad(problem) => {
                KekError::Refused { place, problem }
            }
        }
    }

    fn parse<'a, T: Deserialize<'a>>(&self, answer: &'a SecretBytes) -> Result<T, KekError> {
        serde_json::from_slice(answer.expose()).map_err(|_| KekError::Away {
            place: self.place.clone(),
            problem: "its answer is not that of a transit engine".to_owned(),
        })
    }
}

/// Tokens that the tools of these servers take from the environment.
fn refuse_environment() -> Result<(), KekError> {
    for name in ["VAULT_TOKEN", "BAO_TOKEN"] {
        if std::env::var_os(name).is_some() {
            let instead = "name a file of mode 0600 with it as kek.vault.token_file";
            return Err(KekError::Environment(name, instead));
        }
    }
    Ok(())
}

#[async_trait]
impl KekProvider for TransitKek {
    fn id(&self) -> &str {
        &self.id
    }

    async fn wrap(&self, key: &SecretBytes, context: &str) -> Result<Vec<u8>, KekError> {
        let plaintext = SecretText::from(STANDARD.encode(key.expose()));
        let request = Encrypt {
            plaintext: plaintext.expose(),
            associated_data: &STANDARD.encode(context),
        };
        let answer = self.client.post(&self.encrypt, &request).await;
        let answer = answer.map_err(|failure| self.failed(failure))?;
        let answer: Answer<Encrypted> = self.parse(&answer)?;
        Ok(answer.data.ciphertext.into_bytes())
    }

    async fn unwrap(&self, wrapped: &[u8], context: &str) -> Result<SecretBytes, KekError> {
        let ciphertext = std::str::from_utf8(wrapped).map_err(|_| SealError::DoesNotOpen)?;
        let request = Decrypt {
            ciphertext,
            associated_data: &STANDARD.encode(context),
        };
        let answer = match self.client.post(&self.decrypt, &request).await {
            Ok(answer) => answer,
            Err(failure) => return Err(whose_fault(self, context, self.failed(failure)).await),
        };
        let answer: Answer<Decrypted> = self.parse(&answer)?;
        let plaintext = SecretText::from(answer.data.plaintext);
        let key = STANDARD.decode(plaintext.expose());
        Ok(SecretBytes::from(key.map_err(|_| SealError::DoesNotOpen)?))
    }

    async fn check(&self) -> Result<(), KekError> {
        try_out(self).await
    }

    fn is_of_version(&self, wrapped: &[u8], fresh: &[u8]) -> bool {
        version(wrapped).is_some() && version(wrapped) == version(fresh)
    }
}

/// `v3` of `vault:v3:…`.
fn version(wrapped: &[u8]) -> Option<&[u8]> {
    let mut parts = wrapped.split(|byte| *byte == b':');
    (parts.next() == Some(b"vault")).then(|| parts.next())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_in_the_text() {
        assert_eq!(version(b"vault:v3:abc=").unwrap(), b"v3");
        assert_eq!(version(b"vault"), None);
        assert_eq!(version(b"other:v3:abc"), None);
    }
}
