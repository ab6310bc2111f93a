//! Sealed identifiers: one address a reading, and nothing to learn from it.

use std::collections::HashSet;

use proptest::prelude::*;
use trust::identity::{MAX_MEASURED_US, MAX_SEQUENCE, MIN_MEASURED_US, OpenIdError, SealIdError};
use trust::{IdentityKey, Key, PackedIdentity};

use crate::{counting_key, unhex};

const READING: PackedIdentity =
    PackedIdentity { kind: 1, series: 7, measured_us: 1_795_338_000_000_000, sequence: 0 };

fn key() -> IdentityKey {
    IdentityKey::new(&Key::from_bytes(&counting_key()))
}

proptest! {
    #[test]
    fn an_identity_comes_back_from_its_address(
        kind in any::<u8>(),
        series in any::<u32>(),
        measured_us in MIN_MEASURED_US..=MAX_MEASURED_US,
        sequence in 0..=MAX_SEQUENCE,
    ) {
        let identity = PackedIdentity { kind, series, measured_us, sequence };
        let key = key();
        let id = key.seal(&identity).unwrap();
        prop_assert_eq!(id.len(), 32);
        prop_assert!(id.bytes().all(|digit| b"0123456789abcdef".contains(&digit)));
        prop_assert_eq!(key.open(&id), Ok(identity));
        prop_assert_eq!(key.seal(&identity).unwrap(), id, "the same reading has the same address");
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,40}") {
        let _ = key().open(&text);
    }
}

#[test]
fn the_ends_of_the_ranges_fit_and_nothing_beyond() {
    let key = key();
    for measured_us in [MIN_MEASURED_US, -1, 0, MAX_MEASURED_US] {
        let identity = PackedIdentity { measured_us, ..READING };
        assert_eq!(key.open(&key.seal(&identity).unwrap()), Ok(identity));
    }
    for measured_us in [MIN_MEASURED_US - 1, MAX_MEASURED_US + 1, i64::MIN, i64::MAX] {
        let refused = key.seal(&PackedIdentity { measured_us, ..READING });
        assert_eq!(refused, Err(SealIdError::InstantOutOfRange { measured_us }));
    }
    let sequence = MAX_SEQUENCE + 1;
    let refused = key.seal(&PackedIdentity { sequence, ..READING });
    assert_eq!(refused, Err(SealIdError::SequenceOutOfRange { sequence }));
}

#[test]
fn malformed_ids_are_refused() {
    let good = key().seal(&READING).unwrap();
    let cases =
        ["", "0", &good[1..], &format!("{good}0"), &good.to_uppercase(), &format!("{}g", &good[1..]), "é"];
    for text in cases {
        assert_eq!(key().open(text), Err(OpenIdError::Malformed { len: text.len() }), "{text}");
    }
}

#[test]
fn an_id_of_another_key_is_refused() {
    let other = IdentityKey::new(&Key::from_bytes(&[0x11; 32]));
    let refused = (0..1000)
        .filter(|sequence| {
            let id = other.seal(&PackedIdentity { sequence: *sequence, ..READING }).unwrap();
            key().open(&id) == Err(OpenIdError::NotOurs)
        })
        .count();
    // 255 in 256 are expected, about 996; 980 lies eight standard deviations below. The keys are
    // fixed, so the count never changes from run to run.
    assert!((980..1000).contains(&refused), "{refused}");
}

/// Neighbouring readings must not have neighbouring ids: of 128 bits about half differ.
#[test]
fn ids_of_neighbours_look_unrelated() {
    const COUNT: u32 = 2000;
    let key = key();
    let ids: Vec<Vec<u8>> = (0..COUNT)
        .map(|sequence| unhex(&key.seal(&PackedIdentity { sequence, ..READING }).unwrap()))
        .collect();
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
    let differing: u32 = ids
        .windows(2)
        .flat_map(|pair| pair[0].iter().zip(&pair[1]))
        .map(|(left, right)| (left ^ right).count_ones())
        .sum();
    let mean = f64::from(differing) / f64::from(COUNT - 1);
    assert!((63.0..65.0).contains(&mean), "on average {mean} of 128 bits differ");
}
