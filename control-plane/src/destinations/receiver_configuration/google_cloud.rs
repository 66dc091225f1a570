//! Google Cloud Application Load Balancer: verifies against a trust config; the application behind
//! it checks the name, which comes in a header that the backend service adds.

use super::{TRY_IT, Values};

/// Longest name of a resource.
const LONGEST_NAME: usize = 63;

pub(super) fn configuration(values: &Values) -> (String, Vec<String>) {
    let head = values.head();
    let (name, uri) = (values.resource(LONGEST_NAME), &values.uri);
    let anchors: String = values
        .anchors_pem
        .split_inclusive("-----END CERTIFICATE-----\n")
        .map(trust_anchor)
        .collect();
    let text = format!(
        r#"{head}
PROJECT=my-project                                           # CHANGE
PROXY=my-target-https-proxy                                  # CHANGE
BACKEND=my-backend-service                                   # CHANGE

# This account's authority alone is trusted.
cat >trust-config.yaml <<'YAML'
trustStores:
- trustAnchors:
{anchors}YAML
gcloud certificate-manager trust-configs import {name} \
    --project="$PROJECT" --location=global --source=trust-config.yaml

# A client certificate is required: REJECT_INVALID also refuses connections without one.
cat >server-tls-policy.yaml <<YAML
name: projects/$PROJECT/locations/global/serverTlsPolicies/{name}
mtlsPolicy:
  clientValidationMode: REJECT_INVALID
  clientValidationTrustConfig: projects/$PROJECT/locations/global/trustConfigs/{name}
YAML
gcloud network-security server-tls-policies import {name} \
    --project="$PROJECT" --location=global --source=server-tls-policy.yaml
gcloud compute target-https-proxies export "$PROXY" --project="$PROJECT" --global >proxy.yaml
echo "serverTlsPolicy: //networksecurity.googleapis.com/projects/$PROJECT/locations/global/serverTlsPolicies/{name}" >>proxy.yaml
gcloud compute target-https-proxies import "$PROXY" --project="$PROJECT" --global --source=proxy.yaml
# TLS 1.2 and 1.3: attach an SSL policy with --min-tls-version=1.2 to the proxy.

# Revocation: the load balancer reads no revocation lists. A certificate that must not be accepted
# any more is refused after its authority is rotated and the old trust anchor removed.

# The name in the certificate: the load balancer does not check it, it hands it on. The application
# answers 403 unless the header X-Client-Cert-Spiffe is exactly
#   {uri}
# and it must be reachable through the load balancer only.
gcloud compute backend-services update "$BACKEND" --project="$PROJECT" --global \
    --custom-request-header='X-Client-Cert-Spiffe:{{client_cert_spiffe_id}}'
"#
    );
    let steps = vec![
        "Set PROJECT, PROXY and BACKEND and run the commands of configuration; it holds the trust \
         anchor."
            .to_owned(),
        format!("In the application, answer 403 unless X-Client-Cert-Spiffe is {uri}."),
        TRY_IT.to_owned(),
    ];
    (text, steps)
}

/// One anchor as an item of the list.
fn trust_anchor(pem: &str) -> String {
    let lines: String = pem.lines().map(|line| format!("      {line}\n")).collect();
    format!("  - pemCertificate: |\n{lines}")
}
