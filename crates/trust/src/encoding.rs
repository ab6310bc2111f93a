//! Hexadecimal text and unambiguous joining of byte strings, for this room's own formats.

/// Lower-case hexadecimal digits, two a byte.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 0x0f)]));
    }
    text
}

/// Fills `out` from exactly two hexadecimal digits a byte; the position of the first wrong digit
/// otherwise (the text's length when only the length is wrong).
pub(crate) fn unhex_into(text: &[u8], out: &mut [u8]) -> Result<(), usize> {
    if let Some(position) = text.iter().position(|digit| !digit.is_ascii_hexdigit()) {
        return Err(position);
    }
    if text.len() != out.len() * 2 {
        return Err(text.len());
    }
    for (byte, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
        *byte = nibble(pair[0]) << 4 | nibble(pair[1]);
    }
    Ok(())
}

/// Appends `part` after its length (8 bytes, little endian), so that no two lists of parts ever
/// give the same bytes.
pub(crate) fn push_framed(out: &mut Vec<u8>, part: &[u8]) {
    out.extend_from_slice(&(part.len() as u64).to_le_bytes());
    out.extend_from_slice(part);
}

fn nibble(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit - b'A' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_round_trip_and_first_wrong_digit() {
        let bytes = [0x00, 0x9f, 0xab, 0xff];
        assert_eq!(hex(&bytes), "009fabff");
        let mut back = [0_u8; 4];
        assert_eq!(unhex_into(b"009FabfF", &mut back), Ok(()));
        assert_eq!(back, bytes);
        assert_eq!(unhex_into(b"00zfabff", &mut back), Err(2));
        assert_eq!(unhex_into(b"009fab", &mut back), Err(6));
        assert_eq!(unhex_into("é0000000".as_bytes(), &mut back), Err(0));
    }

    #[test]
    fn framing_keeps_the_borders_of_parts() {
        let (mut left, mut right) = (Vec::new(), Vec::new());
        push_framed(&mut left, b"ab");
        push_framed(&mut left, b"c");
        push_framed(&mut right, b"a");
        push_framed(&mut right, b"bc");
        assert_ne!(left, right);
    }
}
