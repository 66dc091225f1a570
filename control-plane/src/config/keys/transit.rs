//! Settings of a key in the transit engine of HashiCorp Vault or OpenBao.

use countersign_shared::config::Reader;

use super::service_url;
use crate::model::{TransitKey, TransitLogin};

/// Where Kubernetes puts a service account's token.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// What the settings are called.
pub(super) struct Names {
    pub(super) address: &'static str,
    pub(super) ca_file: &'static str,
    pub(super) namespace: &'static str,
    pub(super) mount: &'static str,
    pub(super) key: &'static str,
    pub(super) token_file: &'static str,
    /// Mount, role id, file with the secret id.
    pub(super) approle: [&'static str; 3],
    /// Mount, role, file with the token.
    pub(super) kubernetes: [&'static str; 3],
}

/// The key, if any of its settings is there.
pub(super) fn key(reader: &mut Reader, names: &Names) -> Option<TransitKey> {
    let before = reader.mistakes();
    let address = service_url(reader, names.address);
    let ca_file = reader.path(names.ca_file);
    let namespace = path(reader, names.namespace);
    let mount = path(reader, names.mount);
    let key = segment(reader, names.key);
    let login = login(reader, names);
    let nothing = address.is_none()
        && ca_file.is_none()
        && namespace.is_none()
        && mount.is_none()
        && key.is_none()
        && login.is_none();
    if nothing && reader.mistakes() == before {
        return None;
    }
    let address = reader.required(names.address, address);
    let key = reader.required(names.key, key);
    if login.is_none() && reader.mistakes() == before {
        let table = names.address.trim_end_matches(".address");
        reader.mistake(
            table,
            "needs a way to log in: token_file, approle or kubernetes",
        );
    }
    Some(TransitKey {
        address: address?,
        ca_file,
        namespace,
        mount: mount.unwrap_or_else(|| "transit".to_owned()),
        key: key?,
        login: login?,
    })
}

fn login(reader: &mut Reader, names: &Names) -> Option<TransitLogin> {
    let ways = [
        reader.path(names.token_file).map(TransitLogin::TokenFile),
        approle(reader, names.approle),
        kubernetes(reader, names.kubernetes),
    ];
    let mut ways = ways.into_iter().flatten();
    let first = ways.next();
    if first.is_some() && ways.next().is_some() {
        let table = names.address.trim_end_matches(".address");
        reader.mistake(table, "says two ways to log in: leave one of them");
    }
    first
}

fn approle(
    reader: &mut Reader,
    [mount, role_id, secret_id]: [&'static str; 3],
) -> Option<TransitLogin> {
    let (place, id, file) = (
        path(reader, mount),
        reader.text(role_id),
        reader.path(secret_id),
    );
    if place.is_none() && id.is_none() && file.is_none() {
        return None;
    }
    let (id, file) = (
        reader.required(role_id, id),
        reader.required(secret_id, file),
    );
    Some(TransitLogin::AppRole {
        mount: place.unwrap_or_else(|| "approle".to_owned()),
        role_id: id?,
        secret_id_file: file?,
    })
}

fn kubernetes(
    reader: &mut Reader,
    [mount, role, token]: [&'static str; 3],
) -> Option<TransitLogin> {
    let (place, name, file) = (path(reader, mount), reader.text(role), reader.path(token));
    if place.is_none() && name.is_none() && file.is_none() {
        return None;
    }
    let name = reader.required(role, name);
    Some(TransitLogin::Kubernetes {
        mount: place.unwrap_or_else(|| "kubernetes".to_owned()),
        role: name?,
        token_file: file.unwrap_or_else(|| SERVICE_ACCOUNT.into()),
    })
}

/// One or several segments.
fn path(reader: &mut Reader, setting: &'static str) -> Option<String> {
    let text = reader.text(setting)?;
    if text.split('/').all(is_segment) {
        return Some(text);
    }
    let problem =
        format!("'{text}' is not a path: use letters, digits, '-', '_', '.' and '/' between");
    reader.mistake(setting, problem);
    None
}

fn segment(reader: &mut Reader, setting: &'static str) -> Option<String> {
    let text = reader.text(setting)?;
    if is_segment(&text) {
        return Some(text);
    }
    let problem = format!("'{text}' is not a name: use letters, digits, '-', '_' and '.'");
    reader.mistake(setting, problem);
    None
}

/// What becomes part of a URL's path as it is.
fn is_segment(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=128).contains(&text.len()) && text.bytes().all(allowed) && text != "." && text != ".."
}
