//! Envoy with the product's text, which is a whole configuration.

use std::process::Command;

use super::Place;
use crate::tools;

pub(super) fn command(place: &Place<'_>) -> Command {
    let setup = place.setup;
    let here = |port: u16| format!("address: 127.0.0.1, port_value: {port} ");
    let text = place
        .fitted()
        .replace("address: 0.0.0.0, port_value: 443 ", &here(place.port))
        .replace(
            "address: 127.0.0.1, port_value: 8080 ",
            &here(setup.application),
        )
        .replace_if(
            setup.tls12_only,
            "tls_maximum_protocol_version: TLSv1_3",
            "tls_maximum_protocol_version: TLSv1_2",
        )
        .replace_if(setup.revocation_list.is_some(), "# crl:", "crl:")
        .without_if(
            !setup.asks,
            "require_client_certificate",
            "require_client_certificate",
        )
        .without_if(!setup.asks, "validation_context:", "# crl:")
        .without_if(!setup.asks, "name: envoy.filters.http.rbac", "principals:");
    let mut command = Command::new(tools::envoy());
    command.args(["--disable-hot-restart", "--concurrency", "1"]);
    command.args(["--log-level", "warning", "--config-path"]);
    command.arg(place.write("envoy.yaml", &text.0));
    command
}
