//! The text header of a WFDB record: `header(5)`.

/// Most signals in one record: the widest published ones have a few dozen.
pub const MAX_SIGNALS: usize = 64;
/// Most samples of one signal in one frame: the format has no limit, real files stay below 16.
pub const MAX_SAMPLES_PER_FRAME: u32 = 64;
/// Gain that the format prescribes where none is stated, in counts per unit.
pub const DEFAULT_GAIN: f64 = 200.0;

/// How samples are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Two 12-bit two's complement numbers in three bytes.
    Packed12,
    /// 16-bit two's complement, little endian.
    Sixteen,
    /// 8-bit offset binary (128 is zero).
    OffsetEight,
}

/// What the header says of one signal.
#[derive(Clone, Debug, PartialEq)]
pub struct SignalHeader {
    /// File with the samples.
    pub file: String,
    /// How they are packed.
    pub format: Format,
    /// Samples of this signal in each frame, at least 1.
    pub samples_per_frame: u32,
    /// By how many frames this signal lags in the file.
    pub skew_frames: u32,
    /// Bytes before the first sample.
    pub byte_offset: usize,
    /// Counts per unit.
    pub gain: f64,
    /// Count at zero units.
    pub baseline: i32,
    /// Unit as written: `mV`, `mmHg`, `NU`.
    pub unit: String,
    /// Sum of all samples as a 16-bit number, where stated.
    pub checksum: Option<i16>,
    /// What the signal is: `MLII`, `ABP`.
    pub description: String,
}

/// A header.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    /// Name of the record.
    pub record: String,
    /// Frames a second.
    pub frame_rate_hz: f64,
    /// Number of frames; 0 where the header does not say.
    pub frames: usize,
    /// The signals.
    pub signals: Vec<SignalHeader>,
    /// Comment lines without their `#`.
    pub comments: Vec<String>,
}

/// Why a header is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// There is no record line.
    #[error("it has no record line")]
    Empty,
    /// The record is made of segments.
    #[error("it is made of segments; name one of its segments instead")]
    Segments,
    /// A field is missing or is no number.
    #[error("line {line}: {field} is missing or not as it should be: \"{text}\"")]
    Field {
        /// Line, from 1.
        line: usize,
        /// Which field.
        field: &'static str,
        /// The text there, cut to 60 characters.
        text: String,
    },
    /// A storage format that is not read.
    #[error("line {line}: signal format {format} is not read; 212, 16 and 80 are")]
    Format {
        /// Line, from 1.
        line: usize,
        /// The format as written.
        format: String,
    },
    /// Too many signals, or a line missing for one.
    #[error("it announces {announced} signals and describes {described} (at most {MAX_SIGNALS} are read)")]
    Signals {
        /// By the record line.
        announced: usize,
        /// Signal lines found.
        described: usize,
    },
    /// Signals in several files.
    #[error("its signals lie in several files, {first} and {other}")]
    SeveralFiles {
        /// The first.
        first: String,
        /// Another.
        other: String,
    },
}

fn field_error(line: usize, field: &'static str, text: &str) -> HeaderError {
    HeaderError::Field { line, field, text: text.chars().take(60).collect() }
}

impl Header {
    /// Reads a header.
    ///
    /// # Errors
    /// [`HeaderError`] names the line and the field.
    pub fn parse(text: &str) -> Result<Header, HeaderError> {
        let mut comments = Vec::new();
        let mut lines = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            match line.strip_prefix('#') {
                Some(comment) => comments.push(comment.trim().to_owned()),
                None if line.is_empty() => {}
                None => lines.push((index + 1, line)),
            }
        }
        let (&(at, first), rest) = lines.split_first().ok_or(HeaderError::Empty)?;
        let fields: Vec<&str> = first.split_whitespace().collect();
        let name = fields.first().copied().unwrap_or_default();
        if name.contains('/') {
            return Err(HeaderError::Segments);
        }
        let announced = fields
            .get(1)
            .and_then(|f| f.parse::<usize>().ok())
            .ok_or_else(|| field_error(at, "number of signals", first))?;
        let frame_rate_hz = match fields.get(2) {
            // 250 Hz is what the format prescribes where no frequency is stated.
            None => 250.0,
            Some(field) => frequency(field).ok_or_else(|| field_error(at, "sampling frequency", field))?,
        };
        let frames = match fields.get(3) {
            None => 0,
            Some(field) => field.parse().map_err(|_| field_error(at, "number of samples", field))?,
        };
        if announced > MAX_SIGNALS || rest.len() < announced {
            return Err(HeaderError::Signals { announced, described: rest.len() });
        }
        let signals =
            rest[..announced].iter().map(|(at, line)| signal(*at, line)).collect::<Result<Vec<_>, _>>()?;
        if let Some(other) = signals.iter().find(|s| s.file != signals[0].file) {
            return Err(HeaderError::SeveralFiles {
                first: signals[0].file.clone(),
                other: other.file.clone(),
            });
        }
        Ok(Header { record: name.to_owned(), frame_rate_hz, frames, signals, comments })
    }
}

