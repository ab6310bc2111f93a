//! The certificates in a "certs-only" CMS message (RFC 5652, section 5.1): just enough DER to find them.

const SEQUENCE: u8 = 0x30;
const OBJECT_ID: u8 = 0x06;
const CONTEXT_0: u8 = 0xa0;
/// Most certificates that are taken.
const CERTIFICATES_LIMIT: usize = 16;

/// Each certificate, in DER.
pub(super) fn certificates(message: &[u8]) -> Option<Vec<&[u8]>> {
    let (outer, _) = inside(message, SEQUENCE)?;
    let (_, rest) = inside(outer, OBJECT_ID)?;
    let (explicit, _) = inside(rest, CONTEXT_0)?;
    let (mut signed, _) = inside(explicit, SEQUENCE)?;
    // Version, digests and content come first.
    while *signed.first()? != CONTEXT_0 {
        signed = signed.get(element(signed)?.1..)?;
    }
    let (mut set, _) = inside(signed, CONTEXT_0)?;
    let mut found = Vec::new();
    while !set.is_empty() && found.len() < CERTIFICATES_LIMIT {
        let (_, end) = element(set)?;
        found.push(&set[..end]);
        set = &set[end..];
    }
    Some(found)
}

/// What is inside the first element, if it has this tag, and what follows it.
fn inside(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (start, end) = element(bytes)?;
    (*bytes.first()? == tag).then(|| (&bytes[start..end], &bytes[end..]))
}

/// Where the content of the first element starts and ends.
fn element(bytes: &[u8]) -> Option<(usize, usize)> {
    let first = usize::from(*bytes.get(1)?);
    let (start, len) = if first < 0x80 {
        (2, first)
    } else {
        let count = first & 0x7f;
        let digits = bytes.get(2..2 + count).filter(|digits| (1..=4).contains(&digits.len()))?;
        (2 + count, digits.iter().fold(0, |len, digit| len << 8 | usize::from(*digit)))
    };
    let end = start.checked_add(len)?;
    (end <= bytes.len()).then_some((start, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_found_and_nonsense_is_none() {
        // SEQUENCE { OID 1, [0] { SEQUENCE { INTEGER 1, SET {}, SEQUENCE { OID 2 }, [0] { 30 01 aa, 30 00 } } } }
        let message = [
            0x30, 24, 0x06, 1, 1, 0xa0, 19, 0x30, 17, 2, 1, 1, 0x31, 0, 0x30, 3, 6, 1, 2, 0xa0, 5, 0x30, 1,
            0xaa, 0x30, 0,
        ];
        assert_eq!(certificates(&message).unwrap(), [&[0x30, 1, 0xaa][..], &[0x30, 0]]);
        for end in 0..message.len() {
            assert!(certificates(&message[..end]).is_none(), "{end}");
        }
        assert!(certificates(&[0x30, 0x85, 1, 1, 1, 1, 1]).is_none());
    }
}
