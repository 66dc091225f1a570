//! SoftHSM for tests. Its library reads where its tokens are from the environment, which a test must
//! not change for the others: so each case runs in a process of its own, this very program again.

use std::{fs, path::Path, process::Command};

use countersign_shared::files;
use cryptoki::{
    context::Pkcs11, mechanism::Mechanism, object::Attribute, session::UserType, types::AuthPin,
};

use super::token::{AES_BYTES, load};
use crate::model::{TokenKey, TokenPlace};

const FOLDER: &str = "COUNTERSIGN_TESTS_TOKEN_FOLDER";
const TOKEN: &str = "bank";
const PIN: &str = "a pin of sorts";
/// Where Debian has it.
const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
/// The DER of P-256's object identifier, 1.2.840.10045.3.1.7 (RFC 5480 section 2.1.1.1).
const P256: [u8; 10] = [6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];

/// Runs `case`, which is the test of this path, with tokens of its own: the first time in a new process,
/// which comes here again.
pub(crate) fn in_a_process_of_its_own(path: &str, case: impl Future<Output = ()>) {
    if std::env::var_os(FOLDER).is_some() {
        return tokio::runtime::Runtime::new().unwrap().block_on(case);
    }
    assert!(
        Path::new(MODULE).exists(),
        "{MODULE} is missing: tests/run installs it (Debian's softhsm2)"
    );
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens");
    fs::create_dir(&tokens).unwrap();
    let conf = folder.path().join("softhsm2.conf");
    let text = format!(
        "directories.tokendir = {}\nlog.level = ERROR\n",
        tokens.display()
    );
    fs::write(&conf, text).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", path, "--nocapture"])
        .env("SOFTHSM2_CONF", &conf)
        .env(FOLDER, folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let wrong = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{wrong}");
    assert!(said.contains("1 passed"), "no such test: {said}");
}

/// A key of this label in the token that [`make_token`] makes.
pub(crate) fn settings(key: &str) -> TokenKey {
    let folder = std::env::var(FOLDER).unwrap();
    let pin_file = Path::new(&folder).join("pin");
    files::replace_private(&pin_file, format!("{PIN}\n").as_bytes()).unwrap();
    let place = TokenPlace {
        module: MODULE.into(),
        token: TOKEN.into(),
        pin_file,
    };
    TokenKey {
        place,
        key: key.into(),
    }
}

/// A token with AES keys of these labels, of which extractable ones may leave it, and EC keys.
pub(crate) fn make_token(aes: &[(&str, bool)], ec: &[&str]) -> Pkcs11 {
    let module = load(&settings("any").place).unwrap();
    let slot = module.get_all_slots().unwrap()[0];
    let officer = AuthPin::new("officer".into());
    module.init_token(slot, &officer, TOKEN).unwrap();
    let slot = module.get_slots_with_initialized_token().unwrap()[0];
    let session = module.open_rw_session(slot).unwrap();
    session.login(UserType::So, Some(&officer)).unwrap();
    let pin = AuthPin::new(PIN.into());
    session.init_pin(&pin).unwrap();
    session.logout().unwrap();
    session.login(UserType::User, Some(&pin)).unwrap();
    let kept = |label: &str, extractable| {
        vec![
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(extractable),
            Attribute::Label(label.as_bytes().to_vec()),
        ]
    };
    for (label, extractable) in aes {
        let mut template = kept(label, *extractable);
        template.push(Attribute::Encrypt(true));
        template.push(Attribute::Decrypt(true));
        template.push(Attribute::ValueLen(AES_BYTES.into()));
        let made = session.generate_key(&Mechanism::AesKeyGen, &template);
        made.unwrap();
    }
    for label in ec {
        let mut private = kept(label, false);
        private.push(Attribute::Sign(true));
        let public = [
            Attribute::Token(true),
            Attribute::Label(label.as_bytes().to_vec()),
            Attribute::Verify(true),
            Attribute::EcParams(P256.to_vec()),
        ];
        let made = session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private);
        made.unwrap();
    }
    session.logout().unwrap();
    module
}

/// Ends the login of the whole process, as a token that restarts does.
pub(crate) fn log_out(module: &Pkcs11) {
    let slot = module.get_slots_with_initialized_token().unwrap()[0];
    module.open_ro_session(slot).unwrap().logout().unwrap();
}
