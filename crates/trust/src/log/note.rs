//! Signed notes (C2SP signed-note) and timestamped cosignatures (C2SP tlog-cosignature), with Ed25519.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::digest::Sha256;
use crate::encoding::{hex, unhex_into};
use crate::keyring::{Key, derive};

/// Longest note that is read, in bytes: a checkpoint with some dozens of signatures.
pub const NOTE_LIMIT_BYTES: usize = 64 * 1024;
/// Most signatures of a note that are looked at.
const SIGNATURES_LIMIT: usize = 64;
/// Length of an Ed25519 public key, in bytes.
const PUBLIC_LEN: usize = 32;
/// Length of an Ed25519 signature, in bytes.
const SIGNATURE_LEN: usize = 64;
/// Length of a key id, in bytes.
const ID_LEN: usize = 4;
/// What a signature line begins with: an em dash and a space.
const DASH: &str = "\u{2014} ";

/// What a key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// The text of a note (type 0x01).
    Log,
    /// A checkpoint that a witness saw, with the time (type 0x04).
    Witness,
}

impl KeyKind {
    const fn number(self) -> u8 {
        match self {
            KeyKind::Log => 0x01,
            KeyKind::Witness => 0x04,
        }
    }
}

/// Why a note or a key could not be read, or is not signed as it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// It is no note.
    #[error("it is no signed note: {what}")]
    Malformed {
        /// In what way.
        what: &'static str,
    },
    /// The text is no verifier key.
    #[error("it is no verifier key (name+id+key): {what}")]
    Key {
        /// In what way.
        what: &'static str,
    },
    /// No key that is known signed it.
    #[error("it carries no signature of {wanted}")]
    Unsigned {
        /// By whom it should be signed.
        wanted: String,
    },
    /// A known key's signature does not fit.
    #[error("the signature of {name} does not fit the text")]
    Forged {
        /// Name of the key.
        name: String,
    },
}

const fn malformed(what: &'static str) -> NoteError {
    NoteError::Malformed { what }
}

/// A public key with its name: who may have signed. Written as `name+id+key` (a vkey).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct VerifierKey {
    name: String,
    kind: KeyKind,
    public: [u8; PUBLIC_LEN],
}

impl VerifierKey {
    /// The name that stands before its signatures.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it signs.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The key id: the first four bytes of SHA-256(name ‖ newline ‖ type ‖ public key).
    pub fn id(&self) -> [u8; ID_LEN] {
        let mut digest = Sha256::new();
        digest.update(self.name.as_bytes());
        digest.update(&[b'\n', self.kind.number()]);
        digest.update(&self.public);
        let mut id = [0; ID_LEN];
        id.copy_from_slice(&digest.finish()[..ID_LEN]);
        id
    }

    /// The key id as eight hexadecimal digits.
    pub fn id_text(&self) -> String {
        hex(&self.id())
    }

    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.public).verify(message, signature).is_ok()
    }

    /// The public key as PEM (RFC 8410), for other tools.
    pub fn to_pem(&self) -> String {
        // SubjectPublicKeyInfo of Ed25519: this prefix, then the key.
        const PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
        let der = [&PREFIX[..], &self.public].concat();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der))
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let material = [&[self.kind.number()][..], &self.public].concat();
        write!(f, "{}+{}+{}", self.name, self.id_text(), STANDARD.encode(material))
    }
}

impl fmt::Debug for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifierKey({self})")
    }
}

impl FromStr for VerifierKey {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let wrong = |what| NoteError::Key { what };
        let mut parts = text.trim().splitn(3, '+');
        let (Some(name), Some(id), Some(material)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(wrong("it has not three parts"));
        };
        check_name(name).map_err(|_| wrong("the name is empty or has a space in it"))?;
        let material = STANDARD.decode(material).map_err(|_| wrong("the key is not base64"))?;
        let kind = match material.first() {
            Some(1) => KeyKind::Log,
            Some(4) => KeyKind::Witness,
            _ => return Err(wrong("the key is not of a type that is known here (Ed25519: 1 or 4)")),
        };
        let public = material[1..].try_into().map_err(|_| wrong("the key has another length"))?;
        let key = VerifierKey { name: name.to_owned(), kind, public };
        let mut stated = [0; ID_LEN];
        if unhex_into(id.as_bytes(), &mut stated).is_err() || stated != key.id() {
            return Err(wrong("the id is not that of the key"));
        }
        Ok(key)
    }
}

fn check_name(name: &str) -> Result<(), NoteError> {
    let is_sound =
        !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '+');
    if is_sound { Ok(()) } else { Err(malformed("a key's name is empty or has a space or plus in it")) }
}

/// A key that signs, with its name. `Debug` shows the public half only.
pub struct Signer {
    pair: Ed25519KeyPair,
    verifier: VerifierKey,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({})", self.verifier)
    }
}

