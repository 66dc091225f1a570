//! The KEK from where the configuration says it is, if it is the one that the store was sealed with.

use std::sync::Arc;

use super::{FileKek, KekError, KekProvider, Pkcs11Kek};
use crate::model::KekSource;

/// Opens the KEK. `needed` is the id of the one that the store was sealed with, `None` when there is no
/// store yet: then a file that is not there is made. A key in a token is made by its operator.
///
/// # Errors
/// [`KekError`]; nothing was changed then.
pub async fn open(
    source: &KekSource,
    needed: Option<&str>,
) -> Result<Arc<dyn KekProvider>, KekError> {
    let kek: Arc<dyn KekProvider> = match source {
        KekSource::File(path) => match (FileKek::read(path)?, needed) {
            (Some(kek), _) => Arc::new(kek),
            (None, None) => Arc::new(FileKek::create(path)?),
            (None, Some(needed)) => {
                return Err(KekError::Missing {
                    path: source.to_string(),
                    needed: needed.to_owned(),
                });
            }
        },
        KekSource::Token(key) => Arc::new(Pkcs11Kek::open(key.clone()).await?),
    };
    match needed {
        Some(needed) if needed != kek.id() => Err(KekError::Wrong {
            path: source.to_string(),
            found: kek.id().to_owned(),
            needed: needed.to_owned(),
        }),
        _ => Ok(kek),
    }
}
