//! The export of the audit log for a check elsewhere: one JSON line each for keys, checkpoints, tiles and rows.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::Path;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clinical_model::Timestamp;
use serde::{Deserialize, Serialize};
use store::{Log, LogEntry, Store};
use trust::log::Hash;
use trust::log::check::{Check, Content, Expectation, Fault, Report, Signpost};
use trust::log::note::VerifierKey;
use trust::log::tree::TILE_WIDTH;

use super::judging::{self, Gone};
use super::{now, shared_out};

/// Format of the file; later ones take later numbers.
const FORMAT: u32 = 1;
/// Longest line that is read, in bytes: a tile, or a row with a long detail.
const LINE_LIMIT_BYTES: u64 = 256 << 10;
/// Checkpoints read at once.
const CHECKPOINTS_PAGE: usize = 1_000;
/// Keys and logs that are named twice, or more often than this, make no sense.
const KEYS_LIMIT: usize = 1_000;

/// One line of the file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum Line {
    /// The first.
    Export {
        format: u32,
        made_at: Timestamp,
        keys: Vec<String>,
        witness_keys: Vec<String>,
        logs: Vec<LogLine>,
    },
    Checkpoint {
        log: String,
        number: u64,
        note: String,
    },
    /// Hashes of a tile of the kept tree.
    Tile {
        log: String,
        level: u8,
        number: u64,
        hashes: String,
    },
    Row(RowLine),
    /// The last.
    End {
        rows: u64,
    },
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LogLine {
    log: String,
    origin: String,
    epoch: u64,
    rows: u64,
    size: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RowLine {
    log: String,
    sequence: u64,
    header: String,
    /// Missing where the content was erased.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    blinding: Option<String>,
    /// The payload where it is text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    payload: Option<String>,
    /// The payload where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
    leaf: String,
}

impl RowLine {
    fn of(log: Log, entry: &LogEntry) -> Self {
        let (blinding, payload) = entry.content.clone().unzip();
        let text = payload.as_deref().and_then(|bytes| std::str::from_utf8(bytes).ok()).map(str::to_owned);
        let packed = payload.filter(|_| text.is_none()).map(|bytes| STANDARD.encode(bytes));
        RowLine {
            log: log.name().to_owned(),
            sequence: entry.sequence,
            header: STANDARD.encode(&entry.header),
            blinding: blinding.map(|bytes| STANDARD.encode(bytes)),
            payload: text,
            payload_base64: packed,
            leaf: STANDARD.encode(entry.leaf),
        }
    }

    /// What it says, and how that fits the kept leaf.
    fn read(&self) -> ReadRow {
        let mut row =
            ReadRow { kept: hash(&self.leaf), header: Vec::new(), payload: None, content: Content::Erased };
        match self.read_into(&mut row) {
            Ok(content) => row.content = content,
            Err(what) => row.content = Content::Damaged(what.to_owned()),
        }
        row
    }

    fn read_into(&self, row: &mut ReadRow) -> Result<Content, &'static str> {
        row.header = STANDARD.decode(&self.header).map_err(|_| "its header is not base64")?;
        // The number in the row and the one that the leaf commits to must be one.
        if row.header.first_chunk::<8>().map(|first| u64::from_be_bytes(*first)) != Some(self.sequence) {
            return Err("its header is that of another row");
        }
        let payload = match (&self.payload, &self.payload_base64) {
            (Some(text), None) => text.clone().into_bytes(),
            (None, Some(packed)) => STANDARD.decode(packed).map_err(|_| "its payload is not base64")?,
            (None, None) if self.blinding.is_none() => return Ok(Content::Erased),
            _ => return Err("it has a blinding without a payload, or two payloads"),
        };
        let blinding = self.blinding.as_deref().and_then(hash);
        let blinding = blinding.ok_or("its blinding is missing or has another length")?;
        let leaf = trust::audit::leaf(&row.header, &blinding, &payload);
        row.payload = Some(payload);
        Ok(Content::Leaf(leaf))
    }
}

/// A row as it was read.
struct ReadRow {
    /// The kept leaf.
    kept: Option<Hash>,
    header: Vec<u8>,
    /// `None` where it says nothing any more.
    payload: Option<Vec<u8>>,
    content: Content,
}

fn hash(text: &str) -> Option<Hash> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

