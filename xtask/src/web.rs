//! Installs, checks and builds the web app in `web/`.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::bail;

use crate::workshop::Workshop;
use crate::{process, tools};

/// Installs the packages that the lock file names, unless that was done since the lock file last changed.
pub fn install(workshop: &Workshop) -> anyhow::Result<()> {
    for (file, remedy) in [
        ("web/package.json", "the web app is not in this checkout"),
        ("web/package-lock.json", "run `npm install` in web/ and keep the file"),
    ] {
        if !workshop.path(file).exists() {
            bail!("{file} is missing: {remedy}");
        }
    }
    install_packages(workshop, "web")
}

/// The same for any folder with a lock file.
pub fn install_packages(workshop: &Workshop, folder: &str) -> anyhow::Result<()> {
    let lock = workshop.path(&format!("{folder}/package-lock.json"));
    let installed = workshop.path(&format!("{folder}/node_modules/.package-lock.json"));
    if is_newer(&installed, &lock) {
        return Ok(());
    }
    let mut ci = process::program(workshop, "npm");
    process::run(ci.args(["ci", "--prefix", folder, "--no-audit", "--no-fund"]))
}

/// Runs one script of `web/package.json`.
pub fn script(workshop: &Workshop, name: &str) -> anyhow::Result<()> {
    process::run(process::program(workshop, "npm").args(["run", "--prefix", "web", name]))
}

/// Installs and builds, with progress.
pub fn build(workshop: &Workshop) -> anyhow::Result<()> {
    tools::check_node(workshop)?;
    process::timed("installing the web app's packages", || install(workshop))?;
    process::timed("building the web app", || script(workshop, "build"))
}

/// `cargo xtask web`.
pub fn command(workshop: &Workshop) -> anyhow::Result<ExitCode> {
    build(workshop)?;
    println!("the web app is in {}", workshop.path("web/dist").display());
    Ok(ExitCode::SUCCESS)
}

/// Whether both exist and the first was written after the second, or with it.
fn is_newer(file: &Path, than: &Path) -> bool {
    let written = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    matches!((written(file), written(than)), (Some(file), Some(than)) if than <= file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime};

    #[test]
    fn packages_are_installed_again_when_the_lock_file_changed() {
        let folder = std::env::temp_dir().join(format!("auscult-xtask-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (lock, installed) = (folder.join("lock"), folder.join("installed"));
        fs::write(&lock, "").unwrap();
        assert!(!is_newer(&installed, &lock), "never installed");
        let file = fs::File::create(&installed).unwrap();
        let written = fs::metadata(&lock).unwrap().modified().unwrap();
        file.set_modified(written + Duration::from_secs(1)).unwrap();
        assert!(is_newer(&installed, &lock), "installed after the lock file was written");
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert!(!is_newer(&installed, &lock), "the lock file has changed since");
        fs::remove_dir_all(&folder).unwrap();
    }
}
