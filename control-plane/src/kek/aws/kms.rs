//! The KEK in AWS Key Management Service: data keys are encrypted by the service, with what they are for as
//! encryption context, which also shows in CloudTrail.

use async_trait::async_trait;
use aws_sdk_kms::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    primitives::Blob,
};
use countersign_shared::{
    digest::{hex, sha256},
    seal::SealError,
    secret::SecretBytes,
};

use super::{failed, sdk_config};
use crate::{
    kek::{KekError, KekProvider, TRIAL, try_out, whose_fault},
    model::{AwsName, KekSource},
};

/// Name of the one entry of the encryption context.
const CONTEXT: &str = "countersign:scope";

/// A KEK in AWS KMS.
#[derive(Debug)]
pub struct AwsKmsKek {
    client: Client,
    /// As configured: a key id, an alias or an ARN.
    key: String,
    id: String,
    /// Which key, for people.
    place: String,
}

impl AwsKmsKek {
    /// Finds the key and tries it out.
    ///
    /// # Errors
    /// [`KekError::Away`], [`KekError::Refused`] and [`KekError::Environment`], which say what to do.
    pub async fn open(settings: AwsName) -> Result<Self, KekError> {
        let config = sdk_config(&settings).await?;
        let mut service = aws_sdk_kms::config::Builder::from(&config);
        if let Some(endpoint) = &settings.endpoint {
            service = service.endpoint_url(endpoint);
        }
        let place = KekSource::AwsKms(settings.clone()).to_string();
        let mut kek = Self {
            client: Client::from_conf(service.build()),
            key: settings.name,
            id: String::new(),
            place,
        };
        let (_, arn) = kek.encrypt(&SecretBytes::from(vec![0]), TRIAL).await?;
        kek.id = id_of(&arn);
        try_out(&kek).await?;
        Ok(kek)
    }

    /// The blob, and the ARN of the key that made it.
    async fn encrypt(
        &self,
        key: &SecretBytes,
        context: &str,
    ) -> Result<(Vec<u8>, String), KekError> {
        let answer = self
            .client
            .encrypt()
            .key_id(&self.key)
            .plaintext(Blob::new(key.expose()))
            .encryption_context(CONTEXT, context)
            .send()
            .await
            .map_err(|error| self.failed(&error))?;
        let nothing = || KekError::Away {
            place: self.place.clone(),
            problem: "its answer has no ciphertext".to_owned(),
        };
        let blob = answer.ciphertext_blob.ok_or_else(nothing)?;
        Ok((blob.into_inner(), answer.key_id.ok_or_else(nothing)?))
    }

    fn failed<E, R>(&self, error: &SdkError<E, R>) -> KekError
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
        R: std::fmt::Debug + 'static,
    {
        let message = error.message().unwrap_or("no message");
        failed(&self.place, error, error.code().map(|code| (code, message)))
    }
}

/// Of an ARN, `arn:partition:kms:region:account:key/id`. The replicas of a multi-region key differ in the
/// region alone, and unwrap for each other.
fn id_of(arn: &str) -> String {
    let mut parts: Vec<&str> = arn.split(':').collect();
    if parts.len() == 6 && parts[5].starts_with("key/mrk-") {
        parts[3] = "";
    }
    hex(&sha256(format!("aws-kms\0{}", parts.join(":")).as_bytes())[..8])
}

#[async_trait]
impl KekProvider for AwsKmsKek {
    fn id(&self) -> &str {
        &self.id
    }

    async fn wrap(&self, key: &SecretBytes, context: &str) -> Result<Vec<u8>, KekError> {
        Ok(self.encrypt(key, context).await?.0)
    }

    async fn unwrap(&self, wrapped: &[u8], context: &str) -> Result<SecretBytes, KekError> {
        let answer = self
            .client
            .decrypt()
            .key_id(&self.key)
            .ciphertext_blob(Blob::new(wrapped))
            .encryption_context(CONTEXT, context)
            .send()
            .await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return Err(whose_fault(self, context, self.failed(&error)).await),
        };
        let plaintext = answer.plaintext.ok_or(SealError::DoesNotOpen)?;
        Ok(SecretBytes::from(plaintext.into_inner()))
    }

    async fn check(&self) -> Result<(), KekError> {
        try_out(self).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_of_a_key_are_one_key() {
        let arn = |region: &str, key: &str| format!("arn:aws:kms:{region}:111122223333:key/{key}");
        assert_eq!(
            id_of(&arn("eu-central-1", "mrk-1")),
            id_of(&arn("eu-west-1", "mrk-1"))
        );
        assert_ne!(
            id_of(&arn("eu-central-1", "mrk-1")),
            id_of(&arn("eu-central-1", "mrk-2"))
        );
        assert_ne!(
            id_of(&arn("eu-central-1", "1")),
            id_of(&arn("eu-west-1", "1"))
        );
    }
}
