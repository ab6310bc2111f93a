//! What the disk itself can do: appends with `fdatasync`, one after another.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;

/// The file is begun again after so many bytes, so that a long measurement does not fill the disk.
const FILE_LIMIT_BYTES: u64 = 1 << 30;

/// Appends of `bytes` with `fdatasync` a second, in `directory`, measured for `length`.
///
/// # Errors
/// When the file cannot be written.
pub fn commits_per_s(directory: &Path, bytes: u64, length: Duration) -> anyhow::Result<f64> {
    let mut file = tempfile::tempfile_in(directory).context("no file to measure the disk with")?;
    let piece = noise(usize::try_from(bytes.max(1)).context("a group is small")?);
    let began = Instant::now();
    let (mut commits, mut written) = (0_u32, 0);
    while began.elapsed() < length {
        append(&mut file, &piece)?;
        commits += 1;
        written += bytes;
        if written > FILE_LIMIT_BYTES {
            file = tempfile::tempfile_in(directory).context("no file to measure the disk with")?;
            written = 0;
        }
    }
    Ok(f64::from(commits) / began.elapsed().as_secs_f64())
}

fn append(file: &mut File, piece: &[u8]) -> anyhow::Result<()> {
    file.write_all(piece).and_then(|()| file.sync_data()).context("the disk could not be written")
}

/// Bytes that no file system makes smaller.
fn noise(length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 1_024);
    while bytes.len() < length {
        bytes.extend_from_slice(&trust::random_bytes::<1_024>());
    }
    bytes.truncate(length);
    bytes
}

/// Name of a directory's file system where it is one that keeps nothing.
pub fn is_memory(directory: &Path) -> bool {
    /// `TMPFS_MAGIC` of `linux/magic.h`.
    const TMPFS: u64 = 0x0102_1994;
    rustix::fs::statfs(directory).is_ok_and(|found| u64::try_from(found.f_type) == Ok(TMPFS))
}
