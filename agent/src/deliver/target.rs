//! Where a destination's requests go, in the forms in which connections and requests want it: taken
//! apart once, when the bundle comes.

use http::{HeaderValue, Uri};
use url::Url;

use super::prepare_error::PrepareError;

/// Where requests go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// Scheme, authority, path and query, as HTTP/2 splits them up into pseudo-header fields.
    pub(super) absolute: Uri,
    /// Path and query, as a request of HTTP/1.1 begins (RFC 9112 section 3.2.1).
    pub(super) origin: Uri,
    /// Of the Host header field: with the port where it is not 443 (RFC 9110 section 7.2).
    pub(super) host: HeaderValue,
    /// Whom to resolve, without an IPv6 address's brackets.
    pub(super) name: String,
    /// Where to connect.
    pub(super) port: u16,
}

impl Target {
    /// From a destination's URL.
    ///
    /// # Errors
    /// [`PrepareError::Url`]: it has no host, or characters that HTTP does not take.
    pub(super) fn new(url: &Url) -> Result<Self, PrepareError> {
        let absolute: Uri = url.as_str().parse().map_err(|_| PrepareError::Url)?;
        let path = absolute.path_and_query().ok_or(PrepareError::Url)?;
        let host = absolute.host().ok_or(PrepareError::Url)?;
        let port = absolute.port_u16().unwrap_or(443);
        let shown = match port {
            443 => host.to_owned(),
            port => format!("{host}:{port}"),
        };
        let name = host.trim_start_matches('[').trim_end_matches(']');
        Ok(Self {
            origin: Uri::from(path.clone()),
            host: HeaderValue::try_from(shown).map_err(|_| PrepareError::Url)?,
            name: name.to_owned(),
            port,
            absolute,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        for (url, host, name, port, origin) in [
            ("https://a.example", "a.example", "a.example", 443, "/"),
            (
                "https://a.example:443/x?y=1",
                "a.example",
                "a.example",
                443,
                "/x?y=1",
            ),
            (
                "https://a.example:8443/x",
                "a.example:8443",
                "a.example",
                8443,
                "/x",
            ),
            (
                "https://[2001:db8::1]:1/",
                "[2001:db8::1]:1",
                "2001:db8::1",
                1,
                "/",
            ),
            ("https://10.0.0.1/?q", "10.0.0.1", "10.0.0.1", 443, "/?q"),
        ] {
            let target = Target::new(&url.parse().unwrap()).unwrap();
            assert_eq!(target.host, host, "{url}");
            assert_eq!((&*target.name, target.port), (name, port), "{url}");
            assert_eq!(target.origin.to_string(), origin, "{url}");
            assert_eq!(
                target.absolute.path_and_query(),
                target.origin.path_and_query()
            );
        }
    }

    #[test]
    fn what_has_no_host_is_no_target() {
        let url = "data:text/plain,x".parse().unwrap();
        assert_eq!(Target::new(&url), Err(PrepareError::Url));
    }
}
