//! What an export of the log must show beyond its own arithmetic: both logs, of a key that is believed; a signature over
//! its rows; and, for every row without content, why it may have none.

use std::collections::BTreeMap;

use clinical_model::{PatientId, Timestamp};
use store::{ActHeader, AuditAction, CONTENT_KEPT_FOR, Log};
use trust::log::check::{FINDINGS_LIMIT, Fault, Finding, Report};
use trust::log::note::{KeyKind, VerifierKey};

/// Notes a fault of a whole log.
pub(super) fn find(report: &mut Report, fault: Fault, rows: Option<(u64, u64)>, what: String) {
    if report.findings.len() >= FINDINGS_LIMIT {
        report.more_findings += 1;
        return;
    }
    let (first, last) = rows.unzip();
    report.findings.push(Finding { fault, first, last, what });
}

/// Whether an origin is that of a log of this name under one of the keys: whoever makes an export writes what it says of
/// itself, and a log under another's name would be compared with nothing.
pub(super) fn is_origin_of(origin: &str, log: Log, keys: &[VerifierKey]) -> bool {
    let mut names = keys.iter().filter(|key| key.kind() == KeyKind::Log).map(VerifierKey::name);
    names.any(|name| {
        let rest = origin.strip_prefix(name).and_then(|rest| rest.strip_prefix('/'));
        rest.and_then(|rest| rest.strip_suffix('/')) == Some(log.name())
    })
}

/// Whether anything proves the rows: without a single signature over them they are whatever somebody wrote.
pub(super) fn judge_signatures(report: &mut Report) {
    if report.rows > 0 && report.checkpoints == 0 {
        let what =
            format!("no signed checkpoint covers any of its {} rows: nothing proves them", report.rows);
        find(report, Fault::Checkpoint, Some((1, report.rows)), what);
    } else if report.uncovered > 0 {
        report.remarks.push(format!(
            "its last {} rows came after the last checkpoint: nothing proves them yet, nor that they are all",
            report.uncovered
        ));
    }
}

/// Rows that stand together, and how many they are.
#[derive(Clone, Copy)]
struct Span {
    first: u64,
    last: u64,
    rows: u64,
}

/// The rows of the log of acts that say nothing any more, and what would explain them.
#[derive(Default)]
pub(super) struct Gone {
    /// By whom they were about.
    of_patients: BTreeMap<PatientId, Span>,
    /// About nobody, or too old to tell: only their age explains them.
    of_nobody: Option<Span>,
    /// Where each patient's last erasure stands, and the text that names the patient.
    erasures: Vec<(u64, String)>,
    /// The first row with content that is too young to have lost it for its age.
    young_from: Option<u64>,
}

fn grow(span: Option<Span>, sequence: u64) -> Span {
    let Span { first, rows, .. } = span.unwrap_or(Span { first: sequence, last: sequence, rows: 0 });
    Span { first, last: sequence, rows: rows + 1 }
}

impl Gone {
    /// Takes a row of the log of acts whose content and leaf fit, or that has none.
    pub(super) fn take(&mut self, sequence: u64, header: &[u8], payload: Option<&[u8]>, now: Timestamp) {
        let Some(header) = ActHeader::parse(header) else { return };
        let is_old = header.at.plus(CONTENT_KEPT_FOR) < now;
        if let Some(payload) = payload {
            if !is_old && self.young_from.is_none() {
                self.young_from = Some(sequence);
            }
            if header.action == AuditAction::Erase as u8 {
                self.erasures.push((sequence, String::from_utf8_lossy(payload).into_owned()));
            }
            return;
        }
        // Content that went for its age went before that of every younger row.
        if is_old && self.young_from.is_none() {
            return;
        }
        match header.patient {
            Some(patient) => {
                let span = self.of_patients.get(&patient).copied();
                self.of_patients.insert(patient, grow(span, sequence));
            }
            None => self.of_nobody = Some(grow(self.of_nobody, sequence)),
        }
    }

    /// Says which rows without content nothing explains: of a patient, a later erasure that is itself covered by a signature
    /// does; of anybody else, nothing.
    pub(super) fn judge(self, report: &mut Report) {
        let covered = report.head.as_ref().map_or(0, |head| head.size);
        let mut explained = 0;
        for (patient, span) in self.of_patients {
            let name = patient.to_string();
            let is_erased = |(sequence, said): &&(u64, String)| {
                *sequence > span.last && *sequence <= covered && said.contains(&name)
            };
            if self.erasures.iter().rev().any(|erasure| is_erased(&erasure)) {
                explained += 1;
                continue;
            }
            let what = format!(
                "{} rows about the patient {name} (rows {} to {}) have no content, and no erasure of that patient follows \
                 them: somebody hid what they say",
                span.rows, span.first, span.last
            );
            find(report, Fault::Changed, Some((span.first, span.last)), what);
        }
        if let Some(span) = self.of_nobody {
            let what = format!(
                "{} rows (rows {} to {}) have no content, are about no patient and not old enough to have lost it: somebody \
                 hid what they say",
                span.rows, span.first, span.last
            );
            find(report, Fault::Changed, Some((span.first, span.last)), what);
        }
        if explained > 0 {
            report.remarks.push(format!(
                "rows about {explained} erased patients have no content; whom such a row was about can no longer be proven"
            ));
        }
    }
}