/// `360`, `250/24000`, `125/125(0)`: what stands before the counter frequency.
fn frequency(field: &str) -> Option<f64> {
    let number = field.split(['/', '(']).next()?;
    number.parse::<f64>().ok().filter(|f| f.is_finite() && *f > 0.0)
}

fn signal(at: usize, line: &str) -> Result<SignalHeader, HeaderError> {
    let mut rest = line;
    let mut next = || {
        let trimmed = rest.trim_start();
        let end = trimmed.find(char::is_whitespace).unwrap_or(trimmed.len());
        let (field, after) = trimmed.split_at(end);
        rest = after;
        field
    };
    let file = next().to_owned();
    let packing = next();
    let gain_field = next();
    let _resolution_bits = next();
    let zero_field = next();
    let _first_value = next();
    let checksum = next().parse::<i32>().ok().map(|sum| sum as i16);
    let _block_size = next();
    let description = rest.trim().to_owned();

    // Only a plain file name: a header must not lead out of its folder.
    if file.is_empty() || file == "~" || file.contains(['/', '\\']) || file.starts_with("..") {
        return Err(field_error(at, "file name", &file));
    }
    let (format, samples_per_frame, skew_frames, byte_offset) = packing_field(at, packing)?;
    let adc_zero: i32 = zero_field.parse().unwrap_or(0);
    let (gain, baseline, unit) = gain_parts(at, gain_field, adc_zero)?;
    Ok(SignalHeader {
        file,
        format,
        samples_per_frame,
        skew_frames,
        byte_offset,
        gain,
        baseline,
        unit,
        checksum,
        description,
    })
}

/// `212x4:2+24`: format, samples a frame, skew in frames, byte offset.
fn packing_field(at: usize, field: &str) -> Result<(Format, u32, u32, usize), HeaderError> {
    let bad = || field_error(at, "format", field);
    let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, mut tail) = field.split_at(digits(field));
    let format = match number {
        "212" => Format::Packed12,
        "16" => Format::Sixteen,
        "80" => Format::OffsetEight,
        "" => return Err(bad()),
        other => return Err(HeaderError::Format { line: at, format: other.to_owned() }),
    };
    let (mut samples_per_frame, mut skew_frames, mut byte_offset) = (1u32, 0u32, 0usize);
    while let Some(mark) = tail.chars().next() {
        let after = &tail[mark.len_utf8()..];
        let (value, next) = after.split_at(digits(after));
        match mark {
            'x' => samples_per_frame = value.parse().map_err(|_| bad())?,
            ':' => skew_frames = value.parse().map_err(|_| bad())?,
            '+' => byte_offset = value.parse().map_err(|_| bad())?,
            _ => return Err(bad()),
        }
        tail = next;
    }
    if samples_per_frame == 0 || samples_per_frame > MAX_SAMPLES_PER_FRAME {
        return Err(bad());
    }
    Ok((format, samples_per_frame, skew_frames, byte_offset))
}

/// `12.84(-1605)/mmHg`: gain, baseline, unit.
fn gain_parts(at: usize, field: &str, adc_zero: i32) -> Result<(f64, i32, String), HeaderError> {
    let bad = || field_error(at, "gain", field);
    let (numbers, unit) = field.split_once('/').unwrap_or((field, "mV"));
    let (gain, baseline) = match numbers.split_once('(') {
        Some((gain, rest)) => {
            let baseline = rest.strip_suffix(')').ok_or_else(bad)?;
            (gain, baseline.parse().map_err(|_| bad())?)
        }
        None => (numbers, adc_zero),
    };
    let gain = if gain.is_empty() { 0.0 } else { gain.parse::<f64>().map_err(|_| bad())? };
    if !gain.is_finite() {
        return Err(bad());
    }
    let gain = if gain == 0.0 { DEFAULT_GAIN } else { gain };
    Ok((gain, baseline, unit.to_owned()))
}
