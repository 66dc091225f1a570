//! Who calls the API, and what that is allowed: API keys, compared as hashes in constant time, and
//! client certificates; the table of roles and methods; how often. Everything is decided here, and asked for in one place
//! (`api/guard`), so that a method can't be forgotten.

mod api_key;
mod attempts;
mod clients;
mod fields;
mod keys;
mod principal;
mod rate;
mod rules;

pub use api_key::{KeyRequest, generate};
pub use attempts::{Attempts, Source};
pub use clients::{Clients, ClientsError};
pub use keys::{ApiKeys, Refused};
pub use principal::Principal;
pub use rate::Bucket;
pub use rules::{Denied, Needs, Rule, Rules, RulesError, TABLE};
