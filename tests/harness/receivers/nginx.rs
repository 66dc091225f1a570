//! nginx around the product's text.

use std::process::Command;

use super::Place;
use crate::tools;

pub(super) fn command(place: &Place<'_>) -> Command {
    let setup = place.setup;
    let text = place
        .fitted()
        .replace(
            "listen 443 ssl",
            &format!("listen 127.0.0.1:{} ssl", place.port),
        )
        .replace(
            "127.0.0.1:8080",
            &format!("127.0.0.1:{}", setup.application),
        )
        .replace_if(setup.tls12_only, "TLSv1.2 TLSv1.3", "TLSv1.2")
        .replace_if(setup.revocation_list.is_some(), "# ssl_crl", "ssl_crl")
        .replace_if(!setup.asks, "ssl_verify_client on", "ssl_verify_client off")
        .without_if(!setup.asks, "$ssl_client_s_dn", "}");
    let folder = place.folder.display();
    // As root, nginx would hand its work to a user who may not enter the test's folder.
    let user = if rustix::process::getuid().is_root() {
        "user root;"
    } else {
        ""
    };
    let main = format!(
        "daemon off;
worker_processes 1;
{user}
pid {folder}/nginx.pid;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/client_body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{}
}}
",
        text.0
    );
    let mut command = Command::new(tools::nginx());
    command.arg("-c").arg(place.write("nginx.conf", &main));
    command.arg("-p").arg(place.folder).args(["-e", "stderr"]);
    command
}
