//! Who may do what: one table of every method. It names the roles, and where in the request it says
//! which account is concerned.

use crate::model::Role::{self, Auditor, Operator, Sender};

/// What a call must be about, if its caller may not act for all accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// What belongs to no account: only those who may act for all can call it.
    AllAccounts,
    /// These fields of the request name an account, or what belongs to one, that the caller may act
    /// for. The first must be there.
    Account(&'static [&'static str]),
    /// Nothing: its answer tells only of accounts that the caller may act for.
    Shown,
    /// Each message of its stream is judged by itself, with an answer of its own.
    EachMessage,
}

/// A method, and who may call it besides administrators.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// `Service/Method`, of package `countersign.v1`.
    pub method: &'static str,
    /// The roles that may, besides [`Role::Administrator`].
    pub roles: &'static [Role],
    /// For what.
    pub needs: Needs,
}

impl Rule {
    /// Whether what it changes, and whom it refuses, is on record by the call. What senders submit is not:
    /// deliveries have a history of their own. What only reads changes nothing.
    pub fn is_on_record(&self) -> bool {
        let name = self.method.split('/').nth(1).unwrap_or_default();
        let passes = ["Get", "List", "Watch", "Verify", "Submit"];
        !passes.iter().any(|prefix| name.starts_with(prefix))
    }
}

const fn rule(method: &'static str, roles: &'static [Role], needs: Needs) -> Rule {
    Rule {
        method,
        roles,
        needs,
    }
}

/// Administrators only.
const NOBODY_ELSE: &[Role] = &[];
const OPERATE: &[Role] = &[Operator];
const OVERSEE: &[Role] = &[Operator, Auditor];
const AUDIT: &[Role] = &[Auditor];
const SEND: &[Role] = &[Sender];
const READ: &[Role] = &[Operator, Sender, Auditor];

const NAME: Needs = Needs::Account(&["name"]);
const PARENT: Needs = Needs::Account(&["parent"]);
const FILTERED: Needs = Needs::Account(&["parent", "destination"]);
const DESTINATION: Needs = Needs::Account(&["destination"]);

