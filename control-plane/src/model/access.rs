//! Who may call the API: keys and client certificates, in which roles, for which accounts.

use std::{path::PathBuf, str::FromStr};

use countersign_shared::{
    name::{AccountName, Id},
    time::Timestamp,
};

/// SHA-256 of an API key's secret. The secret has 256 random bits, so a plain hash can't be guessed
/// backwards.
pub type ApiKeyHash = [u8; 32];

/// What a principal may do; several add up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Everything.
    Administrator,
    /// Certificates, agents and alerts, and reading of everything but keys.
    Operator,
    /// Deliveries.
    Sender,
    /// Reading of everything but secrets.
    Auditor,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Administrator,
        Self::Operator,
        Self::Sender,
        Self::Auditor,
    ];

    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Administrator => "administrator",
            Self::Operator => "operator",
            Self::Sender => "sender",
            Self::Auditor => "auditor",
        }
    }

    /// The role that is written so.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }
}

/// Which accounts a principal may act for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All, and what belongs to no account.
    All,
    /// These only.
    Accounts(Vec<AccountName>),
}

impl Scope {
    /// Whether `resource`, the name of an account or of something that belongs to one, is in it. What
    /// belongs to no account is in [`Scope::All`] only.
    pub fn covers(&self, resource: &str) -> bool {
        let Self::Accounts(accounts) = self else {
            return true;
        };
        let mut parts = resource.split('/');
        let (collection, account) = (parts.next(), parts.next());
        let known = |name: &AccountName| Some(name.id().as_str()) == account;
        collection == Some("accounts") && accounts.iter().any(known)
    }
}

/// What may call the API; only the hash of the secret is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Which key; part of the key's text, not secret.
    pub id: Id,
    /// Hash of the secret.
    pub secret_sha256: ApiKeyHash,
    /// For people.
    pub display_name: String,
    /// What it may do.
    pub roles: Vec<Role>,
    /// For which accounts.
    pub scope: Scope,
    /// Most calls a second; `None`: as configured for all.
    pub calls_per_second: Option<u32>,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it is refused; `None`: never.
    pub expires_at: Option<Timestamp>,
    /// When it was last used, roughly.
    pub last_used_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

impl ApiKey {
    /// Whether it is let in.
    pub fn is_valid(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }
}

/// What a client certificate has to say: `spiffe://…`, its only URI, or `CN=…`, its only common name. A
/// `*`, of which there may be one, stands for any characters but `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientIdentity {
    /// The whole URI.
    Spiffe(String),
    /// Without `CN=`.
    CommonName(String),
}

impl ClientIdentity {
    /// Whether `text`, of the same kind, fits.
    pub fn fits(&self, text: &str) -> bool {
        let (Self::Spiffe(pattern) | Self::CommonName(pattern)) = self;
        match pattern.split_once('*') {
            None => text == pattern,
            Some((start, end)) => text
                .strip_prefix(start)
                .and_then(|rest| rest.strip_suffix(end))
                .is_some_and(|between| !between.is_empty() && !between.contains('/')),
        }
    }
}

impl FromStr for ClientIdentity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let identity = match text.strip_prefix("CN=") {
            Some(name) if !name.is_empty() => Self::CommonName(name.to_owned()),
            None if text.len() > "spiffe://".len() && text.starts_with("spiffe://") => {
                Self::Spiffe(text.to_owned())
            }
            _ => return Err("is neither 'spiffe://…' nor 'CN=…'".to_owned()),
        };
        match text.matches('*').count() {
            0 | 1 => Ok(identity),
            _ => Err("has more than one '*'".to_owned()),
        }
    }
}

/// Client certificates that may call the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientRule {
    /// Certificates of the authorities that sign them, in PEM.
    pub ca_file: PathBuf,
    /// What they say.
    pub identity: ClientIdentity,
    /// What they may do.
    pub roles: Vec<Role>,
    /// For which accounts.
    pub scope: Scope,
    /// Most calls a second, of all of them together; `None`: as configured for all.
    pub calls_per_second: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_covers_its_accounts_and_what_is_in_them_and_nothing_like_it() {
        let scope = Scope::Accounts(vec!["accounts/acme".parse().unwrap()]);
        for covered in ["accounts/acme", "accounts/acme/destinations/orders"] {
            assert!(scope.covers(covered), "{covered}");
        }
        for other in [
            "",
            "acme",
            "accounts",
            "accounts/",
            "accounts/acm",
            "accounts/acme2",
            "accounts/ACME",
            "accounts/-",
            " accounts/acme",
            "agents/acme",
            "shared",
            "certificateAuthorities/1",
            "accounts//acme",
        ] {
            assert!(!scope.covers(other), "{other}");
            assert!(Scope::All.covers(other));
        }
    }

    #[test]
    fn a_star_stands_for_something_within_one_part_of_an_identity() {
        let fits =
            |pattern: &str, text: &str| pattern.parse::<ClientIdentity>().unwrap().fits(text);
        assert!(fits("CN=robot", "robot") && fits("CN=robot-*", "robot-1"));
        assert!(fits("spiffe://a/*/billing", "spiffe://a/eu/billing"));
        for (pattern, text) in [
            ("CN=robot", "robots"),
            ("CN=robot-*", "robot-"),
            ("CN=robot-*", "xrobot-1"),
            ("CN=a*a", "a"),
            ("spiffe://a/*", "spiffe://a/b/c"),
            ("spiffe://a/*/billing", "spiffe://a/billing"),
            ("spiffe://a/*", "spiffe://ab/c"),
        ] {
            assert!(!fits(pattern, text), "{pattern} {text}");
        }
        for bad in [
            "",
            "CN=",
            "spiffe://",
            "https://a/b",
            "robot",
            "CN=*-*",
            "*",
        ] {
            assert!(bad.parse::<ClientIdentity>().is_err(), "{bad}");
        }
    }

    #[test]
    fn roles_are_read_as_they_are_written() {
        for role in Role::ALL {
            assert_eq!(Role::parse(role.as_str()), Some(role));
        }
        assert_eq!(Role::parse("root"), None);
    }
}
