//! The agent's identity: the key and certificate with which it proves itself to the control plane,
//! and the authority by which it knows the control plane.
//!
//! `enroll` makes it from a join token, `file` keeps it sealed on disk, `renew` replaces it in good
//! time. The last good identity is kept whatever goes wrong with a newer one.

mod agent_identity;
pub mod enroll;
mod file;
mod host_name;
pub mod journal_key;
mod kek;
mod keys;
mod pin;
pub mod renew;
#[cfg(test)]
pub(crate) mod testing;

pub use self::{
    agent_identity::{Held, Identity, IdentityError, Parts},
    file::{FileError, IdentityFile, OnDisk, Pending},
    host_name::name_from_host,
    journal_key::JournalKeyError,
    kek::{KekError, kek_file, open_kek, open_or_create_kek},
};