/// Writes everything that a check elsewhere needs; tells how many rows there are. The file must not exist.
///
/// # Errors
/// What failed; the unfinished file is removed.
pub fn write(
    store: &dyn Store,
    witness_keys: &[String],
    target: &Path,
    now: Timestamp,
    progress: &mut dyn FnMut(u64, u64),
) -> anyhow::Result<u64> {
    let shown = target.display();
    let mut options = File::options();
    options.write(true).create_new(true);
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file =
        options.open(target).with_context(|| format!("{shown} cannot be made; it must not exist yet"))?;
    let written = write_lines(store, witness_keys, BufWriter::new(file), now, progress);
    if written.is_err() {
        // What is half there must not be taken for the whole.
        let _ = std::fs::remove_file(target);
    }
    written.with_context(|| format!("{shown} was not written"))
}

fn write_lines(
    store: &dyn Store,
    witness_keys: &[String],
    mut out: BufWriter<File>,
    now: Timestamp,
    progress: &mut dyn FnMut(u64, u64),
) -> anyhow::Result<u64> {
    let mut put = |line: &Line| -> anyhow::Result<()> {
        serde_json::to_writer(&mut out, line)?;
        Ok(out.write_all(b"\n")?)
    };
    let keys = store.log().log_signers(now)?.iter().map(|signer| signer.verifier().to_string()).collect();
    let mut logs = Vec::new();
    for log in Log::ALL {
        let state = store.log().log_state(log)?;
        let (origin, epoch, rows, size) = (state.origin, state.epoch, state.rows, state.size);
        logs.push(LogLine { log: log.name().to_owned(), origin, epoch, rows, size });
    }
    let all: u64 = logs.iter().map(|log| log.rows).sum();
    put(&Line::Export {
        format: FORMAT,
        made_at: now,
        keys,
        witness_keys: witness_keys.to_vec(),
        logs: logs.clone(),
    })?;
    for log in Log::ALL {
        let (mut before, mut kept) = (None, Vec::new());
        loop {
            let page = store.log().checkpoints(log, before, CHECKPOINTS_PAGE)?;
            before = page.last().map(|last| last.number);
            let is_last = page.len() < CHECKPOINTS_PAGE;
            kept.extend(page);
            if is_last {
                break;
            }
        }
        for one in kept.into_iter().rev() {
            put(&Line::Checkpoint { log: log.name().to_owned(), number: one.number, note: one.note })?;
        }
    }
    let mut done = 0;
    for (log, line) in Log::ALL.into_iter().zip(&logs) {
        let tile = |level: u8, number: u64| -> anyhow::Result<Option<Line>> {
            let hashes = store.log().log_tile(log, level, number)?;
            let packed = STANDARD.encode(hashes.concat());
            Ok((!hashes.is_empty()).then(|| Line::Tile {
                log: log.name().to_owned(),
                level,
                number,
                hashes: packed,
            }))
        };
        for number in 0..line.rows.div_ceil(TILE_WIDTH) {
            if let Some(tile) = tile(0, number)? {
                put(&tile)?;
            }
            let first = number * TILE_WIDTH + 1;
            let wanted = TILE_WIDTH.min(line.rows + 1 - first) as usize;
            for entry in store.log().log_entries(log, first, wanted)? {
                // A gap lets later rows move up into this page; they come with their own.
                if entry.sequence < first + TILE_WIDTH && entry.sequence <= line.rows {
                    put(&Line::Row(RowLine::of(log, &entry)))?;
                    done += 1;
                }
            }
            progress(done, all);
        }
        let (mut level, mut tiles) = (1, line.size.div_ceil(TILE_WIDTH).div_ceil(TILE_WIDTH));
        while tiles > 0 && level < 8 {
            for number in 0..tiles {
                if let Some(tile) = tile(level, number)? {
                    put(&tile)?;
                }
            }
            tiles = if tiles == 1 { 0 } else { tiles.div_ceil(TILE_WIDTH) };
            level += 1;
        }
    }
    put(&Line::End { rows: done })?;
    let file = out.into_inner().map_err(|error| error.into_error())?;
    file.sync_all()?;
    Ok(done)
}

/// A log of the export while it is read.
struct Reading {
    log: Log,
    line: LogLine,
    signposts: Vec<Signpost>,
    check: Option<Check>,
    upper: HashMap<(u8, u64), Vec<Hash>>,
    pending: HashMap<u64, Vec<Hash>>,
    /// Rows that say nothing any more, in the log of acts; no record of a group is ever erased.
    gone: Option<Gone>,
}

