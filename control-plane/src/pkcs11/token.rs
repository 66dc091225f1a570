//! A token and one key in it. Calls block and come one at a time. A session that the module ended is
//! opened again once, before a call counts as failed.

use std::{
    cell::RefCell,
    collections::HashMap,
    fmt,
    sync::{Mutex, PoisonError},
};

use countersign_shared::{
    files,
    secret::{SecretBytes, SecretText},
};
use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Function, Pkcs11},
    error::{Error, RvError},
    object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle},
    session::{Session, UserType},
    slot::Slot,
    types::AuthPin,
};

use super::TokenError;
use crate::model::{TokenKey, TokenPlace};

/// Bytes of an AES key.
pub(super) const AES_BYTES: u64 = 32;

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An AES-256 key that encrypts.
    Aes,
    /// The private half of an EC key pair; the public half has the same label.
    Ec,
    /// EC key pairs that are made there: [`super::TokenKeys`] finds them.
    Many,
}

/// A token, the session while there is one, and a key in it.
pub struct Token {
    settings: TokenKey,
    kind: Kind,
    module: Pkcs11,
    open: Mutex<Option<Open>>,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// A session that is logged in, and the key in it.
pub struct Open {
    /// The session.
    pub(crate) session: Session,
    key: Option<ObjectHandle>,
    /// Which key that is: the token's serial number, the key's CKA_ID and its label.
    pub(crate) identity: Vec<u8>,
    /// Private keys that were found by their points.
    pub(super) found: RefCell<HashMap<Vec<u8>, ObjectHandle>>,
}

impl Open {
    /// The key.
    ///
    /// # Errors
    /// When none was looked for, which is [`Kind::Many`].
    pub(crate) fn key(&self) -> Result<ObjectHandle, Error> {
        let none = Error::Pkcs11(RvError::KeyHandleInvalid, Function::FindObjects);
        self.key.ok_or(none)
    }
}

impl Token {
    /// Opens the module, logs in and finds the key. Blocks.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn open(settings: TokenKey, kind: Kind) -> Result<Self, TokenError> {
        let token = Self {
            module: load(&settings.place)?,
            open: Mutex::new(None),
            settings,
            kind,
        };
        token.with(|_| Ok(()))?;
        Ok(token)
    }

