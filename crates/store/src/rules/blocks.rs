//! Blocks of readings and of curves: each column compressed on its own, constant columns for almost nothing.

use clinical_model::{Absent, Committed, Findings, SeriesKey, Timestamp, Value, Waveform};
use pco::standalone::{simple_compress, simple_decompress};
use pco::{ChunkConfig, DeltaSpec};

use super::bytes::{Reader, Writer, zigzag};
use super::row::{Malformed, NUMBER, Row, decimal, read_decimal, write_decimal};

/// First byte of a block of readings.
const ROWS_FORMAT: u8 = 2;
/// The first release's: times of receipt always stand against times of measurement.
const ROWS_FORMAT_RELATIVE: u8 = 1;
/// First byte of a block of a curve.
const CURVE_FORMAT: u8 = 1;
/// Most rows that a block is believed to hold; guards against a damaged count.
const ROWS_LIMIT: usize = 1 << 22;
/// Below this many values the entropy coder's tables cost more than they save.
const CODER_FROM_VALUES: usize = 48;
/// Second differences suit curves: measured on real electrocardiograms, and fast for short blocks.
const CURVE_DELTA_ORDER: usize = 2;
/// The coder's usual level.
const LEVEL: usize = 8;

const CONSTANT: u8 = 0;
const PROGRESSION: u8 = 1;
const DIFFERENCES: u8 = 2;
const CODED: u8 = 3;

/// Encodes rows in the order given.
pub(super) fn encode_rows(rows: &[Row]) -> Result<Vec<u8>, Malformed> {
    let mut writer = Writer::with_capacity(64 + rows.len() * 2);
    writer.u8(ROWS_FORMAT);
    writer.unsigned(rows.len() as u64);
    let digits = |row: &Row| row.value.number();
    let columns: [&dyn Fn(&Row) -> i64; 6] = [
        &|row| row.measured_us,
        &|row| i64::from(row.sequence),
        &|row| digits(row).map_or(0, |number| number.mantissa()),
        &|row| digits(row).map_or(0, |number| i64::from(number.exponent())),
        &|row| match row.value {
            Value::Number(_) => i64::from(NUMBER),
            Value::Absent(absent) => i64::from(absent as u8),
        },
        &|row| i64::from(row.findings.bits()),
    ];
    let mut values = Vec::with_capacity(rows.len());
    let mut write = |writer: &mut Writer, column: &dyn Fn(&Row) -> i64| {
        values.clear();
        values.extend(rows.iter().map(column));
        write_column(writer, &values)
    };
    for column in columns {
        write(&mut writer, column)?;
    }
    // Readings that come one by one arrive a little after they are measured; those of a message all arrive with it.
    let (mut relative, mut absolute) = (Writer::default(), Writer::default());
    write(&mut relative, &|row| row.received_ms - row.measured_us.div_euclid(1_000))?;
    write(&mut absolute, &|row| row.received_ms)?;
    let is_absolute = absolute.len() < relative.len();
    writer.u8(u8::from(is_absolute));
    writer.fixed(&if is_absolute { absolute } else { relative }.finish());
    write(&mut writer, &|row| row.committed_ms - row.received_ms)?;
    Ok(writer.finish())
}

