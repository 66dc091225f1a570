//! Envoy: checks the URI in the subject alternative name, which names the destination. The check is
//! made by the RBAC filter, which answers 403, and not in the handshake, where a name that differs
//! would look like a certificate that is not trusted.

use super::{TRY_IT, Values};

pub(super) fn configuration(values: &Values) -> (String, Vec<String>) {
    let head = values.head();
    let (anchor, crl) = (values.anchor_file(), values.crl_file());
    let lists = &values.revocation_lists_path;
    let uri = &values.uri;
    let listener = format!("countersign-{}-{}", values.account, values.destination);
    let text = format!(
        r#"{head}
static_resources:
  listeners:
  - name: {listener}
    address:
      socket_address: {{ address: 0.0.0.0, port_value: 443 }}  # CHANGE
    filter_chains:
    - transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          # A client certificate is required, and this account's authority alone is trusted.
          require_client_certificate: true
          common_tls_context:
            alpn_protocols: [h2, http/1.1]
            tls_params:
              tls_minimum_protocol_version: TLSv1_2
              tls_maximum_protocol_version: TLSv1_3
            tls_certificates:
            - certificate_chain: {{ filename: /etc/ssl/receiver/server.pem }}  # CHANGE
              private_key: {{ filename: /etc/ssl/receiver/server.key }}        # CHANGE
            validation_context:
              trusted_ca: {{ filename: {anchor} }}
              # 2: a later generation's certificate comes with one more between it and the anchor.
              max_verify_depth: 2
              # Revocation: write the lists of all generations ({lists}) to this file and remove the #.
              # crl: {{ filename: {crl} }}
      filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: {listener}
          http_filters:
          # The name in the certificate. Others get 403.
          - name: envoy.filters.http.rbac
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC
              rules:
                action: ALLOW
                policies:
                  countersign:
                    permissions: [{{ any: true }}]
                    principals: [{{ authenticated: {{ principal_name: {{ exact: "{uri}" }} }} }}]
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
          route_config:
            virtual_hosts:
            - name: {listener}
              domains: ["*"]
              routes:
              - match: {{ prefix: / }}
                route: {{ cluster: {listener} }}
  clusters:
  - name: {listener}
    connect_timeout: 5s
    load_assignment:
      cluster_name: {listener}
      endpoints:
      - lb_endpoints:
        - endpoint:
            address:
              socket_address: {{ address: 127.0.0.1, port_value: 8080 }}  # CHANGE
"#
    );
    let steps = vec![
        values.install_anchor(),
        "Write configuration to /etc/envoy/envoy.yaml, or add its listener and cluster to yours, \
         and fit the lines marked CHANGE."
            .to_owned(),
        "Run: envoy --mode validate -c /etc/envoy/envoy.yaml, then restart Envoy.".to_owned(),
        TRY_IT.to_owned(),
    ];
    (text, steps)
}