impl Signer {
    /// The signing key derived from a kept key (Ed25519, the derived 32 bytes as seed of RFC 8032). The same key and
    /// kind always give the same signing key; the name is part of the key's id only.
    ///
    /// # Panics
    /// When the library takes no seed of 32 bytes, which it always does.
    pub fn derive(key: &Key, kind: KeyKind, name: &str) -> Self {
        let purpose = match kind {
            KeyKind::Log => "log/ed25519/v1",
            KeyKind::Witness => "witness/ed25519/v1",
        };
        let seed = derive(key, purpose);
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.bytes()).expect("a seed has 32 bytes");
        let mut public = [0; PUBLIC_LEN];
        public.copy_from_slice(pair.public_key().as_ref());
        // A name that no note could carry would make signatures that nobody can read.
        let name: String = name
            .chars()
            .map(|c| if c.is_whitespace() || c.is_control() || c == '+' { '-' } else { c })
            .collect();
        let name = if name.is_empty() { "-".to_owned() } else { name };
        Signer { pair, verifier: VerifierKey { name, kind, public } }
    }

    /// The public half.
    pub fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    fn line(&self, signature: &[u8]) -> String {
        let bytes = [&self.verifier.id()[..], signature].concat();
        format!("{DASH}{} {}\n", self.verifier.name, STANDARD.encode(bytes))
    }

    /// The signature line for a text; for a witness's key the cosignature at `at_s` (seconds since 1970).
    pub fn sign_line(&self, text: &str, at_s: u64) -> String {
        match self.verifier.kind {
            KeyKind::Log => self.line(self.pair.sign(text.as_bytes()).as_ref()),
            KeyKind::Witness => {
                let signature = self.pair.sign(cosigned(text, at_s).as_bytes());
                self.line(&[&at_s.to_be_bytes()[..], signature.as_ref()].concat())
            }
        }
    }

    /// Signs any bytes with this key, for statements that are no notes (a certificate of erasure).
    pub fn sign_bytes(&self, message: &[u8]) -> [u8; SIGNATURE_LEN] {
        let mut out = [0; SIGNATURE_LEN];
        out.copy_from_slice(self.pair.sign(message).as_ref());
        out
    }
}

/// What a witness signs.
fn cosigned(text: &str, at_s: u64) -> String {
    format!("cosignature/v1\ntime {at_s}\n{text}")
}

/// A signature line, read.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    name: String,
    id: [u8; ID_LEN],
    signature: Vec<u8>,
}

/// A text with its signatures, none of them believed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The text, with its final newline.
    text: String,
    lines: Vec<Line>,
}

/// A signature that was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// Whose.
    pub by: VerifierKey,
    /// When, in seconds since 1970; cosignatures say so.
    pub at_s: Option<u64>,
}

impl Note {
    /// Signs a text.
    pub fn sign(text: &str, signers: &[&Signer], at_s: u64) -> String {
        let mut note = format!("{text}\n");
        signers.iter().for_each(|signer| note.push_str(&signer.sign_line(text, at_s)));
        note
    }

    /// Reads a note.
    ///
    /// # Errors
    /// [`NoteError::Malformed`].
    pub fn parse(note: &str) -> Result<Self, NoteError> {
        if note.len() > NOTE_LIMIT_BYTES {
            return Err(malformed("it is too long"));
        }
        if note.chars().any(|c| c < ' ' && c != '\n') {
            return Err(malformed("it has control characters"));
        }
        let border = note.rfind("\n\n").ok_or(malformed("it has no signatures"))?;
        let (text, lines) = (&note[..=border], &note[border + 2..]);
        if !lines.ends_with('\n') {
            return Err(malformed("it ends without a newline"));
        }
        let lines = lines.lines().map(line).collect::<Result<Vec<_>, _>>()?;
        if lines.len() > SIGNATURES_LIMIT {
            return Err(malformed("it has too many signatures"));
        }
        Ok(Note { text: text.to_owned(), lines })
    }

    /// The text, with its final newline. Believe it only after [`Note::verify`].
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The names before its signatures, none of them believed.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(|line| line.name.as_str())
    }

    /// Reads lines that somebody else signed this very text with.
    ///
    /// # Errors
    /// [`NoteError::Malformed`].
    pub fn add_lines(&mut self, lines: &str) -> Result<(), NoteError> {
        let more = lines.lines().map(line).collect::<Result<Vec<_>, _>>()?;
        for one in more {
            if !self.lines.iter().any(|kept| kept.name == one.name && kept.id == one.id) {
                self.lines.push(one);
            }
        }
        if self.lines.len() > SIGNATURES_LIMIT {
            Err(malformed("it has too many signatures"))
        } else {
            Ok(())
        }
    }

    /// The note as it is written.
    pub fn to_note_text(&self) -> String {
        let mut note = format!("{}\n", self.text);
        for Line { name, id, signature } in &self.lines {
            let bytes = [&id[..], signature].concat();
            note.push_str(&format!("{DASH}{name} {}\n", STANDARD.encode(bytes)));
        }
        note
    }

    /// The signatures of known keys, each verified; others are left out.
    ///
    /// # Errors
    /// [`NoteError::Forged`] where a signature of a known key does not fit, [`NoteError::Unsigned`] where no known key
    /// signed.
    pub fn verify(&self, keys: &[VerifierKey]) -> Result<Vec<Signed>, NoteError> {
        let mut found = Vec::new();
        for line in &self.lines {
            let Some(key) = keys.iter().find(|key| key.name == line.name && key.id() == line.id) else {
                continue;
            };
            let (is_sound, at_s) = match key.kind {
                KeyKind::Log => (key.verifies(self.text.as_bytes(), &line.signature), None),
                KeyKind::Witness => match line.signature.split_first_chunk::<8>() {
                    Some((at, signature)) => {
                        let at_s = u64::from_be_bytes(*at);
                        (key.verifies(cosigned(&self.text, at_s).as_bytes(), signature), Some(at_s))
                    }
                    None => (false, None),
                },
            };
            if !is_sound {
                return Err(NoteError::Forged { name: key.name.clone() });
            }
            found.push(Signed { by: key.clone(), at_s });
        }
        if found.is_empty() {
            let wanted = match keys {
                [] => "anybody (no key was given)".to_owned(),
                keys => keys.iter().map(|key| key.name.as_str()).collect::<Vec<_>>().join(" or "),
            };
            return Err(NoteError::Unsigned { wanted });
        }
        Ok(found)
    }
}

