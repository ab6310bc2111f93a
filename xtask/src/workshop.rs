//! Where things are: the repository's root and the folders that builds write to.

use std::path::{Path, PathBuf};

/// The checkout that this xtask was built from.
pub struct Workshop {
    root: PathBuf,
}

impl Workshop {
    /// The checkout whose `xtask/` this program was compiled in.
    pub fn here() -> Self {
        let own_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        Self { root: own_folder.parent().unwrap_or(own_folder).to_path_buf() }
    }

    /// The repository's root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A path below the root.
    pub fn path(&self, below_root: &str) -> PathBuf {
        self.root.join(below_root)
    }

    /// Where cargo puts what it builds. Follows `CARGO_TARGET_DIR`, as cargo does.
    pub fn target(&self) -> PathBuf {
        match std::env::var_os("CARGO_TARGET_DIR") {
            Some(folder) => self.root.join(folder),
            None => self.root.join("target"),
        }
    }

    /// The server's binary of one profile folder (`debug` or `release`).
    pub fn auscult(&self, profile_folder: &str) -> PathBuf {
        self.target().join(profile_folder).join(format!("auscult{}", std::env::consts::EXE_SUFFIX))
    }
}
