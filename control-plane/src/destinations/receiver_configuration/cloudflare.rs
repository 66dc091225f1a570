//! Cloudflare: asks for a certificate and verifies it against an uploaded CA; a custom rule requires
//! it and checks the subject, answering 403 in both cases.

use super::{TRY_IT, Values};

pub(super) fn configuration(values: &Values) -> (String, Vec<String>) {
    let head = values.head();
    let (anchor, common_name) = (values.anchor_name(), &values.common_name);
    let resource = values.resource(100);
    let text = format!(
        r#"{head}
# CHANGE: your account, zone, host name, and a token that may edit SSL and firewall rules.
ACCOUNT_ID=… ZONE_ID=… HOST=hooks.example.com API_TOKEN=…
api() {{ curl --fail --silent --show-error -H "Authorization: Bearer $API_TOKEN" -H 'Content-Type: application/json' "$@"; }}

# This account's authority alone is trusted for the host name.
CERTIFICATE_ID=$(jq -n --rawfile pem {anchor} '{{name: "{resource}", certificates: $pem, ca: true}}' |
    api --data @- "https://api.cloudflare.com/client/v4/accounts/$ACCOUNT_ID/mtls_certificates" | jq -r .result.id)
jq -n --arg host "$HOST" --arg id "$CERTIFICATE_ID" '{{hostnames: [$host], mtls_certificate_id: $id}}' |
    api -X PUT --data @- "https://api.cloudflare.com/client/v4/zones/$ZONE_ID/certificate_authorities/hostname_associations"

# Revocation: Cloudflare reads no revocation lists of uploaded CAs. A certificate that must not be
# accepted any more is refused after its authority is rotated and the old trust anchor removed.

# Set the zone's minimum TLS version to 1.2.
# A client certificate is required, and its name checked, by this rule (Security, WAF, Custom rules;
# action: Block, which answers 403):
#   http.host eq "hooks.example.com" and (not cf.tls_client_auth.cert_verified or cf.tls_client_auth.cert_subject_dn ne "CN={common_name}")
"#
    );
    let steps = vec![
        format!("Write trust_anchor_pem to the file {anchor}."),
        "Set the values marked CHANGE and run the commands of configuration; an uploaded CA needs \
         an Enterprise plan."
            .to_owned(),
        "Make the custom rule that stands at the end of configuration, with your host name; \
         without it Cloudflare lets everybody in."
            .to_owned(),
        format!("{TRY_IT} Cloudflare answers 403 to every certificate that it does not accept."),
    ];
    (text, steps)
}
