//! The key-encryption key in a token (PKCS #11): a secret that never leaves it, from which each epoch's key is derived.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, bail};
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;
use trust::{Kek, KekSource, SourceError};

use super::{NEXT, file};
use crate::keys;

/// What the token signs: the epoch's key is HMAC-SHA256 over it, with a secret that the token does not give away.
const LABEL_OF_KEK: &[u8] = b"auscult/kek/pkcs11/v1";
/// Length of the secret in the token, in bytes.
const SECRET_LEN: u64 = 32;
/// Longest file with a PIN, in bytes.
const PIN_LIMIT_BYTES: u64 = 256;

/// Where a token is and how it is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The library of the token's maker.
    pub module: PathBuf,
    /// The token's label.
    pub token: String,
    /// The label of the secret in it.
    pub label: String,
    /// A file that only its owner may read, with the PIN.
    pub pin_file: PathBuf,
}

/// A token that is open.
pub struct TokenSource {
    token: Token,
    /// Held so that the library stays loaded.
    _library: Pkcs11,
    session: Mutex<Session>,
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenSource({:?})", self.token)
    }
}

impl TokenSource {
    /// Loads the library, finds the token, and signs in to it.
    ///
    /// # Errors
    /// What failed, and where.
    pub fn open(token: Token) -> anyhow::Result<Self> {
        let shown = token.module.display();
        let library = Pkcs11::new(&token.module)
            .with_context(|| format!("key.pkcs11_module {shown} cannot be loaded"))?;
        match library.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
            Err(error) => return Err(error).with_context(|| format!("{shown} cannot be used")),
        }
        let slots = library.get_slots_with_token().with_context(|| format!("{shown} lists no tokens"))?;
        let named =
            |slot: &_| library.get_token_info(*slot).is_ok_and(|info| info.label().trim() == token.token);
        let Some(slot) = slots.into_iter().find(named) else {
            bail!(
                "there is no token \"{}\" (key.pkcs11_token) behind {shown}; is it plugged in?",
                token.token
            )
        };
        keys::check_mode(&token.pin_file, "PIN file")?;
        let length = std::fs::metadata(&token.pin_file)?.len();
        if length > PIN_LIMIT_BYTES {
            bail!("{} has {length} bytes, which is no PIN", token.pin_file.display());
        }
        let pin = std::fs::read_to_string(&token.pin_file)
            .with_context(|| format!("{} cannot be read", token.pin_file.display()))?;
        let session = library.open_rw_session(slot).context("the token gives no session")?;
        match session.login(UserType::User, Some(&AuthPin::new(pin.trim().to_owned().into()))) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {}
            Err(error) => {
                return Err(error).context("the token does not take the PIN of key.pkcs11_pin_file");
            }
        }
        Ok(TokenSource { token, _library: library, session: Mutex::new(session) })
    }

    fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, doing: &str) -> impl Fn(Error) -> SourceError + use<> {
        let what = format!("the token \"{}\" failed while {doing}", self.token.token);
        move |error| file::failed(what.clone(), error)
    }

    fn label(&self, ending: &str) -> String {
        if ending.is_empty() { self.token.label.clone() } else { format!("{}.{ending}", self.token.label) }
    }

    fn find(&self, session: &Session, ending: &str) -> Result<Option<ObjectHandle>, SourceError> {
        let label = self.label(ending).into_bytes();
        let found = session
            .find_objects(&[Attribute::Class(ObjectClass::SECRET_KEY), Attribute::Label(label)])
            .map_err(self.failed("looking for its secret"))?;
        match found[..] {
            [] => Ok(None),
            [one] => Ok(Some(one)),
            _ => Err(SourceError::failed(format!(
                "the token \"{}\" has {} secrets of the label \"{}\"; there must be one",
                self.token.token,
                found.len(),
                self.label(ending)
            ))),
        }
    }

    fn make(&self, session: &Session, ending: &str) -> Result<ObjectHandle, SourceError> {
        let template = [
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(KeyType::GENERIC_SECRET),
            Attribute::Label(self.label(ending).into_bytes()),
            Attribute::ValueLen(SECRET_LEN.into()),
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Sign(true),
        ];
        session
            .generate_key(&Mechanism::GenericSecretKeyGen, &template)
            .map_err(self.failed("making a secret"))
    }

    fn kek(&self, session: &Session, secret: ObjectHandle) -> Result<Kek, SourceError> {
        let mut mac = session
            .sign(&Mechanism::Sha256Hmac, secret, LABEL_OF_KEK)
            .map_err(self.failed("deriving the key-encryption key"))?;
        let kek = <&[u8; 32]>::try_from(&mac[..]).map(Kek::from_bytes);
        let kek =
            kek.map_err(|_| SourceError::failed("the token's HMAC-SHA256 has another length than 32 bytes"));
        mac.fill(0);
        kek
    }
}

impl KekSource for TokenSource {
    fn kind(&self) -> &'static str {
        "pkcs11"
    }

    fn place(&self) -> String {
        format!("token {}, secret {}", self.token.token, self.token.label)
    }

    fn current(&self) -> Result<Kek, SourceError> {
        let session = self.session();
        // Where a promotion was broken off in the middle, the next secret is the only one.
        let secret = match self.find(&session, "")? {
            Some(secret) => Some(secret),
            None => self.find(&session, NEXT)?,
        };
        let Some(secret) = secret else {
            return Err(SourceError::failed(format!(
                "the token \"{}\" has no secret \"{}\"; make it with `auscult keys provider --make`",
                self.token.token, self.token.label
            )));
        };
        self.kek(&session, secret)
    }

    fn next(&self) -> Result<Option<Kek>, SourceError> {
        let session = self.session();
        if self.find(&session, "")?.is_none() {
            return Ok(None);
        }
        let secret = self.find(&session, NEXT)?;
        secret.map(|secret| self.kek(&session, secret)).transpose()
    }

    fn make_next(&self) -> Result<Kek, SourceError> {
        let session = self.session();
        // The first one of all takes the plain label.
        let ending = if self.find(&session, "")?.is_some() { NEXT } else { "" };
        let secret = match self.find(&session, ending)? {
            Some(secret) => secret,
            None => self.make(&session, ending)?,
        };
        self.kek(&session, secret)
    }

    fn promote(&self) -> Result<(), SourceError> {
        let session = self.session();
        let Some(next) = self.find(&session, NEXT)? else { return Ok(()) };
        if let Some(current) = self.find(&session, "")? {
            session.destroy_object(current).map_err(self.failed("destroying the secret before"))?;
        }
        session
            .update_attributes(next, &[Attribute::Label(self.label("").into_bytes())])
            .map_err(self.failed("renaming the secret"))
    }
}
