//! The homes of key-encryption keys: a file, a credential of systemd, a command, or a token (PKCS #11).

mod command;
mod credential;
mod file;
mod home;
mod pkcs11;

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use trust::{KekRing, KekSource};

pub use home::Home;
pub use pkcs11::Token;

use crate::config::{Config, KeyConfig};
use crate::keys;

/// What follows the name of the current key, for the one of the next epoch.
const NEXT: &str = "next";

/// The home that the settings name.
///
/// # Errors
/// When none is named, or it cannot be one.
pub fn source(config: &KeyConfig, data_dir: &Path) -> anyhow::Result<Arc<dyn KekSource>> {
    if let Some(words) = &config.command {
        return Ok(Arc::new(command::CommandSource::new(words)?));
    }
    if let Some(token) = config.token() {
        return Ok(Arc::new(pkcs11::TokenSource::open(token)?));
    }
    let path = keys::path(config)?;
    keys::check_place(&path, data_dir)?;
    if config.credential.is_some() {
        return Ok(Arc::new(credential::CredentialSource::new(path)));
    }
    Ok(Arc::new(file::FileSource::new(path)))
}

/// The key-encryption keys of a site. What else they wrap on this machine follows a turn of the epoch.
///
/// # Errors
/// A sentence that says what is wrong with the key or its home and how to mend it.
pub fn ring(config: &Config) -> anyhow::Result<KekRing> {
    let source = source(&config.key, &config.site.data_dir)?;
    let place = source.place();
    let home = Arc::new(Home::new(source, config.pki_dir()));
    KekRing::load(home).with_context(|| format!("the key-encryption key of {place} cannot be used"))
}

/// Refuses settings with more than one home.
///
/// # Errors
/// When two are named.
pub fn check(config: &KeyConfig) -> anyhow::Result<()> {
    let homes = [
        ("key.file", config.file.is_some()),
        ("key.credential", config.credential.is_some()),
        ("key.command", config.command.is_some()),
        ("key.pkcs11_module", config.pkcs11_module.is_some()),
    ];
    let named: Vec<&str> = homes.iter().filter(|(_, is_set)| *is_set).map(|(name, _)| *name).collect();
    if named.len() > 1 {
        bail!("{} are both set; the key has one home, remove one of them", named.join(" and "));
    }
    let token = [&config.pkcs11_token, &config.pkcs11_label].iter().any(|field| field.is_some());
    if config.pkcs11_module.is_none() && (token || config.pkcs11_pin_file.is_some()) {
        bail!("key.pkcs11_token, key.pkcs11_label and key.pkcs11_pin_file need key.pkcs11_module");
    }
    Ok(())
}
