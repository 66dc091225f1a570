//! HAProxy around the product's text.

use std::process::Command;

use super::Place;
use crate::tools;

pub(super) fn command(place: &Place<'_>) -> Command {
    let setup = place.setup;
    let asking = format!("verify required ca-file {}", place.file("acme-ca.pem"));
    let with_list = format!("{asking} crl-file {}", place.file("acme-crl.pem"));
    let text = place
        .fitted()
        .replace("bind :443", &format!("bind 127.0.0.1:{}", place.port))
        .replace(
            "127.0.0.1:8080",
            &format!("127.0.0.1:{}", setup.application),
        )
        .replace_if(
            setup.tls12_only,
            "ssl-min-ver TLSv1.2",
            "ssl-min-ver TLSv1.2 ssl-max-ver TLSv1.2",
        )
        .replace_if(setup.revocation_list.is_some(), &asking, &with_list)
        .replace_if(!setup.asks, &asking, "")
        .without_if(!setup.asks, "ssl_c_s_dn", "ssl_c_s_dn");
    let main = format!("global\n    maxconn 64\n{}", text.0);
    let mut command = Command::new(tools::haproxy());
    command.arg("-db").arg("-f");
    command.arg(place.write("haproxy.cfg", &main));
    command
}
