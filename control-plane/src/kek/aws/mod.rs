//! The KEK at AWS, with its official SDK: credentials come from where the SDK looks for them (instance, pod
//! or task role, web identity, profile), except as secrets in the environment.

mod kms;
mod secrets_manager;

use std::{error::Error, time::Duration};

use aws_config::{BehaviorVersion, Region, SdkConfig, timeout::TimeoutConfig};
use aws_smithy_http_client::{
    Builder,
    tls::{Provider, rustls_provider::CryptoMode},
};

pub use self::{kms::AwsKmsKek, secrets_manager::AwsSecretKek};
use super::{KekError, with_causes};
use crate::model::AwsName;

/// For a connection, one try and all tries.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
const TRY_WITHIN: Duration = Duration::from_secs(5);
const ANSWER_WITHIN: Duration = Duration::from_secs(12);

/// What the SDK needs to know for calls that concern `named`.
async fn sdk_config(named: &AwsName) -> Result<SdkConfig, KekError> {
    let secret = "AWS_SECRET_ACCESS_KEY";
    if std::env::var_os(secret).is_some() {
        let instead = "use the role of the instance or pod, web identity, or a profile in a file";
        return Err(KekError::Environment(secret, instead));
    }
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_WITHIN)
        .operation_attempt_timeout(TRY_WITHIN)
        .operation_timeout(ANSWER_WITHIN)
        .build();
    let http = Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .build_https();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .timeout_config(timeouts);
    let region = named.region.as_deref().or(region_of(&named.name));
    if let Some(region) = region {
        loader = loader.region(Region::new(region.to_owned()));
    }
    Ok(loader.load().await)
}

/// The region that an ARN names: `arn:partition:service:region:account:…`.
fn region_of(name: &str) -> Option<&str> {
    let mut parts = name.split(':');
    let region = (parts.next() == Some("arn")).then(|| parts.nth(2))?;
    region.filter(|region| !region.is_empty())
}

/// Whether a service's error code says that it serves again by itself.
fn passes(code: &str) -> bool {
    // What the services call it when they are slow, busy or broken; the rest needs a person.
    [
        "Throttl",
        "TooManyRequests",
        "LimitExceeded",
        "KeyUnavailable",
        "Internal",
        "DependencyTimeout",
        "ServiceUnavailable",
        "RequestTimeout",
    ]
    .iter()
    .any(|word| code.contains(word))
}

/// Why a call failed, with the service's own code and words if it gave any.
fn failed(place: &str, error: &(dyn Error + 'static), said: Option<(&str, &str)>) -> KekError {
    let place = place.to_owned();
    match said {
        Some((code, message)) if passes(code) => KekError::Away {
            place,
            problem: format!("it says {code}: {message}"),
        },
        Some((code, message)) => KekError::Refused {
            place,
            problem: format!("it says {code}: {message}{}", advice(code)),
        },
        None => KekError::Away {
            place,
            problem: with_causes(error),
        },
    }
}

fn advice(code: &str) -> &'static str {
    match code {
        "AccessDeniedException" => {
            " (the role needs kms:Encrypt and kms:Decrypt on this key, or secretsmanager:GetSecretValue on \
             this secret)"
        }
        "NotFoundException" | "ResourceNotFoundException" => " (look at name, region and account)",
        "DisabledException" | "KMSInvalidStateException" => {
            " (enable the key, or cancel its deletion)"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arn_names_its_region() {
        let arn = "arn:aws:kms:eu-central-1:111122223333:key/1234";
        assert_eq!(region_of(arn), Some("eu-central-1"));
        assert_eq!(region_of("alias/countersign"), None);
        assert_eq!(region_of("arn:aws:kms::1:key/2"), None);
        assert_eq!(region_of("arn"), None);
    }

    #[test]
    fn what_passes_is_told_from_what_needs_a_person() {
        for code in [
            "ThrottlingException",
            "KMSInternalException",
            "KeyUnavailableException",
        ] {
            assert!(passes(code), "{code}");
        }
        for code in [
            "AccessDeniedException",
            "DisabledException",
            "NotFoundException",
        ] {
            assert!(!passes(code), "{code}");
        }
    }
}
