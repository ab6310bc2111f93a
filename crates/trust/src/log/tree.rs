//! The Merkle tree of RFC 6962, section 2.1, over tiles of 256 hashes: roots, proofs of inclusion and consistency,
//! and their verification.
//!
//! Inner nodes are kept in tiles eight levels high (C2SP tlog-tiles): tile `n` of level `l` holds the hashes of the
//! subtrees of 256^l leaves numbered 256 n to 256 n + 255. Any node of a full subtree is folded from one tile, so a
//! proof reads a few tiles, however large the tree is.

use std::collections::HashMap;

use aws_lc_rs::digest::{Context, SHA256};

use super::Hash;

/// Hashes in a full tile.
pub const TILE_WIDTH: u64 = 256;
/// Levels of the tree that one tile spans: 2^8 is [`TILE_WIDTH`].
const TILE_HEIGHT: u32 = 8;
/// Most hashes in a proof: one a level of a tree of 2^63 leaves.
pub const PROOF_LIMIT: usize = 63;

fn sha256(pieces: &[&[u8]]) -> Hash {
    let mut context = Context::new(&SHA256);
    pieces.iter().for_each(|piece| context.update(piece));
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

/// The root of the tree without leaves: the hash of nothing.
pub fn empty_root() -> Hash {
    sha256(&[])
}

/// The hash of a leaf: SHA-256(0x00 ‖ entry).
pub fn leaf_hash(entry: &[u8]) -> Hash {
    sha256(&[&[0x00], entry])
}

/// The hash of an inner node: SHA-256(0x01 ‖ left ‖ right).
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    sha256(&[&[0x01], left, right])
}

/// The root over a full subtree's leaves; as many as a power of two.
fn fold_full(hashes: &[Hash]) -> Hash {
    match hashes {
        [one] => *one,
        _ => {
            let (left, right) = hashes.split_at(hashes.len() / 2);
            node_hash(&fold_full(left), &fold_full(right))
        }
    }
}

/// The right edge of a growing tree: the roots of the full subtrees that it is made of, largest first. Takes leaves one
/// by one and tells the root at any time, in memory that grows with the logarithm only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edge {
    size: u64,
    subtrees: Vec<Hash>,
}

impl Edge {
    /// Leaves so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds the hash of the next leaf.
    pub fn push(&mut self, leaf: Hash) {
        let mut hash = leaf;
        let mut size = self.size;
        while size & 1 == 1 {
            // As many subtrees as bits are set, so there is one for this bit.
            if let Some(left) = self.subtrees.pop() {
                hash = node_hash(&left, &hash);
            }
            size >>= 1;
        }
        self.subtrees.push(hash);
        self.size += 1;
    }

    /// The root of the tree so far.
    pub fn root(&self) -> Hash {
        let mut from_right = self.subtrees.iter().rev();
        let Some(last) = from_right.next() else { return empty_root() };
        from_right.fold(*last, |right, left| node_hash(left, &right))
    }
}

/// One tile to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tile {
    /// Its level; 0 holds the hashes of leaves.
    pub level: u8,
    /// Its place in the level.
    pub number: u64,
    /// Its hashes; a full tile has [`TILE_WIDTH`].
    pub hashes: Vec<Hash>,
}

/// Where tiles are read from.
pub trait Tiles {
    /// Why a tile could not be read.
    type Error;

    /// The hashes of a tile that are there: all of a full one, the first of one that is still growing, none of one
    /// that was never begun.
    ///
    /// # Errors
    /// As the place of the tiles says.
    fn tile(&mut self, level: u8, number: u64) -> Result<Vec<Hash>, Self::Error>;
}

/// Why a proof or a root could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TreeError<E> {
    /// The tree is smaller than what was asked for, or nothing was asked for.
    #[error("a proof for {wanted} in a tree of {size} leaves cannot be")]
    Beyond {
        /// Index or size that was asked for.
        wanted: u64,
        /// Size of the tree.
        size: u64,
    },
    /// A tile is shorter than the size of the tree demands.
    #[error("tile {number} of level {level} holds {found} hashes, at least {needed} are needed")]
    Short {
        /// Its level.
        level: u8,
        /// Its place in the level.
        number: u64,
        /// Hashes in it.
        found: u64,
        /// Hashes that the tree needs of it.
        needed: u64,
    },
    /// A tile could not be read.
    #[error("a tile cannot be read")]
    Tiles(#[source] E),
}

/// A tree of a given size over its tiles.
pub struct Tree<T: Tiles> {
    tiles: T,
    size: u64,
    read: HashMap<(u8, u64), Vec<Hash>>,
}

impl<T: Tiles> Tree<T> {
    /// The tree of the first `size` leaves.
    pub fn new(tiles: T, size: u64) -> Self {
        Tree { tiles, size, read: HashMap::new() }
    }

