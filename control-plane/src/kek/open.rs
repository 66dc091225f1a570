//! The KEK from where the configuration says it is, if it is the one that the store was sealed with.

use std::sync::Arc;

use super::{
    AwsKmsKek, AwsSecretKek, Breaker, FileKek, KekError, KekProvider, Pkcs11Kek, TransitKek,
};
use crate::model::KekSource;

/// The KEK, and the one before while that is being replaced.
pub struct Opened {
    /// Wraps what is new.
    pub kek: Arc<dyn KekProvider>,
    /// Unwraps what it has wrapped.
    pub previous: Option<Arc<dyn KekProvider>>,
}

/// Opens the KEK, and the one before if that is configured. `needed` is the id of the one that the store
/// was sealed with, `None` when there is no store yet. A file that is not there is made at the first start,
/// and when the KEK is replaced; a key elsewhere is made by its operator.
///
/// # Errors
/// [`KekError`]; nothing was changed then.
pub async fn open(
    source: &KekSource,
    previous: Option<&KekSource>,
    needed: Option<&str>,
) -> Result<Opened, KekError> {
    let before = match previous {
        Some(source) => {
            let kek = existing(source).await?;
            let kek = kek.ok_or_else(|| missing(source, needed.unwrap_or("any")))?;
            Some((source, kek))
        }
        None => None,
    };
    let replaces = before
        .as_ref()
        .is_some_and(|(_, kek)| Some(kek.id()) == needed);
    let kek = match (existing(source).await?, source) {
        (Some(kek), _) => kek,
        (None, KekSource::File(path)) if needed.is_none() || replaces => {
            Arc::new(FileKek::create(path)?)
        }
        (None, _) => return Err(missing(source, needed.unwrap_or("any"))),
    };
    let is_here = |needed: &str| needed == kek.id() || replaces;
    if let Some(needed) = needed.filter(|needed| !is_here(needed)) {
        return Err(KekError::Wrong {
            path: source.to_string(),
            found: kek.id().to_owned(),
            needed: needed.to_owned(),
        });
    }
    let previous = before.map(|(_, kek)| kek);
    Ok(Opened { kek, previous })
}

/// The KEK from there; `None` when the file is not there.
async fn existing(source: &KekSource) -> Result<Option<Arc<dyn KekProvider>>, KekError> {
    Ok(match source {
        KekSource::File(path) => FileKek::read(path)?.map(|kek| Arc::new(kek) as _),
        KekSource::Token(key) => Some(distant(Pkcs11Kek::open(key.clone()).await?)),
        KekSource::Transit(key) => Some(distant(TransitKek::open(key.clone()).await?)),
        KekSource::AwsKms(key) => Some(distant(AwsKmsKek::open(key.clone()).await?)),
        KekSource::AwsSecret(secret) => Some(distant(AwsSecretKek::open(secret.clone()).await?)),
    })
}

/// A provider that can be away.
fn distant(kek: impl KekProvider + 'static) -> Arc<dyn KekProvider> {
    Arc::new(Breaker::new(Arc::new(kek)))
}

fn missing(source: &KekSource, needed: &str) -> KekError {
    KekError::Missing {
        path: source.to_string(),
        needed: needed.to_owned(),
    }
}
