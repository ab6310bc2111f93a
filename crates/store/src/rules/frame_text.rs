//! Packing of raw frames that are repetitive text: numbers stand in columns of their own, so that digits cost what they say
//! and not how they are written. Every byte comes back as it was.
//!
//! The bytes are cut into runs of digits and what stands between them. Between the digits the same few pieces come again
//! and again, so that a number for each is enough; the digits of one place (the second of a time, the value of a heart
//! rate) follow one another in a column and are coded as a column of readings is.

use std::collections::HashMap;

use super::blocks::{read_column, write_column};
use super::bytes::{self, Reader, Writer};
use super::row::Malformed;

/// First byte of packed columns; plain and zstd packing have 0 and 1.
const COLUMNS: u8 = 2;
/// Digits of one number: what fits an `i64`.
const DIGITS_LIMIT: usize = 18;
/// Below this many bytes columns cost more than they save.
const SPLIT_FROM_BYTES: usize = 2_048;
/// There must be so many numbers for each distinct piece between them, or the text does not repeat itself.
const NUMBERS_PER_PIECE: usize = 8;
/// Columns of one bundle; text with more does not repeat itself.
const COLUMNS_LIMIT: usize = 512;
/// Bytes that columns are believed to unpack to; guards against a damaged length.
const JOINED_LIMIT_BYTES: usize = 64 << 20;

/// No leading zeros in the column.
const NATURAL: u8 = 0;
/// Every number of the column has the same number of digits, which follows.
const FIXED: u8 = 1;
/// The numbers of digits stand in a column of their own, which follows.
const VARYING: u8 = 2;

/// Packs in columns where the bytes are repetitive text, and as [`bytes::pack`] does where they are not.
pub(super) fn pack(plain: &[u8], level: i32) -> Vec<u8> {
    let Some(columns) = split(plain) else { return bytes::pack(plain, level) };
    let mut packed = vec![COLUMNS];
    packed.extend_from_slice(&bytes::pack(&columns, level));
    packed
}

/// The inverse of [`pack`].
pub(super) fn unpack(packed: &[u8]) -> Result<Vec<u8>, Malformed> {
    match packed.split_first() {
        Some((&COLUMNS, rest)) => join(&bytes::unpack(rest)?),
        _ => bytes::unpack(packed),
    }
}

/// Which column a number belongs to: that of the two pieces before it.
#[derive(Default)]
struct Places {
    known: HashMap<(u32, u32), usize>,
    before: u32,
}

impl Places {
    fn column(&mut self, piece: u32) -> usize {
        let next = self.known.len();
        let column = *self.known.entry((self.before, piece)).or_insert(next);
        self.before = piece;
        column
    }
}

/// The numbers of one place, and how many digits each has.
#[derive(Default)]
struct Column {
    values: Vec<i64>,
    widths: Vec<i64>,
}

/// `None` where the bytes do not repeat themselves.
fn split(plain: &[u8]) -> Option<Vec<u8>> {
    if plain.len() < SPLIT_FROM_BYTES {
        return None;
    }
    let mut pieces: Vec<&[u8]> = Vec::new();
    let mut known: HashMap<&[u8], u32> = HashMap::new();
    let mut order: Vec<u32> = Vec::new();
    let (mut places, mut columns) = (Places::default(), Vec::<Column>::new());
    let mut rest = plain;
    loop {
        let end = rest.iter().position(u8::is_ascii_digit).unwrap_or(rest.len());
        let (piece, behind) = rest.split_at(end);
        let number = *known.entry(piece).or_insert_with(|| {
            pieces.push(piece);
            pieces.len() as u32 - 1
        });
        order.push(number);
        if behind.is_empty() {
            break;
        }
        let digits = behind.iter().take(DIGITS_LIMIT).take_while(|byte| byte.is_ascii_digit()).count();
        let value = behind[..digits].iter().fold(0, |value, digit| value * 10 + i64::from(digit - b'0'));
        let column = places.column(number);
        if column == columns.len() {
            columns.push(Column::default());
        }
        columns[column].values.push(value);
        columns[column].widths.push(digits as i64);
        rest = &behind[digits..];
        // Said early for text without numbers that come again, such as base64.
        let is_unlike = pieces.len() * NUMBERS_PER_PIECE > order.len() + 64 * NUMBERS_PER_PIECE;
        if is_unlike || columns.len() > COLUMNS_LIMIT {
            return None;
        }
    }
    if pieces.len() * NUMBERS_PER_PIECE > order.len() {
        return None;
    }
    let mut writer = Writer::with_capacity(plain.len() / 8);
    writer.unsigned(plain.len() as u64);
    writer.unsigned(pieces.len() as u64);
    pieces.iter().for_each(|piece| writer.framed(piece));
    writer.unsigned(order.len() as u64);
    order.iter().for_each(|piece| writer.unsigned(u64::from(*piece)));
    for column in &columns {
        write_numbers(&mut writer, column).ok()?;
    }
    Some(writer.finish())
}

