//! Samples of a WFDB signal file: unpacking, distribution over the signals, checksums. `signal(5)`.

use super::header::{Format, Header};

/// Stands for a sample that is not there, whatever its format used for it.
pub const MISSING: i16 = i16::MIN;

/// Why a signal file does not fit its header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignalError {
    /// Signals of one file in different formats, which the format does not allow.
    #[error("one signal file holds two formats")]
    MixedFormats,
    /// Fewer samples than announced.
    #[error("the file holds {found} samples, the header announces {announced}")]
    TooShort {
        /// Samples in the file.
        found: usize,
        /// Samples by the header.
        announced: usize,
    },
    /// The samples do not add up to the stated checksum.
    #[error(
        "signal {signal} adds up to {found}, the header states {stated}: the file is damaged or another one"
    )]
    Checksum {
        /// Number of the signal, from 0.
        signal: usize,
        /// Sum of its samples, 16 bits of it.
        found: i16,
        /// By the header.
        stated: i16,
    },
}

/// Unpacks a file and hands each signal its samples, skew undone, missing samples marked.
pub(super) fn demultiplex(header: &Header, bytes: &[u8]) -> Result<Vec<Vec<i16>>, SignalError> {
    let Some(first) = header.signals.first() else { return Ok(Vec::new()) };
    if header.signals.iter().any(|s| s.format != first.format) {
        return Err(SignalError::MixedFormats);
    }
    let body = bytes.get(first.byte_offset..).unwrap_or_default();
    let per_frame: usize = header.signals.iter().map(|s| s.samples_per_frame as usize).sum();
    let flat = unpack(first.format, body);
    let frames = if header.frames == 0 { flat.len() / per_frame } else { header.frames };
    let announced = frames.saturating_mul(per_frame);
    if flat.len() < announced {
        return Err(SignalError::TooShort { found: flat.len(), announced });
    }

    let mut columns = Vec::with_capacity(header.signals.len());
    let mut start = 0;
    for (number, signal) in header.signals.iter().enumerate() {
        let width = signal.samples_per_frame as usize;
        let mut column: Vec<i16> = flat[..announced]
            .chunks_exact(per_frame)
            .flat_map(|frame| frame[start..start + width].iter().copied())
            .collect();
        start += width;
        let found = column.iter().fold(0i16, |sum, sample| sum.wrapping_add(*sample));
        if let Some(stated) = signal.checksum.filter(|stated| header.frames > 0 && *stated != found) {
            return Err(SignalError::Checksum { signal: number, found, stated });
        }
        let late = (signal.skew_frames as usize * width).min(column.len());
        let missing = missing_count(signal.format);
        for sample in &mut column {
            if *sample == missing {
                *sample = MISSING;
            }
        }
        // A skewed signal lags in the file: it starts later, and its end lies beyond it.
        column.drain(..late);
        column.extend(std::iter::repeat_n(MISSING, late));
        columns.push(column);
    }
    Ok(columns)
}

/// The lowest count of a format stands for "no value".
const fn missing_count(format: Format) -> i16 {
    match format {
        Format::Packed12 => -2048,
        Format::Sixteen => i16::MIN,
        Format::OffsetEight => -128,
    }
}

fn unpack(format: Format, bytes: &[u8]) -> Vec<i16> {
    match format {
        Format::Packed12 => {
            let mut samples = Vec::with_capacity(bytes.len() / 3 * 2 + 1);
            for group in bytes.chunks(3) {
                let &[low, middle, ref rest @ ..] = group else { break };
                samples.push(sign12(u16::from(low) | u16::from(middle & 0x0f) << 8));
                if let Some(high) = rest.first() {
                    samples.push(sign12(u16::from(*high) | u16::from(middle >> 4) << 8));
                }
            }
            samples
        }
        Format::Sixteen => bytes.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect(),
        Format::OffsetEight => bytes.iter().map(|byte| i16::from(*byte) - 128).collect(),
    }
}

/// Sign-extends the lower 12 bits.
const fn sign12(bits: u16) -> i16 {
    ((bits << 4) as i16) >> 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twelve_bits_are_unpacked_with_their_sign() {
        // Low bytes 0x01 and 0xff, middle 0xf8: 0x801 is -2047, 0xfff is -1.
        assert_eq!(unpack(Format::Packed12, &[0x01, 0xf8, 0xff]), vec![-2047, -1]);
        // An odd number of samples ends after two bytes.
        assert_eq!(unpack(Format::Packed12, &[0xff, 0x07]), vec![2047]);
    }

    #[test]
    fn eight_bits_are_offset_binary() {
        assert_eq!(unpack(Format::OffsetEight, &[0, 128, 255]), vec![-128, 0, 127]);
    }

    #[test]
    fn skewed_and_missing_samples_are_marked() {
        let header = Header::parse("r 2 100 4\nr.dat 80:1 1/mV 8 0 0 0 0 a\nr.dat 80 1/mV 8 0 0 0 0 b\n");
        let mut header = header.unwrap();
        header.signals.iter_mut().for_each(|s| s.checksum = None);
        let bytes = [128, 128, 129, 0, 130, 130, 131, 131];
        let columns = demultiplex(&header, &bytes).unwrap();
        assert_eq!(columns, vec![vec![1, 2, 3, MISSING], vec![0, MISSING, 2, 3]]);
    }

    #[test]
    fn damage_is_seen() {
        let header = Header::parse("r 1 100 2\nr.dat 16 1/mV 16 0 1 3 0 a\n").unwrap();
        assert!(demultiplex(&header, &[1, 0, 2, 0]).is_ok());
        assert_eq!(
            demultiplex(&header, &[1, 0, 3, 0]),
            Err(SignalError::Checksum { signal: 0, found: 4, stated: 3 })
        );
        assert_eq!(demultiplex(&header, &[1, 0]), Err(SignalError::TooShort { found: 1, announced: 2 }));
    }
}