/// What a check of an export is told.
#[derive(Clone, Debug, Default)]
pub struct Believed {
    /// Keys of the log that are believed; where there are none, those that the export names.
    pub log_keys: Vec<VerifierKey>,
    /// Keys of witnesses that are believed; likewise.
    pub witness_keys: Vec<VerifierKey>,
    /// Checkpoints that were kept elsewhere.
    pub against: Vec<Signpost>,
}

/// Checks an export, offline.
///
/// # Errors
/// Where the file cannot be read, or is no export. What is wrong with the log is in the reports.
pub fn check(
    path: &Path,
    believed: &Believed,
    progress: &mut dyn FnMut(u64, u64),
) -> anyhow::Result<Vec<Report>> {
    let shown = path.display();
    let file = File::open(path).with_context(|| format!("{shown} cannot be opened"))?;
    let mut lines = Lines { input: BufReader::new(file), number: 0 };
    let Some(Line::Export { format, keys, witness_keys, logs, .. }) = lines.next()? else {
        bail!("{shown} is no export of an audit log");
    };
    if format != FORMAT {
        bail!("{shown} has format {format}, which this release does not know");
    }
    if keys.len() + witness_keys.len() > KEYS_LIMIT {
        bail!("{shown} names too many keys");
    }
    let names: Vec<&str> = logs.iter().map(|line| line.log.as_str()).collect();
    if names != Log::ALL.map(Log::name) {
        bail!(
            "{shown} is no whole export: it names the logs {names:?}, and there are {:?}",
            Log::ALL.map(Log::name)
        );
    }
    let parse = |texts: &[String]| -> anyhow::Result<Vec<VerifierKey>> {
        texts.iter().map(|text| text.parse().with_context(|| format!("\"{text}\" is no key"))).collect()
    };
    let mut known = if believed.log_keys.is_empty() { parse(&keys)? } else { believed.log_keys.clone() };
    let witnesses =
        if believed.witness_keys.is_empty() { parse(&witness_keys)? } else { believed.witness_keys.clone() };
    known.extend(witnesses);
    let all = logs.iter().map(|log| log.rows).sum();
    let origins: Vec<String> = logs.iter().map(|line| line.origin.clone()).collect();
    let shared = shared_out(believed.against.iter().cloned(), &origins);
    let parts = Log::ALL.into_iter().zip(logs).zip(shared);
    let mut readings: Vec<Reading> =
        parts.map(|((log, line), signposts)| Reading::new(log, line, signposts)).collect();
    let (mut rows, mut ended, now) = (0, None, now());
    while let Some(line) = lines.next()? {
        if ended.is_some() {
            bail!("{shown} goes on after its end, in line {}", lines.number);
        }
        let of = |readings: &mut Vec<Reading>, log: &str| {
            let found = readings.iter().position(|reading| reading.line.log == log);
            found.with_context(|| format!("line {} is of a log that was not named", lines.number))
        };
        match line {
            Line::Export { .. } => bail!("{shown} begins twice, in line {}", lines.number),
            Line::Checkpoint { log, number, note } => {
                let at = of(&mut readings, &log)?;
                let name = format!("checkpoint {number} of the log of {log}");
                readings[at].signposts.push(Signpost { name, note, outside: false });
            }
            Line::Tile { log, level, number, hashes } => {
                let at = of(&mut readings, &log)?;
                let bytes = STANDARD.decode(&hashes).unwrap_or_default();
                let hashes = bytes.as_chunks::<32>().0.to_vec();
                readings[at].take_tile(level, number, hashes);
            }
            Line::Row(row) => {
                let at = of(&mut readings, &row.log)?;
                readings[at].take_row(&row, &known, now);
                rows += 1;
                progress(rows, all);
            }
            Line::End { rows } => ended = Some(rows),
        }
    }
    let mut reports: Vec<Report> = readings.into_iter().map(|reading| reading.finish(&known)).collect();
    judging::judge_presence(&mut reports);
    if ended != Some(rows)
        && let Some(last) = reports.last_mut()
    {
        let what = match ended {
            None => "the export breaks off: its last line is missing".to_owned(),
            Some(stated) => format!("the export has {rows} rows, its last line says {stated}"),
        };
        judging::find(last, Fault::Missing, None, what);
    }
    Ok(reports)
}