    /// Makes a call in a session. If the session is over, the call is made again in a new one. Blocks.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn with<T>(
        &self,
        mut call: impl FnMut(&Open) -> Result<T, Error>,
    ) -> Result<T, TokenError> {
        // A session that a panic left behind is checked by its next call, like any other.
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = open.as_ref() {
            match call(before) {
                Err(error) if is_over(&error) => {
                    let reason = short(&error);
                    tracing::warn!(
                        reason,
                        "the session with the token is over; opening another"
                    );
                    *open = None;
                }
                result => return result.map_err(|error| self.failed(&error)),
            }
        }
        let opened = self.connect()?;
        let result = call(&opened);
        *open = Some(opened);
        result.map_err(|error| self.failed(&error))
    }

    fn connect(&self) -> Result<Open, TokenError> {
        let settings = &self.settings;
        let failed = |error: Error| self.failed(&error);
        let (slot, serial) = self.slot()?;
        let session = match self.kind {
            Kind::Aes | Kind::Ec => self.module.open_ro_session(slot),
            Kind::Many => self.module.open_rw_session(slot),
        };
        let session = session.map_err(failed)?;
        let pin = pin(&settings.place)?;
        match session.login(UserType::User, Some(&pin)) {
            // The login is the process's, not the session's.
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {}
            Err(error) => return Err(self.failed(&error)),
        }
        let (class, key_type) = match self.kind {
            Kind::Aes => (ObjectClass::SECRET_KEY, KeyType::AES),
            Kind::Ec => (ObjectClass::PRIVATE_KEY, KeyType::EC),
            Kind::Many => {
                return Ok(Open {
                    session,
                    key: None,
                    identity: serial.into_bytes(),
                    found: RefCell::default(),
                });
            }
        };
        let wanted = [
            Attribute::Class(class),
            Attribute::KeyType(key_type),
            Attribute::Label(settings.key.as_bytes().to_vec()),
        ];
        let found = session.find_objects(&wanted).map_err(failed)?;
        let [key] = found[..] else {
            return Err(TokenError::Setup(self.not_one(found.len())));
        };
        let own_id = self.checked(&session, key)?;
        let identity = [serial.as_bytes(), &own_id, settings.key.as_bytes()].join(&0);
        Ok(Open {
            session,
            key: Some(key),
            identity,
            found: RefCell::default(),
        })
    }

    /// The token's label.
    pub(super) fn label(&self) -> &str {
        &self.settings.place.token
    }

    /// The slot with the token, and the token's serial number.
    fn slot(&self) -> Result<(Slot, String), TokenError> {
        let failed = |error: Error| self.failed(&error);
        let slots = self.module.get_slots_with_initialized_token();
        let mut labels = Vec::new();
        for slot in slots.map_err(failed)? {
            let token = self.module.get_token_info(slot).map_err(failed)?;
            if token.label() == self.settings.place.token {
                return Ok((slot, token.serial_number().to_owned()));
            }
            labels.push(token.label().to_owned());
        }
        Err(TokenError::Setup(format!(
            "the PKCS#11 module {} has no token '{}' (it has: {}): check the token's label, and that the \
             token is there",
            self.settings.place.module.display(),
            self.settings.place.token,
            labels.join(", "),
        )))
    }

    fn not_one(&self, count: usize) -> String {
        let TokenKey { place, key } = &self.settings;
        let TokenPlace { module, token, .. } = place;
        let (what, how) = match self.kind {
            Kind::Aes => ("AES key", "--keygen --key-type AES:32 --sensitive"),
            Kind::Ec | Kind::Many => (
                "private EC key",
                "--keypairgen --key-type EC:prime256v1 --sensitive --usage-sign",
            ),
        };
        if count > 1 {
            return format!(
                "the token '{token}' has {count} times a {what} with the label '{key}': give the right \
                 one a label of its own"
            );
        }
        format!(
            "the token '{token}' has no {what} with the label '{key}': check the key's label, or make it \
             with: pkcs11-tool --module {} --token-label {token} --login {how} --label {key}",
            module.display()
        )
    }

    /// The key's CKA_ID, if it is a key that may be used.
    fn checked(&self, session: &Session, key: ObjectHandle) -> Result<Vec<u8>, TokenError> {
        let mut asked = vec![AttributeType::Extractable, AttributeType::Id];
        if self.kind == Kind::Aes {
            asked.push(AttributeType::ValueLen);
        }
        let attributes = session.get_attributes(key, &asked);
        let (mut own_id, mut fits) = (Vec::new(), true);
        for attribute in attributes.map_err(|error| self.failed(&error))? {
            match attribute {
                Attribute::Extractable(extractable) => fits &= !extractable,
                Attribute::ValueLen(bytes) => fits &= bytes == AES_BYTES.into(),
                Attribute::Id(id) => own_id = id,
                _ => {}
            }
        }
        if fits {
            return Ok(own_id);
        }
        let kind = match self.kind {
            Kind::Aes => "an AES-256 key",
            Kind::Ec | Kind::Many => "a private key",
        };
        Err(TokenError::Setup(format!(
            "the key '{}' in the token '{}' is not {kind} that stays in the token: make one with \
             CKA_EXTRACTABLE false",
            self.settings.key, self.settings.place.token
        )))
    }

    fn failed(&self, error: &Error) -> TokenError {
        use RvError as Code;
        let token = &self.settings.place.token;
        let setup = match error {
            Error::Pkcs11(Code::PinIncorrect | Code::PinLenRange | Code::PinInvalid, _) => {
                "refuses the PIN: check the PIN file before the token locks the PIN"
            }
            Error::Pkcs11(Code::PinLocked, _) => {
                "has locked the PIN after wrong ones: its security officer unlocks it"
            }
            Error::Pkcs11(Code::MechanismInvalid, _) => match self.kind {
                Kind::Aes => "has no AES-GCM (CKM_AES_GCM): use one that has",
                Kind::Ec => "has no ECDSA (CKM_ECDSA): use one that has",
                Kind::Many => {
                    "has no ECDSA (CKM_ECDSA), or makes no EC keys (CKM_EC_KEY_PAIR_GEN): use one that does"
                }
            },
            _ => {
                return TokenError::Failed(format!(
                    "the token '{token}' did not do what it should ({}): check that it is there and in \
                     order",
                    short(error)
                ));
            }
        };
        TokenError::Setup(format!("the token '{token}' {setup}"))
    }
}

