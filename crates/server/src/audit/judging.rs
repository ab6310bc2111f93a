//! What an export of the log must show beyond its own arithmetic: both logs, of a key that is believed; a signature over
//! its rows; and, for every row without content, why it may have none.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use clinical_model::{PatientId, Timestamp};
use serde::Deserialize;
use store::{ActHeader, AuditAction, CONTENT_KEPT_FOR, Log};
use trust::log::check::{FINDINGS_LIMIT, Fault, Finding, Report};
use trust::log::note::{KeyKind, VerifierKey};

/// Rows of the log of acts that may follow its last checkpoint: one is signed every 256 acts, this leaves room for a keeper
/// that lags behind.
const UNCOVERED_ACTS_LIMIT: u64 = 4_096;
/// The same of the log of groups, of which a busy site commits 1,400 a second between two checkpoints of ten seconds.
const UNCOVERED_GROUPS_LIMIT: u64 = 65_536;
/// Time that may lie between the first act after the last checkpoint and the last: one is signed every ten seconds.
const UNCOVERED_TIME_LIMIT: Duration = Duration::from_secs(600);

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

/// Whether anything proves the rows: without a signature over them they are whatever somebody wrote.
pub(super) fn judge_signatures(report: &mut Report, log: Log) {
    let (rows, uncovered) = (report.rows, report.uncovered);
    let limit = if log == Log::Acts { UNCOVERED_ACTS_LIMIT } else { UNCOVERED_GROUPS_LIMIT };
    if rows > 0 && report.checkpoints == 0 {
        let what = format!("no signed checkpoint covers any of its {rows} rows: nothing proves them");
        find(report, Fault::Checkpoint, Some((1, rows)), what);
    } else if uncovered > limit {
        let what =
            format!("its last {uncovered} rows are covered by no checkpoint, and at most {limit} can be");
        find(report, Fault::Checkpoint, None, what);
    } else if uncovered > 0 {
        report.remarks.push(format!(
            "its last {uncovered} rows came after the last checkpoint: nothing proves them yet, nor that they are all"
        ));
    }
}

/// A site that committed groups had acts before: whoever leaves them all out leaves out everything.
pub(super) fn judge_presence(reports: &mut [Report]) {
    let is_empty = |report: &Report, log: Log| report.log == log.name() && report.rows == 0;
    let has_groups = reports.iter().any(|report| report.log == Log::Groups.name() && report.rows > 0);
    if let Some(acts) = reports.iter_mut().find(|report| is_empty(report, Log::Acts)).filter(|_| has_groups) {
        find(acts, Fault::Missing, None, "it has no rows at all, and the log of groups has".to_owned());
    }
}

/// Rows that stand together, and how many they are.
#[derive(Clone, Copy)]
struct Span {
    first: u64,
    last: u64,
    rows: u64,
}

/// What a row of an erasure says, as far as it matters here.
#[derive(Deserialize)]
struct Act {
    object: String,
    detail: String,
}

/// The patient of whose erasure a row tells. What people write, a reason or a number, stands behind the id that the
/// product writes, so that nobody can name another patient there.
fn erased_in(header: &ActHeader, payload: &[u8]) -> Option<PatientId> {
    let act: Act = serde_json::from_slice(payload).ok()?;
    if header.action != AuditAction::Erase as u8 || act.object != "erasure" {
        return None;
    }
    if act.detail.starts_with("erased again: ") {
        return header.patient;
    }
    let ordered = act.detail.strip_prefix("patient ").and_then(|rest| rest.split_once(", request "));
    let stated = || act.detail.split_once(' ');
    ordered.or_else(stated)?.0.parse().ok()
}

/// The acts, looked at for what is left out of them: rows that say nothing any more, with what would explain them, and the
/// last ones, which no signature covers yet.
#[derive(Default)]
pub(super) struct Gone {
    /// By whom they were about.
    of_patients: BTreeMap<PatientId, Span>,
    /// About nobody, or too old to tell: only their age explains them.
    of_nobody: Option<Span>,
    /// Where each erasure stands, and of whom it was.
    erasures: Vec<(u64, PatientId)>,
    /// The first row with content that is too young to have lost it for its age.
    young_from: Option<u64>,
    /// When the last rows were written, at most [`UNCOVERED_ACTS_LIMIT`] of them.
    last: VecDeque<(u64, Timestamp)>,
}

fn grow(span: Option<Span>, sequence: u64) -> Span {
    let Span { first, rows, .. } = span.unwrap_or(Span { first: sequence, last: sequence, rows: 0 });
    Span { first, last: sequence, rows: rows + 1 }
}

