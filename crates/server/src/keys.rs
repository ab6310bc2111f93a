//! The key-encryption key: where it is read from, what must be true of its file, and how one is made.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use trust::Kek;
use trust::keyring::MAX_KEK_TEXT_BYTES;

use crate::config::KeyConfig;

/// Where systemd puts credentials.
const CREDENTIALS_DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// The file of the key, from the settings.
///
/// # Errors
/// When no key is configured, or a credential's directory is not there.
pub fn path(config: &KeyConfig) -> anyhow::Result<PathBuf> {
    match (&config.file, &config.credential) {
        (Some(file), _) => Ok(file.clone()),
        (None, Some(name)) => {
            if name.is_empty() || name.contains('/') || name.starts_with('.') {
                bail!("key.credential = \"{name}\" is no name of a credential");
            }
            let directory = std::env::var_os(CREDENTIALS_DIRECTORY).ok_or_else(|| {
                anyhow!(
                    "key.credential = \"{name}\" needs ${CREDENTIALS_DIRECTORY}, which systemd sets; \
                     add LoadCredential={name}:/path/to/key to the unit, or use key.file"
                )
            })?;
            Ok(Path::new(&directory).join(name))
        }
        (None, None) if config.command.is_some() || config.pkcs11_module.is_some() => {
            bail!("the key lives in no file")
        }
        (None, None) => bail!(
            "no key is configured: make one with `auscult key generate FILE` (outside the data directory) and name \
             it with --key-file FILE or in the settings as key.file"
        ),
    }
}

/// Reads the key-encryption key and refuses one that lies where it protects nothing.
///
/// # Errors
/// A sentence that says what is wrong with the file and how to mend it.
pub fn load(config: &KeyConfig, data_dir: &Path) -> anyhow::Result<Kek> {
    let path = path(config)?;
    check_place(&path, data_dir)?;
    if config.credential.is_none() {
        check_mode(&path, "key file")?;
    }
    let shown = path.display();
    let mut text = Vec::with_capacity(MAX_KEK_TEXT_BYTES + 1);
    File::open(&path)
        .and_then(|file| file.take(MAX_KEK_TEXT_BYTES as u64 + 1).read_to_end(&mut text))
        .with_context(|| format!("the key file {shown} cannot be read"))?;
    Kek::parse(&text).with_context(|| format!("the key file {shown} holds no key"))
}

/// A key inside the data directory would be stolen with the data.
///
/// # Errors
/// When it is there, or cannot be found at all.
pub fn check_place(path: &Path, data_dir: &Path) -> anyhow::Result<()> {
    let real = path.canonicalize().with_context(|| {
        format!("there is no key file {}; make one with `auscult key generate {0}`", path.display())
    })?;
    // A data directory that does not exist yet holds no key.
    let Ok(data) = data_dir.canonicalize() else { return Ok(()) };
    if real.starts_with(&data) {
        bail!(
            "the key file {} lies inside the data directory {}: whoever takes the data takes the key; move it \
             elsewhere, better to another disk",
            path.display(),
            data_dir.display()
        );
    }
    Ok(())
}

/// A secret that others can read is none.
///
/// # Errors
/// When group or others may do anything with the file.
pub fn check_mode(path: &Path, what: &str) -> anyhow::Result<()> {
    let shown = path.display();
    let metadata =
        std::fs::metadata(path).with_context(|| format!("the {what} {shown} cannot be looked at"))?;
    if !metadata.is_file() {
        bail!("the {what} {shown} is not a file");
    }
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        bail!("the {what} {shown} has mode {mode:04o}, so that others may use it; run `chmod 0400 {shown}`");
    }
    Ok(())
}

/// Whether the key lies on the file system of the data, so that one lost disk loses both.
pub fn shares_file_system(path: &Path, data_dir: &Path) -> bool {
    let device = |path: &Path| std::fs::metadata(path).map(|found| found.dev()).ok();
    device(path).is_some_and(|key| device(data_dir) == Some(key))
}

/// Makes a new key file with mode 0400; never overwrites one.
///
/// # Errors
/// When the file exists or cannot be written.
pub fn generate(path: &Path) -> anyhow::Result<Kek> {
    let kek = Kek::generate();
    write_secret(path, &format!("{}\n", kek.to_text().expose()), 0o400)?;
    Ok(kek)
}

/// Writes a secret to a new file that only its owner may read, and syncs it.
///
/// # Errors
/// When the file exists or cannot be written; nothing is left behind then.
pub fn write_secret(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let shown = path.display();
    let mut file = File::options().write(true).create_new(true).mode(mode).open(path).map_err(|error| {
        let exists = error.kind() == std::io::ErrorKind::AlreadyExists;
        let error = anyhow::Error::new(error);
        if exists {
            error.context(format!("{shown} exists already and is not overwritten; choose another name"))
        } else {
            error.context(format!("{shown} cannot be made"))
        }
    })?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    written.with_context(|| {
        let _ = std::fs::remove_file(path);
        format!("{shown} cannot be written")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(file: &Path) -> KeyConfig {
        KeyConfig::of_file(file)
    }

    fn refusal(file: &Path, data: &Path) -> String {
        format!("{:#}", load(&config(file), data).unwrap_err())
    }

    #[test]
    fn a_generated_key_is_loaded_again_and_never_overwritten() {
        let (keys, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let file = keys.path().join("key");
        let made = generate(&file).unwrap();
        let loaded = load(&config(&file), data.path()).unwrap();
        assert_eq!(made.fingerprint_text(), loaded.fingerprint_text());
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o400);
        assert!(format!("{:#}", generate(&file).unwrap_err()).contains("not overwritten"));
    }

    #[test]
    fn a_key_where_it_protects_nothing_is_refused() {
        let (keys, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let inside = data.path().join("key");
        generate(&inside).unwrap();
        assert!(refusal(&inside, data.path()).contains("inside the data directory"));
        let link = keys.path().join("link");
        std::os::unix::fs::symlink(&inside, &link).unwrap();
        assert!(refusal(&link, data.path()).contains("inside the data directory"));

        let file = keys.path().join("key");
        generate(&file).unwrap();
        for mode in [0o440, 0o404, 0o644, 0o620] {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            assert!(refusal(&file, data.path()).contains("chmod 0400"), "{mode:o}");
        }
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(load(&config(&file), data.path()).is_ok());
        assert!(refusal(&keys.path().join("none"), data.path()).contains("key generate"));
        std::fs::write(&file, "password").unwrap();
        assert!(refusal(&file, data.path()).contains("holds no key"));
        assert!(refusal(keys.path(), data.path()).contains("not a file"));
        assert!(
            format!("{:#}", load(&KeyConfig::default(), data.path()).unwrap_err()).contains("--key-file")
        );
    }
}