/// The module's own text for a code is half a page: the code says enough.
fn short(error: &Error) -> String {
    match error {
        Error::Pkcs11(code, function) => format!("{function:?} answers {code:?}"),
        other => other.to_string(),
    }
}

/// Whether another session may do better.
fn is_over(error: &Error) -> bool {
    use RvError as Code;
    matches!(
        error,
        Error::Pkcs11(
            Code::SessionHandleInvalid
                | Code::SessionClosed
                | Code::UserNotLoggedIn
                | Code::KeyHandleInvalid
                | Code::ObjectHandleInvalid
                | Code::DeviceRemoved
                | Code::DeviceError
                | Code::TokenNotPresent,
            _
        )
    )
}

pub(super) fn load(place: &TokenPlace) -> Result<Pkcs11, TokenError> {
    let failed = |error: Error| {
        TokenError::Setup(format!(
            "the PKCS#11 module {} does not load ({}): check its path",
            place.module.display(),
            short(&error)
        ))
    };
    let module = Pkcs11::new(&place.module).map_err(failed)?;
    match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        // A module is initialized once for a process.
        Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok(module),
        Err(error) => Err(failed(error)),
    }
}

fn pin(place: &TokenPlace) -> Result<AuthPin, TokenError> {
    let path = &place.pin_file;
    let refused =
        |error: String| TokenError::Setup(format!("the PIN in {}: {error}", path.display()));
    let content = files::read_private(path).map_err(|error| refused(error.to_string()))?;
    let content = SecretBytes::from(content);
    let text = std::str::from_utf8(content.expose());
    let text = text.map_err(|_| refused("it is not text".to_owned()))?;
    let pin = SecretText::from(text.trim_end_matches(['\r', '\n']).to_owned());
    if pin.expose().is_empty() {
        return Err(refused("the file is empty".to_owned()));
    }
    Ok(AuthPin::new(pin.expose().into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pkcs11::testing::{in_a_process_of_its_own, make_token, settings};

    fn refused(settings: TokenKey, kind: Kind) -> String {
        Token::open(settings, kind).unwrap_err().to_string()
    }

    #[test]
    fn what_is_wrong_is_said_with_what_to_do() {
        in_a_process_of_its_own(
            "pkcs11::token::tests::what_is_wrong_is_said_with_what_to_do",
            refuses(),
        );
    }

    async fn refuses() {
        let keys = [
            ("kek", false),
            ("loose", true),
            ("twin", false),
            ("twin", false),
        ];
        let _module = make_token(&keys, &[]);
        let missing = refused(settings("none"), Kind::Aes);
        assert!(missing.contains("--keygen --key-type AES:32"), "{missing}");
        let no_pair = refused(settings("kek"), Kind::Ec);
        assert!(no_pair.contains("--keypairgen"), "{no_pair}");
        let twins = refused(settings("twin"), Kind::Aes);
        assert!(twins.contains("has 2 times"), "{twins}");
        let loose = refused(settings("loose"), Kind::Aes);
        assert!(loose.contains("CKA_EXTRACTABLE false"), "{loose}");
        let mut elsewhere = settings("kek");
        elsewhere.place.token = "vault".into();
        let elsewhere = refused(elsewhere, Kind::Aes);
        assert!(elsewhere.contains("(it has: bank)"), "{elsewhere}");
        let mut no_module = settings("kek");
        no_module.place.module = "/nowhere.so".into();
        let no_module = refused(no_module, Kind::Aes);
        assert!(no_module.contains("check its path"), "{no_module}");

        let wrong = settings("kek");
        files::replace_private(&wrong.place.pin_file, b"hunter2").unwrap();
        let pin = refused(wrong.clone(), Kind::Aes);
        assert!(pin.contains("refuses the PIN"), "{pin}");
        assert!(!pin.contains("hunter2"), "{pin}");
        files::replace_private(&wrong.place.pin_file, b"\n").unwrap();
        let empty = refused(wrong, Kind::Aes);
        assert!(empty.contains("the file is empty"), "{empty}");
    }
}
