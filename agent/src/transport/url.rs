//! Where the control plane's listener for agents is: `https://HOST:PORT`, nothing more.

use std::{fmt, str::FromStr};

use rustls_pki_types::ServerName;
use thiserror::Error;
use url::Url;

/// `https://HOST:PORT` of the control plane's listener for agents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlPlaneUrl {
    host: String,
    port: u16,
}

/// Why a text is not such a URL.
#[derive(Debug, Error, PartialEq, Eq, Clone, Copy)]
#[error(
    "is not of the form https://HOST:PORT, the address that the control plane listens at for agents"
)]
pub struct ControlPlaneUrlError;

impl ControlPlaneUrl {
    /// Host name or address; an IPv6 address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The name that the control plane's certificate must have.
    ///
    /// # Errors
    /// When the host is neither a DNS name nor an address.
    pub fn server_name(&self) -> Result<ServerName<'static>, ControlPlaneUrlError> {
        ServerName::try_from(self.host.clone()).map_err(|_| ControlPlaneUrlError)
    }
}

impl FromStr for ControlPlaneUrl {
    type Err = ControlPlaneUrlError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url = Url::parse(text).map_err(|_| ControlPlaneUrlError)?;
        let bare = url.scheme() == "https"
            && url.username().is_empty()
            && url.password().is_none()
            && matches!(url.path(), "" | "/")
            && url.query().is_none()
            && url.fragment().is_none();
        let host = url.host_str().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let parsed = Self {
            host: host.to_owned(),
            port: url.port_or_known_default().ok_or(ControlPlaneUrlError)?,
        };
        match parsed.server_name() {
            Ok(_) if bare => Ok(parsed),
            _ => Err(ControlPlaneUrlError),
        }
    }
}

impl fmt::Display for ControlPlaneUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "https://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "https://{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bare_https_address_is_taken() {
        for (text, shown) in [
            ("https://cp.example:8444", "https://cp.example:8444"),
            ("https://127.0.0.1:1/", "https://127.0.0.1:1"),
            ("https://[::1]:8444", "https://[::1]:8444"),
            ("https://cp.example", "https://cp.example:443"),
        ] {
            let url: ControlPlaneUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), shown);
            assert_eq!(shown.parse(), Ok(url));
        }
        for text in [
            "",
            "cp.example:8444",
            "http://cp.example:8444",
            "https://u@cp.example:1",
            "https://cp.example:1/x",
            "https://cp.example:1/?x",
            "https://",
        ] {
            assert!(text.parse::<ControlPlaneUrl>().is_err(), "{text}");
        }
    }
}
