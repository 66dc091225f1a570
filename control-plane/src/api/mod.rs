//! The gRPC API: one thin service a file. Requests are checked and turned into the domain's terms,
//! and answers and errors back; what happens in between is on the floors below.

mod access;
mod accounts;
mod agent_session;
mod agents;
mod alerts;
mod audit;
mod authenticate;
mod authority_name;
mod certificate_operations;
mod certificates;
mod deliveries;
mod delivery_policy;
mod destination_config;
mod destinations;
mod enrollment;
mod guard;
mod key_encryption_keys;
mod outbound;
mod page;
mod recorder;
mod rotation_wire;
mod status;
mod submission_stream;
mod violations;

pub use access::AccessApi;
pub use accounts::AccountApi;
pub use agent_session::AgentSessionApi;
pub use agents::AgentAdministrationApi;
pub use alerts::AlertApi;
pub use audit::AuditApi;
pub use authenticate::Peer;
pub use certificates::CertificateApi;
pub use deliveries::DeliveryApi;
pub use destinations::DestinationApi;
pub use enrollment::EnrollmentApi;
pub use guard::{Guard, Guarded};
pub use key_encryption_keys::KeyEncryptionKeyApi;
