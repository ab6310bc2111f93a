//! Sealed values: round trips, and everything that must not open.

use proptest::prelude::*;
use trust::envelope::{OVERHEAD_BYTES, OpenError, key_id_of, open, seal};
use trust::{Aad, Key, KeyId};

const PLACE: Aad<'static> = Aad { table: "document", row: b"row-1", column: "content" };

proptest! {
    #[test]
    fn what_is_sealed_opens_in_its_place(
        plaintext in prop::collection::vec(any::<u8>(), 0..2000),
        table in "[a-z_]{0,12}",
        row in prop::collection::vec(any::<u8>(), 0..40),
        column in "[a-z_]{0,12}",
    ) {
        let (key, key_id) = (Key::generate(), KeyId::generate());
        let aad = Aad { table: &table, row: &row, column: &column };
        let sealed = seal(&key, key_id, aad, &plaintext);
        prop_assert_eq!(sealed.len(), plaintext.len() + OVERHEAD_BYTES);
        prop_assert_eq!(key_id_of(&sealed), Ok(key_id));
        prop_assert_eq!(open(&key, aad, &sealed), Ok(plaintext));
    }

    #[test]
    fn no_noise_opens_or_panics(noise in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(open(&Key::generate(), PLACE, &noise).is_err());
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    let key = Key::generate();
    let sealed = seal(&key, KeyId::generate(), PLACE, b"heart rate 72 /min");
    assert!(open(&key, PLACE, &sealed).is_ok());
    for bit in 0..sealed.len() * 8 {
        let mut changed = sealed.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let error = open(&key, PLACE, &changed).expect_err("a changed value opened");
        let in_format_byte = bit < 8;
        assert_eq!(in_format_byte, matches!(error, OpenError::UnknownFormat { .. }), "bit {bit}: {error}");
    }
}

#[test]
fn every_cut_is_noticed() {
    let key = Key::generate();
    let sealed = seal(&key, KeyId::generate(), PLACE, b"x");
    for len in 0..sealed.len() {
        let error = open(&key, PLACE, &sealed[..len]).unwrap_err();
        assert_eq!(len < OVERHEAD_BYTES, error == OpenError::TooShort { len }, "{len}: {error}");
    }
    let mut longer = sealed;
    longer.push(0);
    assert!(open(&key, PLACE, &longer).is_err());
}

#[test]
fn a_value_opens_in_no_other_place() {
    let (key, key_id) = (Key::generate(), KeyId::generate());
    let sealed = seal(&key, key_id, PLACE, b"value");
    let elsewhere = [
        Aad { table: "documents", ..PLACE },
        Aad { row: b"row-2", ..PLACE },
        Aad { column: "contents", ..PLACE },
        Aad { table: "", ..PLACE },
        Aad { row: b"", ..PLACE },
        // The same characters with the borders elsewhere.
        Aad { table: "documentr", row: b"ow-1", column: "content" },
        Aad { table: "document", row: b"row-1c", column: "ontent" },
    ];
    for place in elsewhere {
        let error = open(&key, place, &sealed).unwrap_err();
        assert!(matches!(error, OpenError::AuthenticationFailed { key_id: named, .. } if named == key_id));
    }
}

#[test]
fn another_key_of_the_same_name_does_not_open() {
    let key_id = KeyId::generate();
    let sealed = seal(&Key::generate(), key_id, PLACE, b"value");
    assert!(matches!(open(&Key::generate(), PLACE, &sealed), Err(OpenError::AuthenticationFailed { .. })));
}

#[test]
fn sealing_twice_gives_unlike_bytes_and_is_counted() {
    let (key, key_id) = (Key::generate(), KeyId::generate());
    assert_eq!(key.seals(), 0);
    assert_ne!(seal(&key, key_id, PLACE, b"value"), seal(&key, key_id, PLACE, b"value"));
    assert_eq!(key.seals(), 2);
}

#[test]
fn an_error_names_table_and_column_but_not_the_row() {
    let sealed = seal(&Key::generate(), KeyId::generate(), Aad { row: b"patient-0815", ..PLACE }, b"");
    let error = open(&Key::generate(), Aad { row: b"patient-0815", ..PLACE }, &sealed).unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(text.contains("document.content"), "{text}");
    assert!(!text.contains("0815"), "{text}");
}
