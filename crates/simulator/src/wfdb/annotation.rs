//! Annotations in the MIT format: `annot(5)`.

/// Most annotations in one file: a day at 300 beats a minute.
pub const MAX_ANNOTATIONS: usize = 432_000;

/// One label at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annotation {
    /// Frame number.
    pub sample: u64,
    /// Type, 1 to 49.
    pub code: u8,
    /// Text that comes with it: `(AFIB` for a rhythm.
    pub text: Option<String>,
}

/// Why an annotation file is damaged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnnotationError {
    /// The file ends inside an annotation.
    #[error("the file ends inside an annotation at byte {offset}")]
    Truncated {
        /// Where, in bytes.
        offset: usize,
    },
    /// More than [`MAX_ANNOTATIONS`].
    #[error("the file has more than {MAX_ANNOTATIONS} annotations")]
    TooMany,
    /// A jump to before the start.
    #[error("an annotation at byte {offset} lies before the start of the record")]
    BeforeStart {
        /// Where, in bytes.
        offset: usize,
    },
}

const RHYTHM: u8 = 28;
const SKIP: u8 = 59;
const NUMBER: u8 = 60;
const SUBTYPE: u8 = 61;
const CHANNEL: u8 = 62;
const TEXT: u8 = 63;

impl Annotation {
    /// Whether it marks a beat of the heart (flutter waves among them: monitors count them as well).
    pub const fn is_beat(&self) -> bool {
        matches!(self.code, 1..=13 | 25 | 30 | 31 | 34 | 35 | 38 | 41)
    }

    /// Whether it marks a beat that began in the ventricles: premature, escape, R-on-T, flutter wave.
    pub const fn is_ventricular(&self) -> bool {
        matches!(self.code, 5 | 10 | 31 | 41)
    }

    /// The rhythm that begins here, such as `AFIB`, `VT`, `VFL`, `N`.
    pub fn rhythm(&self) -> Option<&str> {
        self.text.as_deref().filter(|_| self.code == RHYTHM).and_then(|text| text.strip_prefix('('))
    }
}

/// Reads a file of annotations.
///
/// # Errors
/// [`AnnotationError`] with the byte where the damage shows.
pub fn read_annotations(bytes: &[u8]) -> Result<Vec<Annotation>, AnnotationError> {
    let mut annotations: Vec<Annotation> = Vec::new();
    let mut at = 0usize;
    let mut time = 0i64;
    loop {
        let offset = at;
        let truncated = AnnotationError::Truncated { offset };
        let pair = bytes.get(at..at + 2).ok_or_else(|| truncated.clone())?;
        let word = u16::from_le_bytes([pair[0], pair[1]]);
        at += 2;
        let (code, low) = ((word >> 10) as u8, word & 0x03ff);
        match code {
            0 if low == 0 => return Ok(annotations),
            SKIP => {
                let long = bytes.get(at..at + 4).ok_or(truncated)?;
                // Two little-endian halves, the upper half first.
                let step = i32::from_le_bytes([long[2], long[3], long[0], long[1]]);
                at += 4;
                time = time.saturating_add(i64::from(step));
            }
            NUMBER | SUBTYPE | CHANNEL => {}
            TEXT => {
                let length = usize::from(low);
                let text = bytes.get(at..at + length).ok_or(truncated)?;
                at += length + length % 2;
                if let Some(last) = annotations.last_mut() {
                    let text = String::from_utf8_lossy(text);
                    last.text = Some(text.trim_end_matches('\0').to_owned());
                }
            }
            _ => {
                time = time.saturating_add(i64::from(low));
                let sample = u64::try_from(time).map_err(|_| AnnotationError::BeforeStart { offset })?;
                if annotations.len() == MAX_ANNOTATIONS {
                    return Err(AnnotationError::TooMany);
                }
                annotations.push(Annotation { sample, code, text: None });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn steps_texts_and_long_steps_are_read() {
        // A rhythm at 5 with "(VT", a beat 100 later, then a step of 70,000 and a ventricular beat.
        let mut bytes = Vec::new();
        bytes.extend((28u16 << 10 | 5).to_le_bytes());
        bytes.extend((63u16 << 10 | 3).to_le_bytes());
        bytes.extend(b"(VT\0");
        bytes.extend((1u16 << 10 | 100).to_le_bytes());
        bytes.extend((59u16 << 10).to_le_bytes());
        bytes.extend([0x01, 0x00, 0x70, 0x11]);
        bytes.extend((5u16 << 10).to_le_bytes());
        bytes.extend([0, 0]);
        let read = read_annotations(&bytes).unwrap();
        assert_eq!(read.iter().map(|a| a.sample).collect::<Vec<_>>(), vec![5, 105, 70_105]);
        assert_eq!(read[0].rhythm(), Some("VT"));
        assert!(!read[0].is_beat() && read[1].is_beat() && read[2].is_ventricular());
    }

    #[test]
    fn a_cut_file_is_refused() {
        assert_eq!(read_annotations(&[0x64]), Err(AnnotationError::Truncated { offset: 0 }));
        assert_eq!(
            read_annotations(&(59u16 << 10).to_le_bytes()),
            Err(AnnotationError::Truncated { offset: 0 })
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = read_annotations(&bytes);
        }
    }
}