fn line(text: &str) -> Result<Line, NoteError> {
    let rest = text.strip_prefix(DASH).ok_or(malformed("a signature line does not begin with a dash"))?;
    let (name, packed) = rest.split_once(' ').ok_or(malformed("a signature line has no signature"))?;
    check_name(name)?;
    let bytes = STANDARD.decode(packed).map_err(|_| malformed("a signature is not base64"))?;
    let (id, signature) = bytes.split_first_chunk::<ID_LEN>().ok_or(malformed("a signature is too short"))?;
    Ok(Line { name: name.to_owned(), id: *id, signature: signature.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer(kind: KeyKind) -> Signer {
        Signer::derive(&Key::from_bytes(&[9; 32]), kind, "example.com/log")
    }

    #[test]
    fn a_note_is_believed_from_its_key_only_and_no_byte_may_change() {
        let log = signer(KeyKind::Log);
        let text = "example.com/log\n7\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n";
        let written = Note::sign(text, &[&log], 0);
        let note = Note::parse(&written).unwrap();
        assert_eq!((note.text(), note.to_note_text()), (text, written.clone()));
        let keys = [log.verifier().clone()];
        assert_eq!(note.verify(&keys).unwrap()[0].at_s, None);
        let changed = Note::parse(&written.replace("\n7\n", "\n8\n")).unwrap();
        assert_eq!(changed.verify(&keys), Err(NoteError::Forged { name: "example.com/log".into() }));
        let other = Signer::derive(&Key::from_bytes(&[8; 32]), KeyKind::Log, "example.com/log");
        assert!(matches!(note.verify(&[other.verifier().clone()]), Err(NoteError::Unsigned { .. })));
    }

    #[test]
    fn a_cosignature_carries_its_time_and_is_no_signature_of_the_log() {
        let (log, witness) = (signer(KeyKind::Log), signer(KeyKind::Witness));
        let text = "example.com/log\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n";
        let mut note = Note::parse(&Note::sign(text, &[&log], 0)).unwrap();
        note.add_lines(&witness.sign_line(text, 1_679_315_147)).unwrap();
        let signed = note.verify(&[witness.verifier().clone()]).unwrap();
        assert_eq!(signed[0].at_s, Some(1_679_315_147));
        assert_ne!(log.verifier().id(), witness.verifier().id());
        // The same key taken for the other kind is not found: its id differs.
        let posing = VerifierKey { kind: KeyKind::Log, ..witness.verifier().clone() };
        assert!(note.verify(&[posing]).is_err());
    }

    #[test]
    fn keys_are_written_and_read_and_wrong_ids_refused() {
        let key = signer(KeyKind::Witness).verifier().clone();
        assert_eq!(key.to_string().parse::<VerifierKey>(), Ok(key.clone()));
        let wrong = key.to_string().replacen(&key.id_text(), "00000000", 1);
        assert!(wrong.parse::<VerifierKey>().is_err());
        for text in ["", "a+b", "a b+00000000+AQ==", "a+zz+AQ=="] {
            assert!(text.parse::<VerifierKey>().is_err(), "{text}");
        }
    }

    /// The example of C2SP signed-note: a note of the Go checksum database (its published verifier key).
    #[test]
    fn a_published_verifier_key_has_the_id_it_states() {
        let key = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8";
        assert_eq!(key.parse::<VerifierKey>().unwrap().to_string(), key);
    }

    #[test]
    fn what_is_no_note_is_refused() {
        for text in [
            "",
            "a\n",
            "a\n\n",
            "a\n\n— b\n",
            "a\n\n— b !!\n",
            "a\n\n- b AAAAAAAA\n",
            "a\r\n\n— b AAAAAAAA\n",
        ] {
            let parsed = Note::parse(text);
            assert!(
                parsed.as_ref().is_err() || parsed.is_ok_and(|note| note.verify(&[]).is_err()),
                "{text:?}"
            );
        }
    }
}
