//! Where the keys of authorities are: the root's in a token or in a file with an existing certificate, the others' in a
//! token. All of it is looked at before anything is changed.

use std::sync::Arc;

use countersign_shared::{files, secret::SecretBytes, tasks, time::Timestamp, tls};
use rustls_pki_types::CertificateDer;

use super::StartError;
use crate::{
    ca::{ImportError, ImportedAuthority, Purpose},
    config::Config,
    model::RootImport,
    pkcs11::{TokenError, TokenKeys, TokenSigner},
};

/// The root's key in its token, if that is where it is.
pub(super) async fn root_token(config: &Config) -> Result<Option<Arc<TokenSigner>>, StartError> {
    let Some(settings) = config.root_token.clone() else {
        return Ok(None);
    };
    let opened = tasks::blocking(move || TokenSigner::open(settings)).await;
    let ended = |error| TokenError::Failed(format!("the call to the token ended: {error}"));
    let signer = opened.map_err(ended)??;
    Ok(Some(Arc::new(signer)))
}

/// The token for authorities' keys, if that is where they are.
pub(super) async fn authority_keys(config: &Config) -> Result<Option<Arc<TokenKeys>>, StartError> {
    let Some(place) = config.authority_token.clone() else {
        return Ok(None);
    };
    let opened = tasks::blocking(move || TokenKeys::open(place)).await;
    let ended = |error| TokenError::Failed(format!("the call to the token ended: {error}"));
    let keys = opened.map_err(ended).and_then(|opened| opened);
    Ok(Some(Arc::new(keys.map_err(StartError::AuthorityToken)?)))
}

/// The certificates in the file of a root that is imported.
fn certificates(import: &RootImport) -> Result<Vec<CertificateDer<'static>>, StartError> {
    let file = &import.certificate_file;
    let failed = |error| StartError::RootFile(file.clone(), error);
    let text = std::fs::read_to_string(file).map_err(failed)?;
    let parsed = tls::certificates_from_pem(&text);
    parsed.map_err(|error| StartError::RootPem(file.clone(), error))
}

/// An existing authority that becomes the root; its key is in a file unless it is in a token.
pub(super) fn imported(
    import: &RootImport,
    token: Option<Arc<TokenSigner>>,
    now: Timestamp,
) -> Result<ImportedAuthority, StartError> {
    let found = certificates(import)?;
    let root = match (&import.key_file, token) {
        (Some(file), _) => {
            let failed = |error| StartError::RootFile(file.clone(), error);
            let key = SecretBytes::from(files::read_private(file).map_err(failed)?);
            ImportedAuthority::with_pem(&found, &key, Purpose::Root, now)
        }
        (None, Some(signer)) => ImportedAuthority::with_token(&found, signer, now),
        (None, None) => Err(ImportError::Key),
    };
    root.map_err(|error| StartError::RootImport(import.certificate_file.clone(), error))
}

/// Fails when the root that is configured to be imported is another than the installation's, `anchor`.
pub(super) fn check_root(config: &Config, anchor: &[u8]) -> Result<(), StartError> {
    let Some(import) = &config.root_import else {
        return Ok(());
    };
    match certificates(import)?.first() {
        Some(certificate) if certificate.as_ref() == anchor => Ok(()),
        _ => Err(StartError::OtherRoot(import.certificate_file.clone())),
    }
}
