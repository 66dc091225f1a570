//! The KEK in AWS Secrets Manager: the same line as in a file, fetched at the start and held in memory.
//! Weaker than a key in KMS, which never leaves it; for those whose policy keeps secrets there.

use async_trait::async_trait;
use aws_sdk_secretsmanager::{Client, error::ProvideErrorMetadata};
use countersign_shared::secret::SecretBytes;

use super::{failed, sdk_config};
use crate::{
    kek::{FileKek, KekError, KekProvider},
    model::{AwsName, KekSource},
};

/// A KEK from AWS Secrets Manager.
#[derive(Debug)]
pub struct AwsSecretKek {
    source: Source,
    key: FileKek,
}

#[derive(Debug)]
struct Source {
    client: Client,
    secret: String,
    place: String,
}

impl Source {
    async fn fetch(&self) -> Result<FileKek, KekError> {
        let answer = self
            .client
            .get_secret_value()
            .secret_id(&self.secret)
            .send()
            .await;
        let answer = answer.map_err(|error| {
            let message = error.message().unwrap_or("no message");
            let said = error.code().map(|code| (code, message));
            failed(&self.place, &error, said)
        })?;
        let content = match (answer.secret_string, answer.secret_binary) {
            (Some(text), _) => text.into_bytes(),
            (None, Some(blob)) => blob.into_inner(),
            (None, None) => Vec::new(),
        };
        FileKek::parse(&SecretBytes::from(content), &self.place)
    }
}

impl AwsSecretKek {
    /// Fetches the key.
    ///
    /// # Errors
    /// [`KekError::Away`], [`KekError::Refused`], [`KekError::Malformed`] and [`KekError::Environment`],
    /// which say what to do.
    pub async fn open(settings: AwsName) -> Result<Self, KekError> {
        let config = sdk_config(&settings).await?;
        let mut service = aws_sdk_secretsmanager::config::Builder::from(&config);
        if let Some(endpoint) = &settings.endpoint {
            service = service.endpoint_url(endpoint);
        }
        let source = Source {
            client: Client::from_conf(service.build()),
            place: KekSource::AwsSecret(settings.clone()).to_string(),
            secret: settings.name,
        };
        let key = source.fetch().await?;
        Ok(Self { source, key })
    }
}

#[async_trait]
impl KekProvider for AwsSecretKek {
    fn id(&self) -> &str {
        self.key.id()
    }

    async fn wrap(&self, key: &SecretBytes, context: &str) -> Result<Vec<u8>, KekError> {
        self.key.wrap(key, context).await
    }

    async fn unwrap(&self, wrapped: &[u8], context: &str) -> Result<SecretBytes, KekError> {
        self.key.unwrap(wrapped, context).await
    }

    /// Whether the secret is still there, still ours to read, and still this key.
    async fn check(&self) -> Result<(), KekError> {
        if self.source.fetch().await?.id() == self.key.id() {
            return Ok(());
        }
        Err(KekError::Refused {
            place: self.source.place.clone(),
            problem: "it holds another KEK than at the start: put the right one back, or replace the KEK as \
                      the documentation says"
                .to_owned(),
        })
    }
}
