//! `auscult decode`: what the bytes of a device mean, field by field, or where they stop making sense.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clinical_model::FrameKind;
use clinical_model::decoded::{DecodeFault, DecodedFrame};
use device_codecs::explain;
use pipeline::intake::FRAME_LIMIT_BYTES;

use crate::terminal;

/// Bytes of hexadecimal on one line, around a fault.
const HEX_LINE_BYTES: usize = 16;
/// Characters of a text line shown on each side of a fault.
const TEXT_CONTEXT_CHARS: usize = 36;

/// What `auscult decode` takes.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  auscult decode gatt/2a37 16 48 00 04
  auscult decode gatt/2a35 0x00780050005D00
  auscult decode envelope reading.json
  curl -s … | auscult decode fhir -")]
pub struct DecodeArguments {
    /// Language of the bytes: gatt/XXXX (a characteristic's number), envelope, or fhir
    #[arg(value_name = "KIND")]
    kind: FrameKind,
    /// For gatt: hexadecimal digits; otherwise a file, or - for standard input
    #[arg(value_name = "HEX|FILE", required = true)]
    input: Vec<String>,
}

/// Decodes and prints; the exit status says whether everything could be read.
///
/// # Errors
/// When the input itself cannot be had.
pub fn run(arguments: &DecodeArguments) -> anyhow::Result<ExitCode> {
    let bytes = match arguments.kind {
        FrameKind::Gatt(_) => parse_hex(&arguments.input.concat())?,
        FrameKind::Envelope | FrameKind::Fhir => match arguments.input.as_slice() {
            [input] => read(input)?,
            _ => bail!("give one file, or - for standard input"),
        },
    };
    if bytes.len() > FRAME_LIMIT_BYTES {
        bail!("{} bytes are more than one frame may have ({FRAME_LIMIT_BYTES})", bytes.len());
    }
    let frame = match arguments.kind {
        FrameKind::Fhir => health_codecs::fhir::decode_frame(&bytes),
        kind => device_codecs::decode(kind, &bytes),
    };
    terminal::print(&render(arguments.kind, &bytes, &frame));
    let readable = frame.entries.iter().all(|entry| entry.result.is_ok());
    Ok(if readable { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn read(input: &str) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = FRAME_LIMIT_BYTES as u64 + 1;
    if input == "-" {
        std::io::stdin().take(limit).read_to_end(&mut bytes).context("standard input cannot be read")?;
    } else {
        let file =
            std::fs::File::open(Path::new(input)).with_context(|| format!("{input} cannot be opened"))?;
        file.take(limit).read_to_end(&mut bytes).with_context(|| format!("{input} cannot be read"))?;
    }
    Ok(bytes)
}

/// Hexadecimal digits with or without `0x`, spaces, colons and hyphens between them.
fn parse_hex(text: &str) -> anyhow::Result<Vec<u8>> {
    let text = text.trim();
    let text = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
    let digits: Vec<char> = text.chars().filter(|c| !c.is_whitespace() && !":-_,".contains(*c)).collect();
    if let Some(at) = digits.iter().position(|c| !c.is_ascii_hexdigit()) {
        bail!("\"{}\" (digit {}) is not hexadecimal; give bytes such as 16 48 00 04", digits[at], at + 1);
    }
    if !digits.len().is_multiple_of(2) {
        bail!("{} hexadecimal digits are not a whole number of bytes", digits.len());
    }
    let pairs = digits.chunks_exact(2);
    Ok(pairs.filter_map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).ok()).collect())
}

fn render(kind: FrameKind, bytes: &[u8], frame: &DecodedFrame) -> String {
    let mut text = format!("{kind}, {} bytes\n\n", bytes.len());
    if matches!(kind, FrameKind::Gatt(_)) {
        let mut rows = vec![["offset", "bytes", "field", "meaning"].map(str::to_owned).to_vec()];
        rows.extend(
            explain(kind, bytes)
                .into_iter()
                .map(|field| vec![field.offset.to_string(), field.raw_hex, field.name, field.meaning]),
        );
        text.push_str(&terminal::table(&rows));
        text.push('\n');
    }
    for (index, entry) in frame.entries.iter().enumerate() {
        let span = format!("entry {index}, bytes {}–{}", entry.span.start, entry.span.end);
        match &entry.result {
            Ok(decoded) => {
                let _ = writeln!(text, "{span}:");
                for one in decoded {
                    let _ = writeln!(text, "  {}", device_codecs::explain::describe(one));
                }
            }
            Err(fault) => {
                let _ = writeln!(text, "{span}: {fault} ({})", fault.code);
                text.push_str(&point_at(kind, bytes, fault));
            }
        }
    }
    text
}

