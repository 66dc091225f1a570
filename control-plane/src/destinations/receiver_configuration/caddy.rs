//! Caddy: checks the URI in the subject alternative name, which names the destination. It has no
//! limit of its own for the length of chains, and reads no revocation lists.

use super::{TRY_IT, Values};

pub(super) fn configuration(values: &Values) -> (String, Vec<String>) {
    let head = values.head();
    let anchor = values.anchor_file();
    let uri = &values.uri;
    let text = format!(
        r#"{head}
# CHANGE: your host name, such as hooks.example.com, and port.
https://:443 {{
	# CHANGE: your certificate and its key, or remove both files to have Caddy get one.
	tls /etc/ssl/receiver/server.pem /etc/ssl/receiver/server.key {{
		protocols tls1.2 tls1.3
		# A client certificate is required, and this account's authority alone is trusted.
		client_auth {{
			mode require_and_verify
			trust_pool file {anchor}
		}}
		# Revocation: Caddy reads no revocation lists. A certificate that must not be accepted any
		# more is refused after its authority is rotated and the old trust anchor removed.
	}}

	# The name in the certificate. Others get 403.
	@stranger not vars {{http.request.tls.client.san.uris.0}} {uri}
	respond @stranger 403

	# CHANGE: your application.
	reverse_proxy 127.0.0.1:8080
}}
"#
    );
    let steps = vec![
        values.install_anchor(),
        "Add configuration to /etc/caddy/Caddyfile and fit what is marked CHANGE.".to_owned(),
        "Run: caddy validate --config /etc/caddy/Caddyfile && systemctl reload caddy".to_owned(),
        TRY_IT.to_owned(),
    ];
    (text, steps)
}
