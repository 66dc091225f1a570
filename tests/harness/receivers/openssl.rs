//! `openssl s_server`: the TLS of most receivers without any server around it. It sends every line
//! back in reverse, so that an accepted certificate shows as an answer that is not HTTP.

use std::process::Command;

use super::Place;
use crate::tools;

pub(super) fn command(place: &Place<'_>) -> Command {
    let setup = place.setup;
    let mut command = Command::new(tools::openssl());
    let accept = format!("127.0.0.1:{}", place.port);
    command.args(["s_server", "-rev", "-accept", &accept]);
    command.args(["-cert", &place.file("server.pem")]);
    command.args(["-key", &place.file("server.key")]);
    if setup.asks {
        command.args(["-Verify", "2", "-verify_return_error"]);
        command.args(["-CAfile", &place.file("acme-ca.pem")]);
    }
    if setup.tls12_only {
        command.arg("-tls1_2");
    }
    if setup.revocation_list.is_some() {
        command.args(["-crl_check", "-CRL", &place.file("acme-crl.pem")]);
    }
    command
}
