//! Apache HTTP Server around the product's text.

use std::process::Command;

use super::Place;
use crate::tools;

const MODULES: [&str; 5] = ["mpm_event", "authz_core", "proxy", "proxy_http", "ssl"];

pub(super) fn command(place: &Place<'_>) -> Command {
    let setup = place.setup;
    let text = place
        .fitted()
        .replace("*:443", &format!("127.0.0.1:{}", place.port))
        .replace(
            "127.0.0.1:8080",
            &format!("127.0.0.1:{}", setup.application),
        )
        .replace_if(setup.tls12_only, " +TLSv1.3", "")
        .replace_if(setup.revocation_list.is_some(), "# SSLCA", "SSLCA")
        .replace_if(
            !setup.asks,
            "SSLVerifyClient require",
            "SSLVerifyClient none",
        )
        .without_if(!setup.asks, "<Location", "</Location>");
    let folder = place.folder.display();
    let modules: String = MODULES
        .iter()
        .map(|name| {
            let file = tools::apache_modules().join(format!("mod_{name}.so"));
            format!("LoadModule {name}_module {}\n", file.display())
        })
        .collect();
    // As root it hands its work to another user, who needs none of its files.
    let user = if rustix::process::getuid().is_root() {
        "User www-data\nGroup www-data\n"
    } else {
        ""
    };
    let main = format!(
        "ServerRoot {folder}
ServerName localhost
DefaultRuntimeDir {folder}
PidFile {folder}/apache.pid
ErrorLog /dev/stderr
Mutex pthread
Listen 127.0.0.1:{}
{modules}{user}StartServers 1
{}",
        place.port, text.0
    );
    let mut command = Command::new(tools::apache());
    command.arg("-DFOREGROUND").arg("-f");
    command.arg(place.write("apache.conf", &main));
    command
}
