//! AWS Application Load Balancer: verifies against a trust store; the application behind it checks
//! the name, which comes in a header.

use super::{TRY_IT, Values};

/// Longest name of a trust store.
const LONGEST_NAME: usize = 32;

pub(super) fn configuration(values: &Values) -> (String, Vec<String>) {
    let head = values.head();
    let (anchor, store) = (values.anchor_name(), values.resource(LONGEST_NAME));
    let (account, common_name) = (&values.account, &values.common_name);
    let text = format!(
        r#"{head}
BUCKET=my-bucket                                             # CHANGE: an S3 bucket of yours
LISTENER_ARN=arn:aws:elasticloadbalancing:…                  # CHANGE: your HTTPS listener

# This account's authority alone is trusted.
aws s3 cp {anchor} "s3://$BUCKET/{anchor}"
TRUST_STORE_ARN=$(aws elbv2 create-trust-store --name {store} \
    --ca-certificates-bundle-s3-bucket "$BUCKET" --ca-certificates-bundle-s3-key {anchor} \
    --query 'TrustStores[0].TrustStoreArn' --output text)

# Revocation: put the list of each generation into the bucket and remove the #.
# aws elbv2 add-trust-store-revocations --trust-store-arn "$TRUST_STORE_ARN" \
#     --revocation-contents "S3Bucket=$BUCKET,S3Key={account}-crl.pem,RevocationType=CRL"

# A client certificate is required (verify, not passthrough); TLS 1.2 and 1.3.
aws elbv2 modify-listener --listener-arn "$LISTENER_ARN" \
    --ssl-policy ELBSecurityPolicy-TLS13-1-2-2021-06 \
    --mutual-authentication "Mode=verify,TrustStoreArn=$TRUST_STORE_ARN,IgnoreClientCertificateExpiry=false"

# The name in the certificate: the load balancer does not check it. The application answers 403
# unless the header X-Amzn-Mtls-Clientcert-Subject is exactly
#   CN={common_name}
# and it must be reachable through the load balancer only.
"#
    );
    let steps = vec![
        format!("Write trust_anchor_pem to the file {anchor}."),
        "Set BUCKET and LISTENER_ARN and run the commands of configuration.".to_owned(),
        format!(
            "In the application, answer 403 unless X-Amzn-Mtls-Clientcert-Subject is \
             CN={common_name}."
        ),
        TRY_IT.to_owned(),
    ];
    (text, steps)
}
