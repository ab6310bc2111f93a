//! The log's tree against the published vectors of RFC 6962 and against another implementation of it.

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use ct_merkle::{ConsistencyProof, InclusionProof};
use proptest::prelude::*;
use sha2::Sha256;
use trust::log::Hash;
use trust::log::check::{Check, Content, Expectation, Fault, Report, Signpost};
use trust::log::checkpoint::Checkpoint;
use trust::log::note::{KeyKind, Signer};
use trust::log::tree::{
    Edge, MemoryTiles, ProofError, Tiles as _, Tree, append, empty_root, leaf_hash, verify_consistency,
    verify_inclusion,
};

use crate::unhex;

/// The eight entries of the reference implementation of RFC 6962, by which its vectors are known.
const ENTRIES: [&str; 8] =
    ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];

/// The roots of the trees of the first one to eight of them.
const ROOTS: [&str; 8] = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];

fn hash(text: &str) -> Hash {
    unhex(text).try_into().unwrap()
}

fn tiles_of(leaves: &[Hash], steps: &[usize]) -> MemoryTiles {
    let mut tiles = MemoryTiles::default();
    let (mut at, mut steps) = (0, steps.iter().copied().cycle());
    while at < leaves.len() {
        let end = (at + steps.next().unwrap_or(leaves.len()).max(1)).min(leaves.len());
        let written = append(&mut tiles, at as u64, &leaves[at..end]).unwrap();
        tiles.put(written);
        at = end;
    }
    tiles
}