fn write_numbers(writer: &mut Writer, column: &Column) -> Result<(), Malformed> {
    let natural = |value: i64| value.checked_ilog10().map_or(1, |log| i64::from(log) + 1);
    let first = column.widths.first().copied().unwrap_or(1);
    if column.values.iter().zip(&column.widths).all(|(value, width)| natural(*value) == *width) {
        writer.u8(NATURAL);
    } else if column.widths.iter().all(|width| *width == first) {
        writer.u8(FIXED);
        writer.u8(first as u8);
    } else {
        writer.u8(VARYING);
        write_column(writer, &column.widths)?;
    }
    write_column(writer, &column.values)
}

fn join(split: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut reader = Reader::new(split);
    let length = usize::try_from(reader.unsigned()?).unwrap_or(usize::MAX);
    if length > JOINED_LIMIT_BYTES {
        return Err(Malformed("its length in columns is beyond the limit"));
    }
    let pieces = (0..reader.count()?).map(|_| reader.framed()).collect::<Result<Vec<_>, _>>()?;
    let order = (0..reader.count()?).map(|_| reader.u32()).collect::<Result<Vec<_>, _>>()?;
    let (last, before_numbers) = order.split_last().ok_or(Malformed("it has no pieces"))?;
    let mut places = Places::default();
    let columns: Vec<usize> = before_numbers.iter().map(|piece| places.column(*piece)).collect();
    let mut sizes = vec![0; places.known.len()];
    columns.iter().for_each(|column| sizes[*column] += 1);
    let mut numbers = Vec::with_capacity(sizes.len());
    for size in sizes {
        numbers.push(read_numbers(&mut reader, size)?.into_iter());
    }
    reader.finish()?;
    let piece = |number: &u32| pieces.get(*number as usize).copied().ok_or(Malformed("a piece is unknown"));
    let mut plain = Vec::with_capacity(length);
    for (number, column) in before_numbers.iter().zip(columns) {
        plain.extend_from_slice(piece(number)?);
        let digits = numbers[column].next().ok_or(Malformed("a column is too short"))?;
        plain.extend_from_slice(digits.as_bytes());
        if plain.len() > length {
            return Err(Malformed("its columns are longer than they say"));
        }
    }
    plain.extend_from_slice(piece(last)?);
    if plain.len() == length { Ok(plain) } else { Err(Malformed("its columns have another length")) }
}

fn read_numbers(reader: &mut Reader<'_>, count: usize) -> Result<Vec<String>, Malformed> {
    let widths = match reader.u8()? {
        NATURAL => vec![0; count],
        FIXED => vec![i64::from(reader.u8()?); count],
        VARYING => read_column(reader, count)?,
        _ => return Err(Malformed("a width is coded in a way unknown to this release")),
    };
    let values = read_column(reader, count)?;
    let number = |(value, width): (i64, i64)| {
        let width = usize::try_from(width).ok().filter(|width| *width <= DIGITS_LIMIT);
        match (width, value >= 0) {
            (Some(width), true) => Ok(format!("{value:0width$}")),
            _ => Err(Malformed("a number cannot be written")),
        }
    };
    values.into_iter().zip(widths).map(number).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn readings(count: i64) -> Vec<u8> {
        let one = |at: i64| {
            format!(
                "{{\"measure\":\"heart_rate\",\"value\":{},\"unit\":\"/min\",\"time\":\"2026-11-22T08:{:02}:{:02}.{:03}Z\"}},",
                60 + at * at % 37,
                at / 60 % 60,
                at % 60,
                at * 7_919 % 40
            )
        };
        (0..count).map(one).collect::<String>().into_bytes()
    }

    #[test]
    fn readings_in_json_cost_about_as_much_as_their_numbers() {
        let plain = readings(1_000);
        let packed = pack(&plain, 3);
        assert_eq!(packed[0], COLUMNS);
        assert!(packed.len() < 2_000, "{} bytes for 1,000 readings", packed.len());
        assert!(packed.len() * 2 < bytes::pack(&plain, 3).len());
        assert_eq!(unpack(&packed).unwrap(), plain);
    }

    #[test]
    fn what_does_not_repeat_itself_is_packed_as_before() {
        // As samples in base64 are.
        let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let letter =
            |at: u64| letters[(at.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23) >> 58) as usize];
        let noise: Vec<u8> = (0..20_000_u64).map(|at| letter(at * at + 7)).collect();
        for plain in [&noise[..], b"", b"1", &[b'7'; 5_000], &readings(3)] {
            let packed = pack(plain, 3);
            assert_eq!(unpack(&packed).unwrap(), plain);
        }
        assert_ne!(pack(&noise, 3)[0], COLUMNS);
    }

    #[test]
    fn damaged_columns_are_refused_or_differ_but_never_harm() {
        let plain = readings(200);
        let split = split(&plain).unwrap();
        for length in 0..split.len() {
            assert!(join(&split[..length]).is_err(), "{length}");
        }
        for at in 0..split.len() {
            let mut flipped = split.clone();
            flipped[at] ^= 0x55;
            // Sealing finds a flipped bit before this is asked; it must only not panic.
            let _ = join(&flipped);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_text_comes_back(
            pieces in prop::collection::vec("[0-9]{0,25}[a-z\\x00-\\x1f:.,]{0,3}", 1..12),
            repeats in 1_usize..300,
        ) {
            let plain = pieces.concat().repeat(repeats).into_bytes();
            prop_assert_eq!(unpack(&pack(&plain, 3)).unwrap(), plain);
        }
    }
}
