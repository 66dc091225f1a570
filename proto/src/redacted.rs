//! `Debug` of the messages that carry secrets: it says which message it is and what it is about,
//! never what it hides.

use std::fmt::{Debug, Formatter, Result};

use crate::v1::{
    Bundle, BundleSecrets, CreateApiKeyResponse, CreateJoinTokenResponse, EnrollRequest,
    RevealSigningSecretResponse, StandbyCertificate,
};

impl Debug for Bundle {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("Bundle")
            .field("destination", &self.destination)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

impl Debug for BundleSecrets {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("BundleSecrets").finish_non_exhaustive()
    }
}

impl Debug for StandbyCertificate {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("StandbyCertificate")
            .field(
                "client_certificate_version",
                &self.client_certificate_version,
            )
            .field("use", &self.r#use)
            .finish_non_exhaustive()
    }
}

impl Debug for CreateApiKeyResponse {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("CreateApiKeyResponse")
            .field("api_key", &self.api_key)
            .finish_non_exhaustive()
    }
}

impl Debug for CreateJoinTokenResponse {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("CreateJoinTokenResponse")
            .field("join_token", &self.join_token)
            .finish_non_exhaustive()
    }
}

impl Debug for EnrollRequest {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("EnrollRequest")
            .field("agent_id", &self.agent_id)
            .finish_non_exhaustive()
    }
}

impl Debug for RevealSigningSecretResponse {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("RevealSigningSecretResponse")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