/// Every method of the API's listener, but for health and reflection.
pub const TABLE: &[Rule] = &[
    rule(
        "AccessService/CreateApiKey",
        NOBODY_ELSE,
        Needs::AllAccounts,
    ),
    rule("AccessService/GetApiKey", AUDIT, Needs::AllAccounts),
    rule("AccessService/ListApiKeys", AUDIT, Needs::AllAccounts),
    rule(
        "AccessService/RevokeApiKey",
        NOBODY_ELSE,
        Needs::AllAccounts,
    ),
    rule(
        "AccountService/CreateAccount",
        NOBODY_ELSE,
        Needs::AllAccounts,
    ),
    rule("AccountService/GetAccount", READ, NAME),
    rule("AccountService/ListAccounts", READ, Needs::Shown),
    rule(
        "AccountService/UpdateAccount",
        NOBODY_ELSE,
        Needs::Account(&["account.name"]),
    ),
    rule("AccountService/DeleteAccount", NOBODY_ELSE, NAME),
    rule(
        "AgentAdministrationService/CreateJoinToken",
        OPERATE,
        Needs::AllAccounts,
    ),
    rule(
        "AgentAdministrationService/ListJoinTokens",
        OVERSEE,
        Needs::AllAccounts,
    ),
    rule(
        "AgentAdministrationService/RevokeJoinToken",
        OPERATE,
        Needs::AllAccounts,
    ),
    rule(
        "AgentAdministrationService/GetAgent",
        OVERSEE,
        Needs::AllAccounts,
    ),
    rule(
        "AgentAdministrationService/ListAgents",
        OVERSEE,
        Needs::AllAccounts,
    ),
    rule(
        "AgentAdministrationService/DrainAgent",
        OPERATE,
        Needs::AllAccounts,
    ),
    rule(
        "AgentAdministrationService/SuspendAgent",
        OPERATE,
        Needs::AllAccounts,
    ),
    rule(
        "AgentAdministrationService/ResumeAgent",
        OPERATE,
        Needs::AllAccounts,
    ),
    rule(
        "AgentAdministrationService/EvictAgent",
        OPERATE,
        Needs::AllAccounts,
    ),
    rule("AlertService/ListAlerts", OVERSEE, Needs::Shown),
    rule("AlertService/WatchAlerts", OVERSEE, Needs::Shown),
    rule("AlertService/AcknowledgeAlert", OPERATE, Needs::AllAccounts),
    rule("AuditService/ListAuditEvents", AUDIT, Needs::AllAccounts),
    rule(
        "AuditService/ListAuditCheckpoints",
        AUDIT,
        Needs::AllAccounts,
    ),
    rule("AuditService/ExportAuditLog", AUDIT, Needs::AllAccounts),
    rule("AuditService/VerifyAuditLog", AUDIT, Needs::AllAccounts),
    rule("CertificateService/GetCertificateAuthority", OVERSEE, NAME),
    rule(
        "CertificateService/ListCertificateAuthorities",
        OVERSEE,
        PARENT,
    ),
    rule("CertificateService/GetTrustBundle", OVERSEE, PARENT),
    rule(
        "CertificateService/GetCertificateRevocationList",
        OVERSEE,
        NAME,
    ),
    rule("CertificateService/GetClientCertificate", OVERSEE, NAME),
    rule("CertificateService/ListClientCertificates", OVERSEE, PARENT),
    rule(
        "CertificateService/RotateClientCertificate",
        OPERATE,
        PARENT,
    ),
    rule("CertificateService/RevokeClientCertificate", OPERATE, NAME),
    // It makes a key when there is none: not for those who only read.
    rule(
        "CertificateService/GetCertificateSigningRequest",
        OPERATE,
        PARENT,
    ),
    rule(
        "CertificateService/UploadClientCertificate",
        OPERATE,
        PARENT,
    ),
    rule(
        "CertificateService/GetCertificateAuthorityRotation",
        OVERSEE,
        PARENT,
    ),
    rule(
        "CertificateService/RotateCertificateAuthority",
        OPERATE,
        PARENT,
    ),
    rule("CertificateService/AdvanceRotation", OPERATE, PARENT),
    rule("CertificateService/AbortRotation", OPERATE, PARENT),
    rule("CertificateService/ListDestinationTrust", OVERSEE, PARENT),
    rule(
        "CertificateService/SetDestinationTrust",
        OPERATE,
        DESTINATION,
    ),
    rule(
        "CertificateService/RevokeCertificateAuthority",
        OPERATE,
        NAME,
    ),
    rule("DeliveryService/SubmitDelivery", SEND, DESTINATION),
    rule("DeliveryService/SubmitDeliveries", SEND, Needs::EachMessage),
    rule("DeliveryService/GetDelivery", READ, NAME),
    rule("DeliveryService/ListDeliveries", READ, FILTERED),
    rule("DeliveryService/RetryDelivery", SEND, NAME),
    rule("DeliveryService/ReplayDeliveries", SEND, FILTERED),
    rule("DeliveryService/CancelDelivery", SEND, NAME),
    rule("DeliveryService/ListAttempts", READ, PARENT),
    rule("DestinationService/CreateDestination", NOBODY_ELSE, PARENT),
    rule("DestinationService/GetDestination", READ, NAME),
    rule("DestinationService/ListDestinations", READ, PARENT),
    rule(
        "DestinationService/UpdateDestination",
        NOBODY_ELSE,
        Needs::Account(&["destination.name"]),
    ),
    rule("DestinationService/DeleteDestination", NOBODY_ELSE, NAME),
    rule("DestinationService/EnableDestination", OPERATE, NAME),
    rule("DestinationService/DisableDestination", OPERATE, NAME),
    rule("DestinationService/RotateSigningSecret", OPERATE, NAME),
    rule("DestinationService/GetReceiverConfiguration", OVERSEE, NAME),
    rule("DestinationService/ProbeDestination", OPERATE, NAME),
    rule("DestinationService/RevealSigningSecret", NOBODY_ELSE, NAME),
    rule("DestinationService/ListSigningPublicKeys", READ, NAME),
    rule(
        "KeyEncryptionKeyService/GetKeyEncryptionKey",
        OVERSEE,
        Needs::AllAccounts,
    ),
    rule(
        "KeyEncryptionKeyService/RewrapDataKeys",
        NOBODY_ELSE,
        Needs::AllAccounts,
    ),
];
