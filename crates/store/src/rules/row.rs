//! One reading without its series, as the tail, the blocks and the latest table hold it, and the law by which rows unite.

use clinical_model::{Absent, Committed, Decimal, Findings, Reading, SeriesKey, Timestamp, Value};

use super::bytes::{Reader, Writer};
use crate::StoreError;

/// Bytes that do not say what they should; the words complete "the row is damaged: ".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

impl Malformed {
    pub(super) fn of(self, what: impl Into<String>) -> StoreError {
        StoreError::Damaged { what: what.into(), how: self.0.to_owned() }
    }
}

/// A reading within its series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) measured_us: i64,
    pub(super) received_ms: i64,
    pub(super) committed_ms: i64,
    /// Number of the committed group; 0 once folded.
    pub(super) group: u64,
    pub(super) sequence: u32,
    pub(super) value: Value,
    pub(super) findings: Findings,
}

impl Row {
    pub(super) fn new(reading: &Reading, committed_at: Timestamp, group: u64) -> Self {
        Row {
            measured_us: reading.measured_at().as_micros(),
            received_ms: reading.received_at().as_millis(),
            committed_ms: committed_at.as_millis(),
            group,
            sequence: reading.sequence(),
            value: reading.value(),
            findings: reading.findings(),
        }
    }

    /// The identity within the series.
    pub(super) fn key(&self) -> (i64, u32) {
        (self.measured_us, self.sequence)
    }

    pub(super) fn committed(&self, series: SeriesKey) -> Committed<Reading> {
        let reading = Reading::restored(
            series,
            Timestamp::from_micros(self.measured_us),
            Timestamp::from_millis(self.received_ms),
            self.sequence,
            self.value,
            self.findings,
        );
        Committed::restored(reading, Timestamp::from_millis(self.committed_ms), self.group)
    }

    /// Encodes one row on its own, for the latest table.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::with_capacity(48);
        writer.u8(ROW_FORMAT);
        writer.signed(self.measured_us);
        writer.signed(self.received_ms - self.measured_us.div_euclid(1_000));
        writer.signed(self.committed_ms - self.received_ms);
        writer.unsigned(self.group);
        writer.unsigned(u64::from(self.sequence));
        write_value(&mut writer, self.value);
        writer.unsigned(u64::from(self.findings.bits()));
        writer.finish()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != ROW_FORMAT {
            return Err(Malformed("its format is unknown to this release"));
        }
        let measured_us = reader.signed()?;
        let received_ms = measured_us.div_euclid(1_000).wrapping_add(reader.signed()?);
        let row = Row {
            measured_us,
            received_ms,
            committed_ms: received_ms.wrapping_add(reader.signed()?),
            group: reader.unsigned()?,
            sequence: reader.u32()?,
            value: read_value(&mut reader)?,
            findings: Findings::from_bits_retain(reader.u32()?),
        };
        reader.finish()?;
        Ok(row)
    }
}

const ROW_FORMAT: u8 = 1;
/// Marks a value that is a number; other tags are the numbers of [`Absent`].
pub(super) const NUMBER: u8 = 0;

pub(super) fn write_value(writer: &mut Writer, value: Value) {
    match value {
        Value::Number(number) => {
            writer.u8(NUMBER);
            write_decimal(writer, number);
        }
        Value::Absent(absent) => writer.u8(absent as u8),
    }
}

pub(super) fn read_value(reader: &mut Reader<'_>) -> Result<Value, Malformed> {
    match reader.u8()? {
        NUMBER => read_decimal(reader).map(Value::Number),
        number => Absent::from_number(number)
            .map(Value::Absent)
            .ok_or(Malformed("a reason for an absent value is unknown to this release")),
    }
}

pub(super) fn write_decimal(writer: &mut Writer, value: Decimal) {
    writer.signed(value.mantissa());
    writer.signed(i64::from(value.exponent()));
}

pub(super) fn read_decimal(reader: &mut Reader<'_>) -> Result<Decimal, Malformed> {
    let mantissa = reader.signed()?;
    decimal(mantissa, reader.signed()?)
}

pub(super) fn decimal(mantissa: i64, exponent: i64) -> Result<Decimal, Malformed> {
    i8::try_from(exponent)
        .ok()
        .and_then(|exponent| Decimal::new(mantissa, exponent))
        .ok_or(Malformed("a number has impossible digits"))
}

/// Unites rows given in the order of their commits: sorted by identity, an equal value under one identity is a
/// repeat and is dropped, a different one is kept after the earlier and marked. Returns how many were dropped.
pub(super) fn unite(rows: &mut Vec<Row>) -> u64 {
    // The sort is stable, so commits stay in order under one identity.
    rows.sort_by_key(Row::key);
    let before = rows.len();
    let mut kept = 0;
    let mut run_start = 0;
    for at in 0..before {
        let mut row = rows[at];
        if kept == 0 || rows[kept - 1].key() != row.key() {
            run_start = kept;
        } else if rows[run_start..kept].iter().any(|earlier| earlier.value == row.value) {
            continue;
        } else {
            row.findings |= Findings::CONFLICT;
        }
        rows[kept] = row;
        kept += 1;
    }
    rows.truncate(kept);
    (before - kept) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(measured_us: i64, number: i64) -> Row {
        Row {
            measured_us,
            received_ms: measured_us.div_euclid(1_000) + 7,
            committed_ms: measured_us.div_euclid(1_000) + 9,
            group: 3,
            sequence: 0,
            value: Value::Number(Decimal::new(number, -1).unwrap()),
            findings: Findings::LATE,
        }
    }

    #[test]
    fn a_row_round_trips_and_cut_rows_are_refused() {
        let absent = Row { value: Value::Absent(Absent::Error), ..row(-1_500, 0) };
        for row in [row(1_700_000_000_123_456, 725), absent] {
            let bytes = row.encode();
            assert_eq!(Row::decode(&bytes), Ok(row));
            for len in 0..bytes.len() {
                assert!(Row::decode(&bytes[..len]).is_err());
            }
        }
    }

    #[test]
    fn repeats_vanish_and_other_values_stay_in_the_order_of_their_commits() {
        let mut rows = vec![row(2, 20), row(1, 10), row(2, 21), row(2, 20), row(1, 10), row(2, 21)];
        assert_eq!(unite(&mut rows), 3);
        let seen: Vec<_> = rows
            .iter()
            .map(|row| (row.measured_us, row.value, row.findings.contains(Findings::CONFLICT)))
            .collect();
        let number = |digits| Value::Number(Decimal::new(digits, -1).unwrap());
        assert_eq!(seen, [(1, number(10), false), (2, number(20), false), (2, number(21), true)]);
        let once = rows.clone();
        assert_eq!(unite(&mut rows), 0);
        assert_eq!(rows, once);
    }
}
