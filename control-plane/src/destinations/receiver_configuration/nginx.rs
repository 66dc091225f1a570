//! nginx: checks the subject, since it does not tell subject alternative names.

use super::{TRY_IT, Values};

pub(super) fn configuration(values: &Values) -> (String, Vec<String>) {
    let head = values.head();
    let (anchor, crl) = (values.anchor_file(), values.crl_file());
    let lists = &values.revocation_lists_path;
    let common_name = &values.common_name;
    let text = format!(
        r#"{head}
server {{
    listen 443 ssl;                                          # CHANGE
    ssl_certificate     /etc/ssl/receiver/server.pem;        # CHANGE
    ssl_certificate_key /etc/ssl/receiver/server.key;        # CHANGE
    ssl_protocols TLSv1.2 TLSv1.3;

    # A client certificate is required, and this account's authority alone is trusted.
    ssl_verify_client on;
    ssl_client_certificate {anchor};
    # 2: a later generation's certificate comes with one more between it and the trust anchor.
    ssl_verify_depth 2;
    # Revocation: write the lists of all generations ({lists}) to this file and remove the #.
    # ssl_crl {crl};

    # The name in the certificate. Others get 403.
    if ($ssl_client_s_dn != "CN={common_name}") {{
        return 403;
    }}

    location / {{
        proxy_pass http://127.0.0.1:8080;                    # CHANGE
        proxy_set_header Host $host;
    }}
}}
"#
    );
    let file = format!(
        "/etc/nginx/conf.d/countersign-{}-{}.conf",
        values.account, values.destination
    );
    let steps = vec![
        values.install_anchor(),
        format!("Write configuration to {file} and fit the lines marked CHANGE."),
        "Run: nginx -t && nginx -s reload".to_owned(),
        TRY_IT.to_owned(),
    ];
    (text, steps)
}