/// Decodes rows.
pub(super) fn decode_rows(bytes: &[u8]) -> Result<Vec<Row>, Malformed> {
    let mut reader = Reader::new(bytes);
    let format = reader.u8()?;
    if ![ROWS_FORMAT, ROWS_FORMAT_RELATIVE].contains(&format) {
        return Err(Malformed("its format is unknown to this release"));
    }
    let count = usize::try_from(reader.unsigned()?).unwrap_or(usize::MAX);
    if count > ROWS_LIMIT {
        return Err(Malformed("it claims more rows than a block can hold"));
    }
    let mut column = || read_column(&mut reader, count);
    let (measured, sequence, mantissa, exponent) = (column()?, column()?, column()?, column()?);
    let (absent, findings) = (column()?, column()?);
    let is_absolute = format == ROWS_FORMAT && reader.u8()? == 1;
    let (received, committed) = (read_column(&mut reader, count)?, read_column(&mut reader, count)?);
    reader.finish()?;
    let range = |_| Malformed("a number is out of range");
    let mut rows = Vec::with_capacity(count);
    for at in 0..count {
        let value = match u8::try_from(absent[at]).map_err(range)? {
            NUMBER => Value::Number(decimal(mantissa[at], exponent[at])?),
            number => Value::Absent(
                Absent::from_number(number)
                    .ok_or(Malformed("a reason for an absent value is unknown to this release"))?,
            ),
        };
        let received_ms = match is_absolute {
            true => received[at],
            false => measured[at].div_euclid(1_000).wrapping_add(received[at]),
        };
        rows.push(Row {
            measured_us: measured[at],
            received_ms,
            committed_ms: received_ms.wrapping_add(committed[at]),
            group: 0,
            sequence: u32::try_from(sequence[at]).map_err(range)?,
            value,
            findings: Findings::from_bits_retain(u32::try_from(findings[at]).map_err(range)?),
        });
    }
    Ok(rows)
}

/// Writes one column in the cheapest of four ways.
pub(super) fn write_column(writer: &mut Writer, values: &[i64]) -> Result<(), Malformed> {
    let first = values.first().copied().unwrap_or(0);
    let step = values.get(1).map_or(0, |second| second.wrapping_sub(first));
    let stepwise = values.windows(2).all(|pair| pair[1].wrapping_sub(pair[0]) == step);
    if stepwise && step == 0 {
        writer.u8(CONSTANT);
        writer.signed(first);
        return Ok(());
    }
    if stepwise {
        writer.u8(PROGRESSION);
        writer.signed(first);
        writer.signed(step);
        return Ok(());
    }
    let mut differences = Writer::with_capacity(values.len() * 2);
    let mut before = 0_i64;
    for value in values {
        differences.unsigned(zigzag(value.wrapping_sub(before)));
        before = *value;
    }
    if values.len() >= CODER_FROM_VALUES {
        let config = ChunkConfig::default().with_compression_level(LEVEL);
        let coded = simple_compress(values, &config).map_err(|_| Malformed("the coder refused a column"))?;
        if coded.len() < differences.len() {
            writer.u8(CODED);
            writer.framed(&coded);
            return Ok(());
        }
    }
    writer.u8(DIFFERENCES);
    writer.framed(&differences.finish());
    Ok(())
}

pub(super) fn read_column(reader: &mut Reader<'_>, count: usize) -> Result<Vec<i64>, Malformed> {
    match reader.u8()? {
        CONSTANT => Ok(vec![reader.signed()?; count]),
        PROGRESSION => {
            let (first, step) = (reader.signed()?, reader.signed()?);
            Ok((0..count as i64).map(|at| first.wrapping_add(step.wrapping_mul(at))).collect())
        }
        DIFFERENCES => {
            let mut inner = Reader::new(reader.framed()?);
            let mut values = Vec::with_capacity(count);
            let mut before = 0_i64;
            for _ in 0..count {
                before = before.wrapping_add(inner.signed()?);
                values.push(before);
            }
            inner.finish()?;
            Ok(values)
        }
        CODED => {
            let values: Vec<i64> =
                simple_decompress(reader.framed()?).map_err(|_| Malformed("a column does not decode"))?;
            if values.len() == count { Ok(values) } else { Err(Malformed("a column has another length")) }
        }
        _ => Err(Malformed("a column is coded in a way unknown to this release")),
    }
}

