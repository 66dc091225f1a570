//! Texts that say more of an outcome than its class: the fixed list.

pub(super) const NONE: &str = "";
pub(super) const OWN_EXPIRED: &str =
    "The agent's copy of the client certificate has expired; nothing was sent.";
pub(super) const OWN_REVOKED: &str = "The control plane has revoked the client certificate: the agent closed its connections and \
     presents it no more. A request that was under way may have been received.";
pub(super) const NO_SUCH_CERTIFICATE: &str =
    "The agent does not hold this version of the client certificate.";
pub(super) const NO_BUNDLE: &str = "The agent has no usable bundle for the destination.";
pub(super) const TOO_MANY_PROBES: &str =
    "The agent has as many probes in hand as it takes at once; try again later.";
pub(super) const NO_CERTIFICATE_DENIED: &str = "No certificate was presented, and the receiver answered that access is denied: it may check \
     the certificate in the application.";
pub(super) const RECEIVER_SAYS_EXPIRED: &str = "The certificate is within its validity by the agent's clock: the receiver's clock may be \
     wrong, or its revocation list stale.";
pub(super) const BAD_CERTIFICATE: &str = "The alert does not say why: usually the receiver does not have the trust anchor, or takes the \
     certificate to be not yet valid.";
pub(super) const REFUSED_WITH_ALERT: &str =
    "The receiver sent an alert after the certificate was presented; see the handshake record.";
pub(super) const REFUSED_SILENTLY: &str = "The receiver closed the new connection right after the certificate was presented, without an \
     alert or an answer.";
pub(super) const NGINX_MISSING: &str =
    "The receiver's page says 'No required SSL certificate was sent'.";
pub(super) const NOT_ASKED: &str = "The receiver sent no CertificateRequest in the handshake.";
pub(super) const NOT_YET_VALID: &str =
    "The server certificate is not yet valid by the agent's clock.";
pub(super) const WRONG_PURPOSE: &str =
    "The server certificate is not for servers (extended key usage).";
pub(super) const UNUSABLE: &str =
    "The server certificate is malformed or signed with an algorithm that is not accepted.";
pub(super) const NOTHING_IN_COMMON: &str = "The receiver shares no cipher suite, key exchange group or signature algorithm with the agent.";
pub(super) const NOT_TLS: &str = "What listens at the port does not speak TLS.";
pub(super) const CLOSED_EARLY: &str = "The receiver closed the connection during the handshake.";
pub(super) const ALERT: &str = "The receiver sent an alert; see the handshake record.";
pub(super) const DENIED_BY_AGENT: &str =
    "The agent's configuration (egress.allow, egress.deny) permits no address of the host.";
pub(super) const DENIED_BY_DESTINATION: &str =
    "No address of the host that the agent may connect to is in allowed_ranges of the destination.";
pub(super) const PROXY_UNREACHABLE: &str = "The agent's proxy (egress.proxy) can't be reached.";
pub(super) const PROXY_REFUSED: &str = "The agent's proxy (egress.proxy) opened no connection to the receiver; the agent's log says why.";
pub(super) const UNREACHABLE: &str = "There is no route to the address.";
pub(super) const HANDSHAKE_SILENT: &str =
    "TCP connected, but the TLS handshake was not answered in time.";
pub(super) const CUT: &str = "The connection broke in the middle of the answer.";
pub(super) const NOT_HTTP: &str = "The answer is not HTTP.";

/// The client certificate has ended meanwhile, by the agent's clock.
pub(super) const ENDED: &str = "The client certificate has ended by the agent's clock too.";
pub(super) const NOT_YET: &str = "The client certificate is not yet valid by the agent's clock: compare that clock with the \
     control plane's.";
pub(super) const ISSUER_NOT_NAMED: &str = "When it asked for the certificate, the receiver named other authorities and not this one: it \
     does not have the trust anchor.";
pub(super) const ISSUER_NAMED: &str = "The receiver named this certificate's authority when it asked, and the certificate is valid by \
     the agent's clock: the receiver holds it to be revoked, its revocation list may be stale or \
     missing, or its clock wrong; its error log says which.";
pub(super) const ISSUER_NAMED_YET_UNKNOWN: &str = "The receiver named this certificate's authority when it asked: it may have another \
     certificate of that name, or no revocation list of the authority.";
pub(super) const PAGE_ERROR: &str = "The receiver's page says that the certificate did not verify: it does not have the trust \
     anchor, holds the certificate to be revoked, or its revocation list may be stale; its error \
     log says which.";
