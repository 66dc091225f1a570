//! Caddy around the product's text.

use std::process::Command;

use super::Place;
use crate::tools;

pub(super) fn command(place: &Place<'_>) -> Command {
    let setup = place.setup;
    let text = place
        .fitted()
        .replace("https://:443", &format!("https://:{}", place.port))
        .replace(
            "127.0.0.1:8080",
            &format!("127.0.0.1:{}", setup.application),
        )
        .replace_if(setup.tls12_only, "tls1.2 tls1.3", "tls1.2 tls1.2")
        .without_if(!setup.asks, "client_auth {", "}")
        .without_if(!setup.asks, "@stranger not", "respond @stranger");
    let main = format!(
        "{{\n\tadmin off\n\tauto_https off\n\tpersist_config off\n\tdefault_bind 127.0.0.1\n}}\n{}",
        text.0
    );
    let mut command = Command::new(tools::caddy());
    command.args(["run", "--adapter", "caddyfile", "--config"]);
    command.arg(place.write("Caddyfile", &main));
    // What it keeps goes to the test's folder.
    for variable in ["HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"] {
        command.env(variable, place.folder);
    }
    command
}
