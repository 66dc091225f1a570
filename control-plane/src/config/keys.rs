//! Settings of keys that are in files or in tokens.

use countersign_shared::config::Reader;

use crate::model::{KekSource, TokenKey};

/// The settings of a key in a token.
const ROOT_TOKEN: [&str; 4] = [
    "certificates.root_token.module",
    "certificates.root_token.token",
    "certificates.root_token.key",
    "certificates.root_token.pin_file",
];

/// The settings of a KEK in a token.
const KEK_TOKEN: [&str; 4] = [
    "kek.token.module",
    "kek.token.token",
    "kek.token.key",
    "kek.token.pin_file",
];

/// The settings of the KEK before, in a token.
const PREVIOUS_KEK_TOKEN: [&str; 4] = [
    "kek.previous.token.module",
    "kek.previous.token.token",
    "kek.previous.token.key",
    "kek.previous.token.pin_file",
];

/// Where the KEK before is, while it is being replaced.
pub(super) fn kek_before(reader: &mut Reader, kek: Option<&KekSource>) -> Option<KekSource> {
    const SETTING: &str = "kek.previous.file";
    let before = source(reader, SETTING, PREVIOUS_KEK_TOKEN);
    if before.is_some() && before.as_ref() == kek {
        reader.mistake(SETTING, "is the same as the present KEK");
    }
    before
}

/// Where the KEK is; `None`: at the default place.
pub(super) fn kek(reader: &mut Reader) -> Option<KekSource> {
    source(reader, "kek.file", KEK_TOKEN)
}

/// Where the internal root's key is, if it is in a token.
pub(super) fn root_token(reader: &mut Reader) -> Option<TokenKey> {
    token_key(reader, ROOT_TOKEN)
}

fn source(
    reader: &mut Reader,
    setting: &'static str,
    token: [&'static str; 4],
) -> Option<KekSource> {
    let file = reader.path(setting).map(KekSource::File);
    let token = token_key(reader, token).map(KekSource::Token);
    if file.is_some() && token.is_some() {
        let problem = "must not be given together with a token: the key is in one place";
        reader.mistake(setting, problem);
    }
    file.or(token)
}

/// A key in a token: all of its settings or none.
fn token_key(
    reader: &mut Reader,
    [module, token, key, pin_file]: [&'static str; 4],
) -> Option<TokenKey> {
    let given = (
        reader.path(module),
        reader.text(token),
        reader.text(key),
        reader.path(pin_file),
    );
    if let (None, None, None, None) = given {
        return None;
    }
    let module = reader.required(module, given.0);
    let token = reader.required(token, given.1);
    let key = reader.required(key, given.2);
    let pin_file = reader.required(pin_file, given.3);
    Some(TokenKey {
        module: module?,
        token: token?,
        key: key?,
        pin_file: pin_file?,
    })
}
