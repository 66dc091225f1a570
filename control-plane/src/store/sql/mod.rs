//! What a store does, in SQL: once for both databases. Each of them says how it is connected to
//! (`../sqlite`, `../postgres`) and how it says what the other says differently
//! ([`connection::Dialect`]).

mod access;
mod agents;
mod alerts;
pub(super) mod arrivals;
mod audit;
mod authorities;
mod backlog;
mod certificates;
pub(super) mod connection;
mod deliveries;
mod due;
mod fingerprint;
mod installation;
mod leases;
mod many;
mod ordered;
pub(super) mod readers;
pub(super) mod retention;
mod revive;
mod revocations;
mod revoking;
mod rotation_steps;
mod rotation_store;
mod rotations;
pub(super) mod rows;
mod secrets;
mod settle;
mod settle_rows;
mod stops;
mod submit;
mod tenants;
pub(super) mod writer;

use std::{future::Future, sync::Arc};

use self::{connection::Connection, writer::Lane};
pub(super) use self::{installation::facts, leases::FirstEnd};
use super::Result;

/// A database with a store in it.
pub(super) trait Database: Send + Sync {
    /// Whether deliveries are kept in pieces by their age.
    const HAS_PIECES: bool;
    /// Whether the writer alone knows what waits for its first lease; see [`arrivals`].
    const HAS_ARRIVALS: bool;

    /// Runs `work` in a transaction and answers when that is on disk.
    fn run<T: Send + 'static>(
        &self,
        lane: Lane,
        work: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> impl Future<Output = Result<T>> + Send;

    /// Runs `work`, which only reads: it sees all that was answered before.
    fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> impl Future<Output = Result<T>> + Send;

    /// As [`Database::read`], for what looks at what waits.
    fn read_waiting<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> impl Future<Output = Result<T>> + Send {
        async move {
            match Self::HAS_ARRIVALS {
                true => self.write_urgent(1, work).await,
                false => self.read(work).await,
            }
        }
    }

    /// A time before which no lease ends.
    fn first_end(&self) -> &Arc<FirstEnd>;

    /// As [`Database::run`], for work that can fail anywhere.
    fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> impl Future<Output = Result<T>> + Send {
        self.run(Lane::Savepoint, work)
    }

    /// As [`Database::write`], for `work` that fails only before its first change; see [`writer`].
    fn write_checked<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> impl Future<Output = Result<T>> + Send {
        self.run(Lane::Checked(1), work)
    }

    /// As [`Database::write_checked`], ahead of everything that is not urgent, for so many deliveries.
    fn write_urgent<T: Send + 'static>(
        &self,
        deliveries: usize,
        work: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> impl Future<Output = Result<T>> + Send {
        self.run(Lane::Urgent(deliveries), work)
    }
}
