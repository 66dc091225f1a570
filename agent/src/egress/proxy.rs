//! The proxy that an operator may put between the agent and its receivers: HTTP CONNECT (RFC 9110
//! section 9.3.6) or SOCKS5 (RFC 1928). Its user and password come from a file of their own, never
//! from the URL, which ends up in logs.

use std::{
    io,
    path::{Path, PathBuf},
    str::FromStr,
};

use countersign_shared::{files, secret::SecretText};
use thiserror::Error;
use url::Url;
use zeroize::Zeroizing;

/// Longest user and longest password, in bytes (RFC 1929 section 2).
const MAX_PART: usize = 255;

/// A proxy, and who the agent is to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Where it is.
    pub address: ProxyAddress,
    /// User and password, if it wants them.
    pub credentials: Option<ProxyCredentials>,
}

/// What a proxy speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyKind {
    /// HTTP CONNECT over plain TCP.
    Http,
    /// SOCKS version 5.
    Socks5,
}

/// Where a proxy is: `http://HOST:PORT` or `socks5://HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyAddress {
    /// What it speaks.
    pub kind: ProxyKind,
    /// Host name or address; an IPv6 address without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// Why a text is no address of a proxy. It does not repeat the text, which may hold a password.
#[derive(Debug, Error, PartialEq, Eq, Clone, Copy)]
pub enum ProxyAddressError {
    /// Anything but the two forms.
    #[error("is not of the form http://HOST:PORT or socks5://HOST:PORT")]
    Form,
    /// User or password in it.
    #[error(
        "must not contain a user name or password: write them to a file of mode 0600 as \
         user:password, and name it in egress.proxy_credentials_file"
    )]
    Credentials,
}

impl FromStr for ProxyAddress {
    type Err = ProxyAddressError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url = Url::parse(text).map_err(|_| ProxyAddressError::Form)?;
        let kind = match url.scheme() {
            "http" => ProxyKind::Http,
            "socks5" => ProxyKind::Socks5,
            _ => return Err(ProxyAddressError::Form),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(ProxyAddressError::Credentials);
        }
        let bare = matches!(url.path(), "" | "/") && url.query().is_none();
        let host = url.host_str().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        // The URL library leaves out the port that is the scheme's own.
        let port = url.port().or((kind == ProxyKind::Http).then_some(80));
        match port.filter(|port| *port > 0) {
            Some(port) if bare && url.fragment().is_none() && !host.is_empty() => Ok(Self {
                kind,
                host: host.to_owned(),
                port,
            }),
            _ => Err(ProxyAddressError::Form),
        }
    }
}

/// Who the agent is to its proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyCredentials {
    /// User name, 1 to 255 bytes.
    pub user: SecretText,
    /// Password, at most 255 bytes.
    pub password: SecretText,
}

/// Why a file gives no credentials.
#[derive(Debug, Error)]
pub enum CredentialsError {
    /// It can't be read, or others can.
    #[error("{path}: {error}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Something else is in it.
    #[error(
        "{0} does not hold user:password in one line, each at most 255 bytes and without control \
         characters"
    )]
    Form(PathBuf),
}

impl ProxyCredentials {
    /// Reads `user:password` from a file that only its owner may read. A line end after it is not
    /// part of the password.
    ///
    /// # Errors
    /// [`CredentialsError`].
    pub fn read(path: &Path) -> Result<Self, CredentialsError> {
        let content = files::read_private(path).map_err(|error| CredentialsError::File {
            path: path.to_owned(),
            error,
        })?;
        let content = Zeroizing::new(content);
        Self::parse(&content).ok_or_else(|| CredentialsError::Form(path.to_owned()))
    }

    fn parse(content: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(content).ok()?;
        let line = text.strip_suffix('\n').unwrap_or(text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        let (user, password) = line.split_once(':')?;
        let fits = !user.is_empty()
            && user.len() <= MAX_PART
            && password.len() <= MAX_PART
            && !line.contains(char::is_control);
        fits.then(|| Self {
            user: user.to_owned().into(),
            password: password.to_owned().into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_named_by_two_kinds_of_urls() {
        for (text, kind, host, port) in [
            ("http://proxy:3128", ProxyKind::Http, "proxy", 3128),
            ("http://proxy:80/", ProxyKind::Http, "proxy", 80),
            ("http://[fd00::1]:3128", ProxyKind::Http, "fd00::1", 3128),
            (
                "socks5://proxy.example:1080",
                ProxyKind::Socks5,
                "proxy.example",
                1080,
            ),
            (
                "socks5://[fd00::1]:1080",
                ProxyKind::Socks5,
                "fd00::1",
                1080,
            ),
        ] {
            let address: ProxyAddress = text.parse().unwrap();
            assert_eq!(
                (address.kind, address.host.as_str(), address.port),
                (kind, host, port)
            );
        }
        for text in [
            "",
            "proxy:3128",
            "https://proxy:3128",
            "socks4://proxy:1080",
            "socks5h://proxy:1080",
            "socks5://proxy",
            "socks5://proxy:0",
            "http://proxy:3128/path",
            "http://proxy:3128/?x",
            "http://proxy:3128/#x",
            "socks5://:1080",
        ] {
            assert_eq!(
                text.parse::<ProxyAddress>(),
                Err(ProxyAddressError::Form),
                "{text}"
            );
        }
    }

    #[test]
    fn a_password_in_the_url_is_refused_and_not_repeated() {
        for text in [
            "http://us:hunter2@proxy:3128",
            "socks5://us:hunter2@proxy:1080",
        ] {
            let error = text.parse::<ProxyAddress>().unwrap_err();
            assert_eq!(error, ProxyAddressError::Credentials);
            assert!(!error.to_string().contains("hunter2"));
        }
    }

    #[test]
    fn credentials_are_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("credentials");
        files::create_private(&path, b"us:hun:ter2\r\n").unwrap();
        let credentials = ProxyCredentials::read(&path).unwrap();
        assert_eq!(credentials.user.expose(), "us");
        assert_eq!(credentials.password.expose(), "hun:ter2");
        assert!(!format!("{credentials:?}").contains("ter2"));
        let long = format!("us:{}", "x".repeat(256));
        for bad in ["", "us", ":x", "us:x\ny", "us:x\n\n", &long] {
            files::replace_private(&path, bad.as_bytes()).unwrap();
            let error = ProxyCredentials::read(&path).unwrap_err();
            assert!(matches!(error, CredentialsError::Form(_)), "{bad:?}");
        }
        files::replace_public(&path, b"us:hunter2").unwrap();
        let error = ProxyCredentials::read(&path).unwrap_err().to_string();
        assert!(error.contains("chmod 0600"), "{error}");
    }
}