/// Encodes a block of a curve; its start stands in the row beside it.
pub(super) fn encode_curve(curve: &Committed<Waveform>) -> Result<Vec<u8>, Malformed> {
    let waveform = curve.get();
    let mut writer = Writer::with_capacity(64 + waveform.samples.len());
    writer.u8(CURVE_FORMAT);
    writer.signed(waveform.start.as_micros());
    writer.signed(waveform.received_at.as_millis());
    writer.signed(curve.committed_at().as_millis());
    writer.unsigned(u64::from(waveform.rate_numerator));
    writer.unsigned(u64::from(waveform.rate_denominator));
    write_decimal(&mut writer, waveform.gain);
    write_decimal(&mut writer, waveform.offset);
    writer.unsigned(u64::from(waveform.findings.bits()));
    writer.unsigned(waveform.samples.len() as u64);
    if waveform.samples.len() < CODER_FROM_VALUES {
        for sample in &waveform.samples {
            writer.fixed(&sample.to_le_bytes());
        }
    } else {
        let config = ChunkConfig::default()
            .with_compression_level(LEVEL)
            .with_delta_spec(DeltaSpec::TryConsecutive(CURVE_DELTA_ORDER));
        let coded = simple_compress(&waveform.samples, &config)
            .map_err(|_| Malformed("the coder refused a curve"))?;
        writer.fixed(&coded);
    }
    Ok(writer.finish())
}