    fn tile(&mut self, level: u8, number: u64) -> Result<&Vec<Hash>, TreeError<T::Error>> {
        if !self.read.contains_key(&(level, number)) {
            let hashes = self.tiles.tile(level, number).map_err(TreeError::Tiles)?;
            self.read.insert((level, number), hashes);
        }
        Ok(&self.read[&(level, number)])
    }

    /// The root of the full subtree number `index` of 2^`height` leaves.
    fn node(&mut self, height: u32, index: u64) -> Result<Hash, TreeError<T::Error>> {
        // Taken from the lowest tile that holds the whole subtree within its span.
        let (level, above) = (height / TILE_HEIGHT, height % TILE_HEIGHT);
        let width = 1_u64 << above;
        let first = index * width;
        let (number, at) = (first / TILE_WIDTH, first % TILE_WIDTH);
        let level = level as u8;
        let tile = self.tile(level, number)?;
        let hashes = tile.get(at as usize..(at + width) as usize);
        let found = tile.len() as u64;
        let hashes = hashes.ok_or(TreeError::Short { level, number, found, needed: at + width })?;
        Ok(fold_full(hashes))
    }

    /// The root of leaves `start..end`: MTH(D[start:end]).
    fn range(&mut self, start: u64, end: u64) -> Result<Hash, TreeError<T::Error>> {
        let length = end - start;
        if length.is_power_of_two() {
            let height = length.trailing_zeros();
            return self.node(height, start >> height);
        }
        let left = split(length);
        let (left, right) = (self.range(start, start + left)?, self.range(start + left, end)?);
        Ok(node_hash(&left, &right))
    }

    /// The root of the tree.
    ///
    /// # Errors
    /// [`TreeError`] where tiles are missing.
    pub fn root(&mut self) -> Result<Hash, TreeError<T::Error>> {
        if self.size == 0 { Ok(empty_root()) } else { self.range(0, self.size) }
    }

    /// The hash of a leaf.
    ///
    /// # Errors
    /// [`TreeError`] where it is not in the tree.
    pub fn leaf(&mut self, index: u64) -> Result<Hash, TreeError<T::Error>> {
        if index >= self.size {
            return Err(TreeError::Beyond { wanted: index, size: self.size });
        }
        self.node(0, index)
    }

    /// The proof that a leaf is in the tree: PATH(index, D) of RFC 6962, section 2.1.1, the leaf's sibling first.
    ///
    /// # Errors
    /// [`TreeError::Beyond`] where it is not, or tiles are missing.
    pub fn inclusion(&mut self, index: u64) -> Result<Vec<Hash>, TreeError<T::Error>> {
        if index >= self.size {
            return Err(TreeError::Beyond { wanted: index, size: self.size });
        }
        let mut path = Vec::new();
        let (mut start, mut end) = (0, self.size);
        while end - start > 1 {
            let middle = start + split(end - start);
            if index < middle {
                path.push(self.range(middle, end)?);
                end = middle;
            } else {
                path.push(self.range(start, middle)?);
                start = middle;
            }
        }
        path.reverse();
        Ok(path)
    }

    /// The proof that the tree of the first `old` leaves grew into this one: PROOF(old, D) of RFC 6962, section 2.1.2.
    /// Empty for `old` 0 and for `old` equal to the size.
    ///
    /// # Errors
    /// [`TreeError::Beyond`] where `old` is larger than the tree, or tiles are missing.
    pub fn consistency(&mut self, old: u64) -> Result<Vec<Hash>, TreeError<T::Error>> {
        if old > self.size {
            return Err(TreeError::Beyond { wanted: old, size: self.size });
        }
        if old == 0 || old == self.size {
            return Ok(Vec::new());
        }
        let mut path = Vec::new();
        let (mut start, mut end, mut is_whole) = (0, self.size, true);
        while end != old {
            let middle = start + split(end - start);
            if old <= middle {
                path.push(self.range(middle, end)?);
                end = middle;
            } else {
                path.push(self.range(start, middle)?);
                start = middle;
                is_whole = false;
            }
        }
        if !is_whole {
            path.push(self.range(start, end)?);
        }
        path.reverse();
        Ok(path)
    }
}

/// The largest power of two smaller than a length above one.
fn split(length: u64) -> u64 {
    1 << (63 - (length - 1).leading_zeros())
}