/// The bytes around a fault with a caret under the first one at fault.
fn point_at(kind: FrameKind, bytes: &[u8], fault: &DecodeFault) -> String {
    match kind {
        FrameKind::Gatt(_) => point_at_hex(bytes, fault.offset),
        FrameKind::Envelope | FrameKind::Fhir => match std::str::from_utf8(bytes) {
            Ok(text) => point_at_text(text, fault.offset),
            Err(_) => point_at_hex(bytes, fault.offset),
        },
    }
}

fn point_at_hex(bytes: &[u8], offset: usize) -> String {
    let line = offset.min(bytes.len()) / HEX_LINE_BYTES * HEX_LINE_BYTES;
    let shown = &bytes[line..bytes.len().min(line + HEX_LINE_BYTES)];
    let hex: Vec<String> = shown.iter().map(|byte| format!("{byte:02x}")).collect();
    let column = 3 * (offset.min(bytes.len()) - line);
    format!("  {line:>6}  {}\n          {:column$}^\n", hex.join(" "), "")
}

fn point_at_text(text: &str, offset: usize) -> String {
    let offset = (0..=offset.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let start = text[..offset].rfind('\n').map_or(0, |at| at + 1);
    let end = text[offset..].find('\n').map_or(text.len(), |at| offset + at);
    let number = text[..offset].matches('\n').count() + 1;
    let before: Vec<char> = text[start..offset].chars().map(printable).collect();
    let cut = before.len().saturating_sub(TEXT_CONTEXT_CHARS);
    let mut shown: String = before[cut..].iter().collect();
    let column = shown.chars().count();
    shown.extend(text[offset..end].chars().map(printable).take(TEXT_CONTEXT_CHARS));
    format!("  line {number:>4}  {shown}\n             {:column$}^\n", "")
}

/// A character that moves the cursor by one.
fn printable(c: char) -> char {
    if c.is_control() { ' ' } else { c }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(kind: &str, bytes: &[u8]) -> String {
        let kind = kind.parse().unwrap();
        render(kind, bytes, &device_codecs::decode(kind, bytes))
    }

    #[test]
    fn hexadecimal_comes_in_many_spellings() {
        for text in ["0x164800", "16 48 00", "16:48:00", "16-48-00", "164800\n"] {
            assert_eq!(parse_hex(text).unwrap(), [0x16, 0x48, 0x00], "{text}");
        }
        assert!(format!("{:#}", parse_hex("16 4x").unwrap_err()).contains("digit 4"));
        assert!(parse_hex("164").is_err());
    }

    #[test]
    fn a_heart_rate_is_shown_with_its_offsets() {
        // Bluetooth Heart Rate Service 1.0, 3.1: flags 0 (8-bit value), 72 beats a minute.
        let text = decoded("gatt/2a37", &[0x00, 0x48]);
        assert!(text.contains("offset") && text.contains("heart_rate 72"), "{text}");
    }

    #[test]
    fn the_caret_stands_under_the_offending_byte() {
        // A flag announces 16 bits, and one byte follows.
        let text = decoded("gatt/2a37", &[0x01, 0x48]);
        assert!(text.contains("truncated"), "{text}");
        assert!(text.contains('^'), "{text}");
        assert_eq!(point_at_hex(&[0xaa, 0xbb, 0xcc], 1), "       0  aa bb cc\n             ^\n");
        assert_eq!(point_at_hex(&[0xaa], 1), "       0  aa\n             ^\n");
        assert_eq!(point_at_text("{\n \"a\": x\n}", 8), "  line    2   \"a\": x\n                   ^\n");
        assert_eq!(point_at_text("é", 1), "  line    1  é\n             ^\n");
    }
}
