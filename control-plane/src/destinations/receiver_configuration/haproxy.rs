//! HAProxy: checks the subject's common name, since it does not tell subject alternative names. It
//! has no limit of its own for the length of chains.

use super::{TRY_IT, Values};

pub(super) fn configuration(values: &Values) -> (String, Vec<String>) {
    let head = values.head();
    let (anchor, crl) = (values.anchor_file(), values.crl_file());
    let lists = &values.revocation_lists_path;
    let common_name = &values.common_name;
    let section = format!("countersign-{}-{}", values.account, values.destination);
    let text = format!(
        r#"{head}
frontend {section}
    mode http
    timeout client 30s
    # CHANGE: address and port, and the file with your certificate and its key.
    # A client certificate is required, and this account's authority alone is trusted.
    bind :443 ssl crt /etc/ssl/receiver/server-with-key.pem alpn h2,http/1.1 ssl-min-ver TLSv1.2 verify required ca-file {anchor}
    # Revocation: write the lists of all generations ({lists}) to this file and add this to the end of
    # the bind line:
    #   crl-file {crl}

    # The name in the certificate. Others get 403.
    http-request deny deny_status 403 unless {{ ssl_c_s_dn(cn) -m str {common_name} }}
    default_backend {section}

backend {section}
    mode http
    timeout connect 5s
    timeout server 30s
    server application 127.0.0.1:8080                        # CHANGE
"#
    );
    let steps = vec![
        values.install_anchor(),
        "Add configuration to /etc/haproxy/haproxy.cfg and fit the lines marked CHANGE.".to_owned(),
        "Run: haproxy -c -f /etc/haproxy/haproxy.cfg && systemctl reload haproxy".to_owned(),
        TRY_IT.to_owned(),
    ];
    (text, steps)
}
