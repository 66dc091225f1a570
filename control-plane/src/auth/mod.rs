//! Who calls the API: API keys, compared as hashes in constant time.

mod api_key;

pub use api_key::{ApiKeys, Principal, generate};