fn entry(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

fn leaves(size: u64) -> Vec<Hash> {
    (0..size).map(|number| leaf_hash(&entry(number))).collect()
}

#[test]
fn the_tree_has_the_published_roots() {
    let leaves: Vec<Hash> = ENTRIES.iter().map(|entry| leaf_hash(&unhex(entry))).collect();
    assert_eq!(empty_root(), hash("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"));
    let mut edge = Edge::default();
    for (size, root) in (1_u64..).zip(ROOTS) {
        edge.push(leaves[size as usize - 1]);
        assert_eq!(edge.root(), hash(root), "edge of {size}");
        let mut tree = Tree::new(tiles_of(&leaves, &[1]), size);
        assert_eq!(tree.root().unwrap(), hash(root), "tree of {size}");
    }
}

#[test]
fn the_published_proofs_are_made_and_believed() {
    let leaves: Vec<Hash> = ENTRIES.iter().map(|entry| leaf_hash(&unhex(entry))).collect();
    let tiles = tiles_of(&leaves, &[8]);
    // PATH(5, D[8]) of the reference implementation.
    let path: Vec<Hash> = [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]
    .map(hash)
    .to_vec();
    assert_eq!(Tree::new(tiles.clone(), 8).inclusion(5).unwrap(), path);
    assert_eq!(verify_inclusion(&leaves[5], 5, 8, &path, &hash(ROOTS[7])), Ok(()));
    // PROOF(6, D[8]).
    let path: Vec<Hash> = [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]
    .map(hash)
    .to_vec();
    assert_eq!(Tree::new(tiles, 8).consistency(6).unwrap(), path);
    assert_eq!(verify_consistency((6, &hash(ROOTS[5])), (8, &hash(ROOTS[7])), &path), Ok(()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Roots and proofs are those of another implementation, at sizes around the borders of tiles as well.
    #[test]
    fn roots_and_proofs_are_those_of_another_implementation(
        size in prop_oneof![1_u64..600, 65_530_u64..65_540, 250_u64..260],
        step in 1_usize..700, part in 0.0_f64..1.0,
    ) {
        let mut theirs = MemoryBackedTree::<Sha256, Vec<u8>>::new();
        (0..size).for_each(|number| theirs.push(entry(number).to_vec()));
        let leaves = leaves(size);
        let mut tree = Tree::new(tiles_of(&leaves, &[step]), size);
        let root = tree.root().unwrap();
        prop_assert_eq!(root.to_vec(), theirs.root().as_bytes().to_vec());

        let index = ((size as f64 * part) as u64).min(size - 1);
        let path = tree.inclusion(index).unwrap();
        prop_assert_eq!(path.concat(), theirs.prove_inclusion(index as usize).as_bytes().to_vec());
        prop_assert_eq!(verify_inclusion(&leaves[index as usize], index, size, &path, &root), Ok(()));
        let packed = path.concat();
        let believed = InclusionProof::<Sha256>::try_from_bytes(packed).unwrap();
        prop_assert!(theirs.root().verify_inclusion(&entry(index).to_vec(), index, &believed).is_ok());

        let old = index + 1;
        let path = tree.consistency(old).unwrap();
        let mut edge = Edge::default();
        leaves[..old as usize].iter().for_each(|leaf| edge.push(*leaf));
        prop_assert_eq!(verify_consistency((old, &edge.root()), (size, &root), &path), Ok(()));
        if old < size {
            prop_assert_eq!(path.concat(), theirs.prove_consistency((size - old) as usize).as_bytes().to_vec());
            let mut older = MemoryBackedTree::<Sha256, Vec<u8>>::new();
            (0..old).for_each(|number| older.push(entry(number).to_vec()));
            let proof = ConsistencyProof::<Sha256>::try_from_bytes(path.concat()).unwrap();
            prop_assert!(theirs.root().verify_consistency(&older.root(), &proof).is_ok());
        }
    }

    /// No proof survives a change of any part of it: the full check that a client of another log once left out.
    #[test]
    fn a_changed_proof_proves_nothing(size in 2_u64..400, part in 0.0_f64..1.0, at in 0_usize..10, bit in 0_u32..256) {
        let leaves = leaves(size);
        let mut tree = Tree::new(tiles_of(&leaves, &[size as usize]), size);
        let root = tree.root().unwrap();
        let index = ((size as f64 * part) as u64).min(size - 1);
        let path = tree.inclusion(index).unwrap();
        let leaf = &leaves[index as usize];
        let mut wrong = path.clone();
        let at = at % path.len();
        wrong[at][(bit / 8) as usize] ^= 1 << (bit % 8);
        prop_assert_eq!(verify_inclusion(leaf, index, size, &wrong, &root), Err(ProofError::Root));
        prop_assert!(verify_inclusion(leaf, index, size, &path[1..], &root).is_err());
        prop_assert!(verify_inclusion(leaf, index, size, &[&path[..], &path[..1]].concat(), &root).is_err());
        prop_assert!(verify_inclusion(leaf, index ^ 1, size, &path, &root).is_err());
        prop_assert_eq!(verify_inclusion(leaf, size, size, &path, &root), Err(ProofError::Beyond));
        let old = index.max(1);
        let proof = tree.consistency(old).unwrap();
        let mut edge = Edge::default();
        leaves[..old as usize].iter().for_each(|leaf| edge.push(*leaf));
        let mut other = edge.root();
        other[(bit / 8) as usize] ^= 1 << (bit % 8);
        prop_assert!(verify_consistency((old, &other), (size, &root), &proof).is_err());
        prop_assert!(verify_consistency((size, &root), (old, &edge.root()), &proof).is_err());
    }
}

#[test]
fn a_size_that_the_tiles_do_not_have_is_refused() {
    let leaves = leaves(300);
    let mut tree = Tree::new(tiles_of(&leaves, &[300]), 301);
    assert!(tree.root().is_err());
    assert!(Tree::new(MemoryTiles::default(), 3).inclusion(3).is_err());
    assert!(append(&mut MemoryTiles::default(), 5, &leaves).is_err());
}

// --- The check of a whole log ---------------------------------------------------------------------------------

const ORIGIN: &str = "auscult/ab/acts/";

fn signer() -> Signer {
    Signer::derive(&trust::Key::from_bytes(&[1; 32]), KeyKind::Log, "auscult/ab/acts")
}

fn signpost(leaves: &[Hash], size: usize) -> Signpost {
    let mut edge = Edge::default();
    leaves[..size].iter().for_each(|leaf| edge.push(*leaf));
    let checkpoint = Checkpoint { origin: format!("{ORIGIN}1"), size: size as u64, root: edge.root() };
    Signpost { name: format!("checkpoint {size}"), note: checkpoint.sign(&[&signer()], 0), outside: false }
}

/// A log of so many rows with checkpoints every hundred, changed as a test likes.
struct Kept {
    rows: Vec<(u64, Option<Hash>, Content)>,
    tiles: MemoryTiles,
    size: u64,
    signposts: Vec<Signpost>,
}

impl Kept {
    fn new(size: u64) -> Self {
        let leaves = leaves(size);
        let rows =
            (1..).zip(&leaves).map(|(number, leaf)| (number, Some(*leaf), Content::Leaf(*leaf))).collect();
        let mut signposts: Vec<Signpost> =
            (100..=size as usize).step_by(100).map(|size| signpost(&leaves, size)).collect();
        signposts.push(signpost(&leaves, size as usize));
        Kept { rows, tiles: tiles_of(&leaves, &[size as usize]), size, signposts }
    }

    fn check(mut self) -> Report {
        let mut check = Check::new(Expectation {
            log: "acts".into(),
            origin: ORIGIN.into(),
            epoch: 1,
            size: self.size,
            keys: vec![signer().verifier().clone()],
            signposts: self.signposts,
        });
        let feed = |check: &mut Check, tiles: &mut MemoryTiles, sequence: u64| {
            if let Some(number) = check.wants_tile(sequence) {
                let Ok(hashes) = tiles.tile(0, number);
                check.tile(number, hashes);
            }
        };
        for (sequence, kept, content) in self.rows {
            while check.next_row() < sequence {
                let next = check.next_row();
                feed(&mut check, &mut self.tiles, next);
                check.missing();
            }
            feed(&mut check, &mut self.tiles, sequence);
            check.row(sequence, kept, content);
        }
        let mut tiles = self.tiles;
        check.finish(move |level, number| {
            let Ok(hashes) = tiles.tile(level, number);
            Some(hashes)
        })
    }
}

fn faults(report: &Report) -> Vec<(Fault, Option<u64>, Option<u64>)> {
    report.findings.iter().map(|finding| (finding.fault, finding.first, finding.last)).collect()
}

#[test]
fn a_sound_log_has_no_findings() {
    for size in [0, 1, 255, 256, 257, 1_000] {
        let report = Kept::new(size).check();
        assert_eq!(faults(&report), [], "{size}");
        assert_eq!((report.rows, report.uncovered), (size, 0));
        assert!(report.head.is_some_and(|head| head.size == size && head.root == report.root));
    }
}

#[test]
fn each_kind_of_change_is_named() {
    let other = leaf_hash(b"other");
    let mut kept = Kept::new(700);
    kept.rows[416] = (417, Some(other), Content::Leaf(other));
    assert_eq!(faults(&kept.check()), [(Fault::Changed, Some(417), Some(417))]);

    let mut kept = Kept::new(700);
    kept.rows[416].2 = Content::Damaged("it does not open".into());
    assert_eq!(faults(&kept.check()), [(Fault::Changed, Some(417), Some(417))]);

    let mut kept = Kept::new(700);
    kept.rows.drain(300..303);
    assert_eq!(faults(&kept.check()), [(Fault::Missing, Some(301), Some(303))]);

    let mut kept = Kept::new(700);
    kept.rows.truncate(650);
    let report = kept.check();
    assert_eq!(faults(&report)[0], (Fault::Missing, Some(651), Some(700)), "{report:?}");

    let mut kept = Kept::new(700);
    let (early, late) = (kept.rows[9].clone(), kept.rows[599].clone());
    kept.rows[9] = (10, late.1, late.2);
    kept.rows[599] = (600, early.1, early.2);
    let moved = faults(&kept.check());
    assert_eq!(moved, [(Fault::Moved, Some(10), Some(10)), (Fault::Moved, Some(600), Some(600))]);

    let mut kept = Kept::new(700);
    kept.rows.remove(299);
    for (number, row) in (1..).zip(&mut kept.rows) {
        row.0 = number;
    }
    assert_eq!(faults(&kept.check())[0], (Fault::Missing, Some(300), Some(300)));

    let mut kept = Kept::new(700);
    kept.rows.insert(299, (0, Some(other), Content::Leaf(other)));
    for (number, row) in (1..).zip(&mut kept.rows) {
        row.0 = number;
    }
    assert_eq!(faults(&kept.check())[0], (Fault::Added, Some(300), Some(300)));

    let mut kept = Kept::new(700);
    kept.rows.push((701, Some(other), Content::Damaged("it does not open".into())));
    assert_eq!(faults(&kept.check()), [(Fault::Added, Some(701), Some(701))]);
}

#[test]
fn a_changed_tree_and_changed_checkpoints_are_named_and_the_rows_acquitted() {
    let other = leaf_hash(b"other");
    let mut kept = Kept::new(700);
    let Ok(mut hashes) = kept.tiles.tile(0, 1);
    hashes[44] = other;
    kept.tiles.put([trust::log::tree::Tile { level: 0, number: 1, hashes }]);
    let report = kept.check();
    assert!(faults(&report).contains(&(Fault::Tree, Some(301), Some(301))), "{report:?}");
    assert!(!faults(&report).iter().any(|found| found.0 == Fault::Changed), "{report:?}");

    let mut kept = Kept::new(700);
    let Ok(mut hashes) = kept.tiles.tile(1, 0);
    hashes[1] = other;
    kept.tiles.put([trust::log::tree::Tile { level: 1, number: 0, hashes }]);
    assert_eq!(faults(&kept.check()), [(Fault::Tree, Some(1), Some(700))]);

    let mut kept = Kept::new(700);
    kept.signposts[2].note = kept.signposts[2].note.replace("\n300\n", "\n301\n");
    assert_eq!(faults(&kept.check()), [(Fault::Checkpoint, None, None)]);

    // Signed by the log itself over another history: whoever holds row and tree changed both, the checkpoint convicts.
    let mut kept = Kept::new(700);
    let mut changed = leaves(700);
    changed[416] = other;
    kept.rows[416] = (417, Some(other), Content::Leaf(other));
    kept.tiles = tiles_of(&changed, &[700]);
    assert_eq!(faults(&kept.check()), [(Fault::Changed, Some(401), Some(500))]);
}

#[test]
fn a_log_that_is_rolled_back_whole_is_found_by_a_checkpoint_from_elsewhere() {
    let outside = Signpost { outside: true, ..signpost(&leaves(900), 900) };
    let mut kept = Kept::new(700);
    kept.signposts.push(outside.clone());
    assert_eq!(faults(&kept.check()), [(Fault::RolledBack, Some(701), Some(900))]);
    // Grown again, differently.
    let mut other = leaves(700);
    other.extend((0..300_u64).map(|number| leaf_hash(&(number + 5_000).to_be_bytes())));
    let rows = (1..).zip(&other).map(|(number, leaf)| (number, Some(*leaf), Content::Leaf(*leaf))).collect();
    let signposts = vec![signpost(&other, 1_000), outside];
    let kept = Kept { rows, tiles: tiles_of(&other, &[1_000]), size: 1_000, signposts };
    assert_eq!(faults(&kept.check())[0].0, Fault::RolledBack);
}

#[test]
fn erased_rows_break_no_proof() {
    let mut kept = Kept::new(700);
    for row in &mut kept.rows[100..200] {
        row.2 = Content::Erased;
    }
    let report = kept.check();
    assert_eq!((faults(&report), report.erased, report.uncovered), (vec![], 100, 0));
}