/// The tiles that change when leaves are added to a tree of `size` leaves, each with all its hashes.
///
/// # Errors
/// [`TreeError`] where the tiles at the right edge cannot be read, or do not fit the size.
pub fn append<T: Tiles>(tiles: &mut T, size: u64, leaves: &[Hash]) -> Result<Vec<Tile>, TreeError<T::Error>> {
    let mut written = Vec::new();
    let mut level = 0_u8;
    let (mut size, mut added) = (size, leaves.to_vec());
    while !added.is_empty() {
        let (mut number, inside) = (size / TILE_WIDTH, size % TILE_WIDTH);
        let mut hashes =
            if inside == 0 { Vec::new() } else { tiles.tile(level, number).map_err(TreeError::Tiles)? };
        let found = hashes.len() as u64;
        if found < inside {
            return Err(TreeError::Short { level, number, found, needed: inside });
        }
        // What stands beyond the size was never counted.
        hashes.truncate(inside as usize);
        let mut above = Vec::new();
        for hash in added {
            hashes.push(hash);
            if hashes.len() as u64 == TILE_WIDTH {
                above.push(fold_full(&hashes));
                written.push(Tile { level, number, hashes: std::mem::take(&mut hashes) });
                number += 1;
            }
        }
        if !hashes.is_empty() {
            written.push(Tile { level, number, hashes });
        }
        added = above;
        size /= TILE_WIDTH;
        level += 1;
    }
    Ok(written)
}

/// Why a proof proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The index or size lies outside the tree.
    #[error("it speaks of a place outside the tree")]
    Beyond,
    /// It has too few or too many hashes for these sizes.
    #[error("it has another number of hashes than trees of these sizes have")]
    Length,
    /// It leads to another root.
    #[error("it leads to another root")]
    Root,
}

/// Proves that a leaf is in a tree (RFC 9162, section 2.1.3.2).
///
/// # Errors
/// [`ProofError`].
pub fn verify_inclusion(
    leaf: &Hash,
    index: u64,
    size: u64,
    path: &[Hash],
    root: &Hash,
) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::Beyond);
    }
    let (mut node, mut last, mut hash) = (index, size - 1, *leaf);
    for sibling in path {
        if last == 0 {
            return Err(ProofError::Length);
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    match (last == 0, hash == *root) {
        (false, _) => Err(ProofError::Length),
        (true, false) => Err(ProofError::Root),
        (true, true) => Ok(()),
    }
}

/// Proves that one tree grew out of another (RFC 9162, section 2.1.4.2). Everything grew out of the empty tree, by an
/// empty proof.
///
/// # Errors
/// [`ProofError`].
pub fn verify_consistency(
    (old_size, old_root): (u64, &Hash),
    (new_size, new_root): (u64, &Hash),
    path: &[Hash],
) -> Result<(), ProofError> {
    if old_size > new_size {
        return Err(ProofError::Beyond);
    }
    if old_size == 0 || old_size == new_size {
        let same = if old_size == 0 { *old_root == empty_root() } else { old_root == new_root };
        return match (path.is_empty(), same) {
            (false, _) => Err(ProofError::Length),
            (true, false) => Err(ProofError::Root),
            (true, true) => Ok(()),
        };
    }
    // A full subtree of the old tree is its own first hash.
    let (first, rest) = if old_size.is_power_of_two() {
        (*old_root, path)
    } else {
        let (first, rest) = path.split_first().ok_or(ProofError::Length)?;
        (*first, rest)
    };
    let (mut node, mut last) = (old_size - 1, new_size - 1);
    while node & 1 == 1 {
        node >>= 1;
        last >>= 1;
    }
    let (mut old, mut new) = (first, first);
    for sibling in rest {
        if last == 0 {
            return Err(ProofError::Length);
        }
        if node & 1 == 1 || node == last {
            old = node_hash(sibling, &old);
            new = node_hash(sibling, &new);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            new = node_hash(&new, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    match (last == 0, old == *old_root && new == *new_root) {
        (false, _) => Err(ProofError::Length),
        (true, false) => Err(ProofError::Root),
        (true, true) => Ok(()),
    }
}

/// Tiles in memory, for checks and tests.
#[derive(Clone, Debug, Default)]
pub struct MemoryTiles(HashMap<(u8, u64), Vec<Hash>>);

impl MemoryTiles {
    /// Keeps tiles, each in place of its earlier version.
    pub fn put(&mut self, tiles: impl IntoIterator<Item = Tile>) {
        self.0.extend(tiles.into_iter().map(|tile| ((tile.level, tile.number), tile.hashes)));
    }
}

impl Tiles for MemoryTiles {
    type Error = std::convert::Infallible;

    fn tile(&mut self, level: u8, number: u64) -> Result<Vec<Hash>, Self::Error> {
        Ok(self.0.get(&(level, number)).cloned().unwrap_or_default())
    }
}

impl<T: Tiles + ?Sized> Tiles for &mut T {
    type Error = T::Error;

    fn tile(&mut self, level: u8, number: u64) -> Result<Vec<Hash>, Self::Error> {
        (**self).tile(level, number)
    }
}