impl Reading {
    fn new(log: Log, line: LogLine, signposts: Vec<Signpost>) -> Self {
        let gone = (log == Log::Acts).then(Gone::default);
        Reading { log, signposts, check: None, upper: HashMap::new(), pending: HashMap::new(), gone, line }
    }

    fn check(&mut self, known: &[VerifierKey]) -> &mut Check {
        let (line, signposts) = (&self.line, &mut self.signposts);
        self.check.get_or_insert_with(|| {
            Check::new(Expectation {
                log: line.log.clone(),
                origin: line.origin.clone(),
                epoch: line.epoch,
                size: line.size,
                keys: known.to_vec(),
                signposts: std::mem::take(signposts),
            })
        })
    }

    fn take_tile(&mut self, level: u8, number: u64, hashes: Vec<Hash>) {
        match level {
            0 => drop(self.pending.insert(number, hashes)),
            _ => drop(self.upper.insert((level, number), hashes)),
        }
    }

    /// Gives the check the tile of its next row; false where the export does not have it.
    fn give_tile(&mut self, known: &[VerifierKey]) -> bool {
        let check = self.check(known);
        let Some(number) = check.wants_tile(check.next_row()) else { return true };
        let Some(hashes) = self.pending.remove(&number) else { return false };
        self.check(known).tile(number, hashes);
        true
    }

    fn take_row(&mut self, row: &RowLine, known: &[VerifierKey], now: Timestamp) {
        let size = self.line.size;
        while self.check(known).next_row() < row.sequence && self.check(known).next_row() <= size {
            if !self.give_tile(known) {
                break;
            }
            self.check(known).missing();
        }
        self.check(known).gap(row.sequence);
        self.give_tile(known);
        let ReadRow { kept, header, payload, mut content } = row.read();
        let is_sound = match content {
            Content::Leaf(leaf) => kept == Some(leaf),
            Content::Erased => true,
            Content::Damaged(_) => false,
        };
        match &mut self.gone {
            Some(gone) if is_sound => gone.take(row.sequence, &header, payload.as_deref(), now),
            None if content == Content::Erased => {
                content = Content::Damaged("its content is missing".to_owned());
            }
            _ => {}
        }
        self.check(known).row(row.sequence, kept, content);
    }

    fn finish(mut self, known: &[VerifierKey]) -> Report {
        while self.check(known).next_row() <= self.line.size && self.give_tile(known) {
            self.check(known).missing();
        }
        self.check(known);
        let upper = self.upper;
        let Some(check) = self.check else { return Report::default() };
        let mut report =
            check.finish(|level, number| Some(upper.get(&(level, number)).cloned().unwrap_or_default()));
        if !judging::is_origin_of(&self.line.origin, self.log, known) {
            let what = format!(
                "it calls itself {}, which is the log of {} of no key that is believed",
                self.line.origin,
                self.log.name()
            );
            judging::find(&mut report, Fault::Checkpoint, None, what);
        }
        judging::judge_signatures(&mut report, self.log);
        if let Some(gone) = self.gone {
            gone.judge(&mut report);
        }
        report
    }
}

/// The lines of the file, each with a bound.
struct Lines {
    input: BufReader<File>,
    number: u64,
}

impl Lines {
    fn next(&mut self) -> anyhow::Result<Option<Line>> {
        use std::io::Read as _;
        let mut text = String::new();
        self.number += 1;
        let number = self.number;
        let read = (&mut self.input).take(LINE_LIMIT_BYTES).read_line(&mut text);
        if read.with_context(|| format!("line {number} cannot be read"))? == 0 {
            return Ok(None);
        }
        let line = serde_json::from_str(&text);
        line.map(Some).with_context(|| match is_for_reading(&text) {
            true if number == 1 => {
                "this is an export of the audit page (FHIR or CSV), for reading: it holds nothing that can be proven; \
                 `auscult audit export` makes one that does"
                    .to_owned()
            }
            _ => format!("line {number} is no line of an export: it was changed or cut off"),
        })
    }
}

/// Whether a first line is that of an export in FHIR or as a table.
fn is_for_reading(line: &str) -> bool {
    line.contains(":\"AuditEvent\"") || line.starts_with("sequence,at,")
}
