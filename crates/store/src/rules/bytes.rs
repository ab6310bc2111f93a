//! Compact binary rows: numbers of variable length, framed bytes, and optional compression, read back with bounds checks.

use super::row::Malformed;

/// Largest row after decompression, in bytes: above any group or document, below what would exhaust a small machine.
const UNPACKED_LIMIT_BYTES: usize = 256 * 1024 * 1024;
/// Below this many bytes compression does not pay for its frame.
const PACK_FROM_BYTES: usize = 128;

const PLAIN: u8 = 0;
const ZSTD: u8 = 1;

/// Appends numbers and bytes.
#[derive(Default)]
pub(super) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Writer { bytes: Vec::with_capacity(bytes) }
    }

    pub(super) fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    /// Seven bits a byte, lowest first.
    pub(super) fn unsigned(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    /// Small magnitudes of either sign take few bytes.
    pub(super) fn signed(&mut self, value: i64) {
        self.unsigned(zigzag(value));
    }

    pub(super) fn fixed(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Bytes after their length.
    pub(super) fn framed(&mut self, bytes: &[u8]) {
        self.unsigned(bytes.len() as u64);
        self.fixed(bytes);
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// Takes numbers and bytes off the front.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes }
    }

    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        let (&first, rest) = self.rest.split_first().ok_or(Malformed("it ends too early"))?;
        self.rest = rest;
        Ok(first)
    }

    pub(super) fn unsigned(&mut self) -> Result<u64, Malformed> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed("a number is too long"))
    }

    pub(super) fn signed(&mut self) -> Result<i64, Malformed> {
        self.unsigned().map(unzigzag)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        u32::try_from(self.unsigned()?).map_err(|_| Malformed("a number is out of range"))
    }

    /// A count of things that take at least one byte each.
    pub(super) fn count(&mut self) -> Result<usize, Malformed> {
        let count = usize::try_from(self.unsigned()?).unwrap_or(usize::MAX);
        if count > self.rest.len() {
            Err(Malformed("a count is larger than what follows"))
        } else {
            Ok(count)
        }
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        if len > self.rest.len() {
            return Err(Malformed("it ends too early"));
        }
        let (taken, rest) = self.rest.split_at(len);
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    pub(super) fn framed(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.count()?;
        self.take(len)
    }

    pub(super) fn text(&mut self) -> Result<String, Malformed> {
        let bytes = self.framed()?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| Malformed("a text is not UTF-8"))
    }

    /// What follows, to its end.
    pub(super) fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// Nothing may follow.
    pub(super) fn finish(self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed("bytes follow its end")) }
    }
}

/// Compresses where that makes it clearly smaller. Sealed bytes cannot be compressed, so this comes first.
pub(super) fn pack(plain: &[u8], level: i32) -> Vec<u8> {
    if plain.len() >= PACK_FROM_BYTES
        && let Ok(small) = zstd::bulk::compress(plain, level)
        && small.len() < plain.len() - plain.len() / 8
    {
        let mut writer = Writer::with_capacity(small.len() + 8);
        writer.u8(ZSTD);
        writer.unsigned(plain.len() as u64);
        writer.fixed(&small);
        return writer.finish();
    }
    let mut out = Vec::with_capacity(plain.len() + 1);
    out.push(PLAIN);
    out.extend_from_slice(plain);
    out
}

/// The inverse of [`pack`].
pub(super) fn unpack(packed: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut reader = Reader::new(packed);
    match reader.u8()? {
        PLAIN => Ok(reader.rest.to_vec()),
        ZSTD => {
            let len = usize::try_from(reader.unsigned()?).unwrap_or(usize::MAX);
            if len > UNPACKED_LIMIT_BYTES {
                return Err(Malformed("its unpacked length is beyond the limit"));
            }
            let plain =
                zstd::bulk::decompress(reader.rest, len).map_err(|_| Malformed("it does not unpack"))?;
            if plain.len() == len { Ok(plain) } else { Err(Malformed("its unpacked length differs")) }
        }
        _ => Err(Malformed("it is packed in a way unknown to this release")),
    }
}

pub(super) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

pub(super) fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip_and_nothing_is_read_past_the_end() {
        for value in [0, 1, -1, 63, 64, -64, -65, i64::MAX, i64::MIN] {
            let mut writer = Writer::default();
            writer.signed(value);
            let bytes = writer.finish();
            let mut reader = Reader::new(&bytes);
            assert_eq!(reader.signed(), Ok(value));
            assert_eq!(reader.finish(), Ok(()));
            assert!(Reader::new(&bytes[..bytes.len() - 1]).signed().is_err(), "{value}");
        }
        assert!(Reader::new(&[0xff; 11]).unsigned().is_err());
        assert!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x0f, 1, 2]).count().is_err());
    }

    #[test]
    fn packing_round_trips_and_lies_about_the_length_are_refused() {
        let plain = b"heart rate ".repeat(100);
        let packed = pack(&plain, 1);
        assert!(packed.len() < plain.len() / 4);
        assert_eq!(unpack(&packed).unwrap(), plain);
        assert_eq!(unpack(&pack(b"short", 1)).unwrap(), b"short");
        let mut lying = packed.clone();
        lying[1] ^= 1;
        assert!(unpack(&lying).is_err());
        assert!(unpack(&packed[..packed.len() - 3]).is_err());
        assert!(unpack(&[]).is_err() && unpack(&[9, 1]).is_err());
    }
}