impl Gone {
    /// Takes a row of the log of acts whose content and leaf fit, or that has none.
    pub(super) fn take(&mut self, sequence: u64, header: &[u8], payload: Option<&[u8]>, now: Timestamp) {
        let Some(header) = ActHeader::parse(header) else { return };
        if self.last.len() as u64 == UNCOVERED_ACTS_LIMIT {
            self.last.pop_front();
        }
        self.last.push_back((sequence, header.at));
        let is_old = header.at.plus(CONTENT_KEPT_FOR) < now;
        if let Some(payload) = payload {
            if !is_old && self.young_from.is_none() {
                self.young_from = Some(sequence);
            }
            self.erasures.extend(erased_in(&header, payload).map(|patient| (sequence, patient)));
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
        let mut open = self.last.iter().filter(|(sequence, _)| *sequence > covered).map(|(_, at)| *at);
        if let (Some(first), Some(last)) = (open.next(), open.next_back())
            && first.plus(UNCOVERED_TIME_LIMIT) < last
        {
            let what = format!(
                "rows from {first} to {last} are covered by no checkpoint: one is signed every ten seconds"
            );
            find(report, Fault::Checkpoint, Some((covered + 1, covered + report.uncovered)), what);
        }
        let mut explained = 0;
        for (patient, span) in self.of_patients {
            let follows = |sequence: u64| sequence > span.last && sequence <= covered;
            if self.erasures.iter().any(|(sequence, of)| *of == patient && follows(*sequence)) {
                explained += 1;
                continue;
            }
            let what = format!(
                "{} rows about the patient {patient} (rows {} to {}) have no content, and no erasure of that patient follows \
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

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "01010101-0101-0101-0101-010101010101";
    const OTHER: &str = "02020202-0202-0202-0202-020202020202";

    fn header(action: AuditAction, patient: Option<u8>) -> ActHeader {
        let patient = patient.map(|byte| PatientId::from_bytes([byte; 16]));
        ActHeader { at: Timestamp::from_seconds(1), action: action as u8, patient }
    }

    fn told(action: AuditAction, patient: Option<u8>, object: &str, detail: &str) -> Option<String> {
        let payload = serde_json::json!({ "object": object, "detail": detail, "name": null }).to_string();
        erased_in(&header(action, patient), payload.as_bytes()).map(|patient| patient.to_string())
    }

    #[test]
    fn only_the_product_says_who_was_erased() {
        let erase = AuditAction::Erase;
        let order = format!("patient {ONE}, request case 9, because: like patient {OTHER}, request 1");
        assert_eq!(told(erase, None, "erasure", &order).as_deref(), Some(ONE));
        let done = format!("{ONE} complete, statement SHA-256 00");
        assert_eq!(told(erase, None, "erasure", &done).as_deref(), Some(ONE));
        let again = "erased again: the data was put back to before the erasure";
        assert_eq!(told(erase, Some(2), "erasure", again).as_deref(), Some(OTHER));
        // What somebody types elsewhere names nobody.
        let typed = format!("run, because: patient {ONE}, request 1");
        assert_eq!(told(erase, None, "retention", &typed), None);
        assert_eq!(told(erase, None, "retention", &order), None);
        assert_eq!(told(AuditAction::Read, Some(1), "erasure", &order), None);
        assert_eq!(told(erase, Some(1), "erasure", "what would go"), None);
    }

    #[test]
    fn acts_that_went_unsigned_for_long_are_a_finding() {
        let report = |rows: u64, uncovered: u64| Report {
            log: Log::Acts.name().to_owned(),
            rows,
            uncovered,
            checkpoints: 1,
            ..Report::default()
        };
        let mut sound = report(9_000, UNCOVERED_ACTS_LIMIT);
        judge_signatures(&mut sound, Log::Acts);
        assert_eq!((sound.findings.len(), sound.remarks.len()), (0, 1));
        let mut cut = report(9_000, UNCOVERED_ACTS_LIMIT + 1);
        judge_signatures(&mut cut, Log::Acts);
        assert_eq!(cut.findings.len(), 1);

        for (seconds, findings) in [(600, 0), (601, 1)] {
            let mut gone = Gone::default();
            let at = |seconds: i64| Timestamp::from_seconds(1_000 + seconds);
            gone.last.extend([(1, at(0)), (2, at(seconds))]);
            let mut report = report(2, 2);
            gone.judge(&mut report);
            assert_eq!(report.findings.len(), findings, "{seconds} s");
        }
    }

    #[test]
    fn groups_without_acts_are_a_finding() {
        let report = |log: Log, rows: u64| Report { log: log.name().to_owned(), rows, ..Report::default() };
        for (acts, groups, findings) in [(0, 1, 1), (1, 1, 0), (0, 0, 0), (1, 0, 0)] {
            let mut reports = [report(Log::Acts, acts), report(Log::Groups, groups)];
            judge_presence(&mut reports);
            assert_eq!(reports[0].findings.len(), findings, "{acts} acts, {groups} groups");
        }
    }
}
