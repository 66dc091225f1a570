//! Apache HTTP Server: checks the URI in the subject alternative name, which names the destination.

use super::{TRY_IT, Values};

pub(super) fn configuration(values: &Values) -> (String, Vec<String>) {
    let head = values.head();
    let (anchor, crl) = (values.anchor_file(), values.crl_file());
    let lists = &values.revocation_lists_path;
    let uri = &values.uri;
    let text = format!(
        r#"{head}
# CHANGE: the port.
<VirtualHost *:443>
    SSLEngine on
    SSLProtocol -all +TLSv1.2 +TLSv1.3
    # CHANGE: your certificate and its key.
    SSLCertificateFile /etc/ssl/receiver/server.pem
    SSLCertificateKeyFile /etc/ssl/receiver/server.key

    # A client certificate is required, and this account's authority alone is trusted.
    SSLVerifyClient require
    SSLCACertificateFile {anchor}
    # 2: a later generation's certificate comes with one more between it and the trust anchor.
    SSLVerifyDepth 2
    # Revocation: write the lists of all generations ({lists}) to this file and remove both #.
    # SSLCARevocationFile {crl}
    # SSLCARevocationCheck chain

    # The name in the certificate. Others get 403.
    <Location "/">
        Require expr "'URI:{uri}' in PeerExtList('subjectAltName')"
    </Location>

    # CHANGE: your application.
    ProxyPass "/" "http://127.0.0.1:8080/"
</VirtualHost>
"#
    );
    let site = format!("countersign-{}-{}", values.account, values.destination);
    let steps = vec![
        values.install_anchor(),
        format!(
            "Write configuration to /etc/apache2/sites-available/{site}.conf and fit what is \
             marked CHANGE."
        ),
        format!(
            "Run: a2enmod ssl proxy proxy_http && a2ensite {site} && apachectl configtest && \
             systemctl reload apache2"
        ),
        TRY_IT.to_owned(),
    ];
    (text, steps)
}