/// Decodes a block of a curve.
pub(super) fn decode_curve(bytes: &[u8], series: SeriesKey) -> Result<Committed<Waveform>, Malformed> {
    let mut reader = Reader::new(bytes);
    if reader.u8()? != CURVE_FORMAT {
        return Err(Malformed("its format is unknown to this release"));
    }
    let start = Timestamp::from_micros(reader.signed()?);
    let received_at = Timestamp::from_millis(reader.signed()?);
    let committed_at = Timestamp::from_millis(reader.signed()?);
    let (rate_numerator, rate_denominator) = (reader.u32()?, reader.u32()?);
    if rate_numerator == 0 || rate_denominator == 0 {
        return Err(Malformed("its sampling rate is zero"));
    }
    let (gain, offset) = (read_decimal(&mut reader)?, read_decimal(&mut reader)?);
    let findings = Findings::from_bits_retain(reader.u32()?);
    let count = usize::try_from(reader.unsigned()?).unwrap_or(usize::MAX);
    let samples: Vec<i16> = if count < CODER_FROM_VALUES {
        let samples = (0..count).map(|_| reader.array().map(i16::from_le_bytes)).collect::<Result<_, _>>()?;
        reader.finish()?;
        samples
    } else {
        simple_decompress(reader.rest()).map_err(|_| Malformed("its samples do not decode"))?
    };
    if samples.len() != count {
        return Err(Malformed("it has another number of samples than it says"));
    }
    let waveform = Waveform {
        series,
        start,
        received_at,
        rate_numerator,
        rate_denominator,
        gain,
        offset,
        samples,
        findings,
    };
    Ok(Committed::restored(waveform, committed_at, 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clinical_model::{Decimal, DeviceId, PatientId, Subject, measure};
    use proptest::prelude::*;

    fn second(at: i64, digits: i64) -> Row {
        Row {
            measured_us: 1_795_332_600_000_000 + at * 1_000_000,
            received_ms: 1_795_332_600_040 + at * 1_000,
            committed_ms: 1_795_332_600_050 + at * 1_000,
            group: 0,
            sequence: 0,
            value: Value::Number(Decimal::new(digits, 0).unwrap()),
            findings: Findings::empty(),
        }
    }

    #[test]
    fn a_steady_series_costs_about_as_much_as_its_values() {
        let rows: Vec<Row> = (0..4_096).map(|at| second(at, 72)).collect();
        let bytes = encode_rows(&rows).unwrap();
        assert!(bytes.len() < 64, "{} bytes", bytes.len());
        assert_eq!(decode_rows(&bytes).unwrap(), rows);
        let varied: Vec<Row> = (0..4_096).map(|at| second(at, 72 + (at * at) % 5)).collect();
        let bytes = encode_rows(&varied).unwrap();
        assert!(bytes.len() < 4_096, "{} bytes", bytes.len());
        assert_eq!(decode_rows(&bytes).unwrap(), varied);
    }

    #[test]
    fn readings_of_one_message_cost_nothing_for_their_common_time_of_receipt() {
        let of_message = |at: i64| {
            let row = second(at, 72);
            let minute_ms = 1_795_332_600_000 + (at / 60 + 1) * 60_000;
            let jitter_us = (at * at * 7_919 + at * 31) % 40_000;
            let measured_us = row.measured_us + jitter_us;
            Row { measured_us, received_ms: minute_ms, committed_ms: minute_ms + 3, ..row }
        };
        let rows: Vec<Row> = (0..4_096).map(of_message).collect();
        let alone: Vec<Row> =
            rows.iter().map(|row| Row { received_ms: 0, committed_ms: 0, ..*row }).collect();
        let (bytes, without) = (encode_rows(&rows).unwrap(), encode_rows(&alone).unwrap());
        assert!(bytes.len() < without.len() + 600, "{} bytes, {} without", bytes.len(), without.len());
        assert_eq!(decode_rows(&bytes).unwrap(), rows);
    }

    #[test]
    fn blocks_of_the_first_release_are_read() {
        let rows: Vec<Row> = (0..200).map(|at| second(at * at % 37, 60 + at % 11)).collect();
        let mut writer = Writer::default();
        writer.u8(ROWS_FORMAT_RELATIVE);
        writer.unsigned(rows.len() as u64);
        let number = |row: &Row| row.value.number().unwrap();
        let columns: [&dyn Fn(&Row) -> i64; 8] = [
            &|row| row.measured_us,
            &|row| i64::from(row.sequence),
            &|row| number(row).mantissa(),
            &|row| i64::from(number(row).exponent()),
            &|_| i64::from(NUMBER),
            &|row| i64::from(row.findings.bits()),
            &|row| row.received_ms - row.measured_us.div_euclid(1_000),
            &|row| row.committed_ms - row.received_ms,
        ];
        for column in columns {
            write_column(&mut writer, &rows.iter().map(column).collect::<Vec<_>>()).unwrap();
        }
        assert_eq!(decode_rows(&writer.finish()).unwrap(), rows);
    }

    #[test]
    fn cut_blocks_are_refused() {
        let rows: Vec<Row> = (0..100).map(|at| second(at * at % 37, at * 31 % 11)).collect();
        let bytes = encode_rows(&rows).unwrap();
        for len in 0..bytes.len() {
            assert!(decode_rows(&bytes[..len]).is_err(), "{len}");
        }
    }

    #[test]
    fn a_curve_round_trips_at_every_length_around_the_coders_limits() {
        let series = SeriesKey {
            subject: Subject::Patient(PatientId::from_bytes([1; 16])),
            measure: measure::HEART_RATE,
            device: DeviceId::from_bytes([2; 16]),
        };
        for len in [1, 2, 15, 16, 47, 48, 49, 255, 256, 257, 7_500] {
            let mut samples: Vec<i16> = (0..len).map(|at| ((at * at) % 700) as i16 - 350).collect();
            samples[len as usize / 2] = clinical_model::reading::MISSING_SAMPLE;
            let waveform = Waveform {
                series,
                start: Timestamp::from_micros(1_795_332_600_000_123),
                received_at: Timestamp::from_millis(1_795_332_600_040),
                rate_numerator: 500,
                rate_denominator: 3,
                gain: "0.00488".parse().unwrap(),
                offset: "-1".parse().unwrap(),
                samples,
                findings: Findings::LOW_SIGNAL,
            };
            let curve = Committed::restored(waveform, Timestamp::from_millis(1_795_332_600_099), 0);
            let bytes = encode_curve(&curve).unwrap();
            assert_eq!(decode_curve(&bytes, series).unwrap(), curve, "{len}");
            assert!(decode_curve(&bytes[..bytes.len() - 1], series).is_err(), "{len}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_column_round_trips(values in prop::collection::vec(any::<i64>(), 0..200), small in any::<bool>()) {
            let values: Vec<i64> = values.iter().map(|v| if small { v % 50 } else { *v }).collect();
            let mut writer = Writer::default();
            write_column(&mut writer, &values).unwrap();
            let bytes = writer.finish();
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(read_column(&mut reader, values.len()).unwrap(), values);
            prop_assert_eq!(reader.finish(), Ok(()));
        }
    }
}
