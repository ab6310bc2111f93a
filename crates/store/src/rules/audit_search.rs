//! Searching the audit log: each question walks one index, newest rows first, and reads no more rows than it shows.

use std::collections::BTreeSet;

use clinical_model::{RecordId, Timestamp};

use super::SqlStore;
use super::audit::{COLUMNS, FLAG_BREAK_GLASS, FLAG_HEARTBEAT, Plain};
use crate::StoreError;
use crate::sql::{Backend, Session, Value, read};
use crate::words::{AuditOutcome, AuditQuery, AuditRow};

impl<B: Backend> SqlStore<B> {
    pub(super) fn page_audit(&self, query: &AuditQuery) -> Result<Vec<AuditRow>, StoreError> {
        let doing = "listing the audit log";
        let actor = query.actor.as_ref().map(|actor| self.actor_bytes(actor));
        let reader = self.reader(doing)?;
        let mut rows = Vec::new();
        for (sql, bound) in page_sql(query, actor.as_deref()) {
            rows.extend(reader.rows(&sql, &bound, Plain::from_row).map_err(read(doing))?);
        }
        drop(reader);
        rows.sort_by_key(|row| std::cmp::Reverse(row.sequence));
        rows.truncate(query.limit);
        rows.iter().map(|row| self.open_or_erased(row)).collect()
    }
}

/// A question for rows of the log in the making.
struct Asked<'a> {
    conditions: String,
    bound: Vec<Value<'a>>,
    /// Whether an index is walked that finds what is asked for.
    is_narrow: bool,
}

impl<'a> Asked<'a> {
    /// Binds a value; its place.
    fn bind(&mut self, value: Value<'a>) -> String {
        self.bound.push(value);
        format!("?{}", self.bound.len())
    }

    /// Only rows with this id.
    fn only(&mut self, column: &str, id: Option<Value<'a>>) {
        if let Some(id) = id {
            let place = self.bind(id);
            self.conditions.push_str(&format!(" AND {column} = {place}"));
            self.is_narrow = true;
        }
    }

    /// Only rows in a span of time. Instants do not stand quite in the order of the rows; where they begin and end among
    /// them, their own index tells.
    fn within(&mut self, from: Option<Timestamp>, to: Option<Timestamp>) {
        let from = from.map(|at| format!("at >= {}", self.bind(at.as_micros().into())));
        let to = to.map(|at| format!("at < {}", self.bind(at.as_micros().into())));
        let limits: Vec<String> = from.into_iter().chain(to).collect();
        if limits.is_empty() {
            return;
        }
        let span = limits.join(" AND ");
        for (sign, end) in [(">=", "min"), ("<=", "max")] {
            let row = format!("SELECT {end}(+sequence) FROM audit WHERE {span}");
            self.conditions.push_str(&format!(" AND sequence {sign} ({row})"));
        }
        limits.iter().for_each(|limit| self.conditions.push_str(&format!(" AND +{limit}")));
    }

    /// The question, with one more condition.
    fn page(&self, condition: &str) -> (String, Vec<Value<'a>>) {
        let Asked { conditions, bound, .. } = self;
        let limit = bound.len();
        let sql = format!(
            "SELECT {COLUMNS} FROM audit WHERE 1 = 1{conditions}{condition} ORDER BY sequence DESC LIMIT ?{limit}"
        );
        (sql, bound.clone())
    }
}

/// The questions whose answers make up a page. Each walks one index from its end, in the order of the page: a plus in front
/// of other columns keeps their indexes from being walked instead.
fn page_sql<'a>(query: &AuditQuery, actor: Option<&'a [u8]>) -> Vec<(String, Vec<Value<'a>>)> {
    let mut asked = Asked { conditions: String::new(), bound: Vec::new(), is_narrow: false };
    asked.only("patient", query.patient.map(|patient| patient.to_bytes().into()));
    asked.only("device", query.device.map(|device| device.to_bytes().into()));
    asked.only("actor", actor.map(Value::from));
    if query.break_glass {
        let plus = if asked.is_narrow { "+" } else { "" };
        asked.conditions.push_str(&format!(" AND {plus}flags & {FLAG_BREAK_GLASS} <> 0"));
        asked.is_narrow = true;
    }
    if let Some(outcome) = query.outcome {
        // The index has those that did not succeed, and is taken where that is said.
        let is_walked = !asked.is_narrow && outcome != AuditOutcome::Success;
        let column = if is_walked { "outcome <> 0 AND outcome" } else { "+outcome" };
        asked.conditions.push_str(&format!(" AND {column} = {}", outcome as u8));
        asked.is_narrow |= is_walked;
    }
    if query.without_heartbeats {
        asked.conditions.push_str(&format!(" AND (flags IS NULL OR flags & {FLAG_HEARTBEAT} = 0)"));
    }
    asked.within(query.from, query.to);
    if let Some(before) = query.before {
        let before = asked.bind(before.into());
        asked.conditions.push_str(&format!(" AND sequence < {before}"));
    }
    asked.bind(query.limit.into());
    let actions: BTreeSet<u8> = query.actions.iter().map(|action| *action as u8).collect();
    if actions.is_empty() {
        return vec![asked.page("")];
    }
    if asked.is_narrow {
        let actions: Vec<String> = actions.iter().map(u8::to_string).collect();
        return vec![asked.page(&format!(" AND +action IN ({})", actions.join(", ")))];
    }
    // In the index the rows of one action stand behind those of another.
    actions.iter().map(|action| asked.page(&format!(" AND action = {action}"))).collect()
}

#[cfg(test)]
mod tests {
    use clinical_model::{DeviceId, PatientId};

    use super::*;
    use crate::words::AuditAction;

    /// How SQLite answers the questions of a query: the steps of its plans.
    fn plans(query: &AuditQuery, actor: Option<&[u8]>) -> Vec<String> {
        let data = rusqlite::Connection::open_in_memory().unwrap();
        super::super::schema::DATA.iter().for_each(|script| data.execute_batch(script).unwrap());
        let mut steps = Vec::new();
        for (sql, _) in page_sql(query, actor) {
            let mut plan = data.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let (mut rows, mut each) = (plan.raw_query(), Vec::new());
            while let Some(row) = rows.next().unwrap() {
                each.push(row.get::<_, String>(3).unwrap());
            }
            steps.push(each.join("; "));
        }
        steps
    }

    #[test]
    fn no_search_of_the_log_reads_or_sorts_rows_that_it_does_not_show() {
        let some = |number: u8| Some(PatientId::from_bytes([number; 16]));
        let at = |seconds| Some(Timestamp::from_seconds(seconds));
        let all = AuditQuery { limit: 50, ..AuditQuery::default() };
        let reads = AuditQuery { actions: vec![AuditAction::Read], ..all.clone() };
        let refused = AuditQuery { outcome: Some(AuditOutcome::Refused), ..all.clone() };
        let span = AuditQuery { from: at(1), to: at(2), ..all.clone() };
        let cases: [(AuditQuery, Option<&[u8]>, &str); 14] = [
            (all.clone(), None, "SCAN audit"),
            (AuditQuery { patient: some(1), ..all.clone() }, None, "audit_patient (patient=?)"),
            (AuditQuery { patient: some(1), ..reads.clone() }, None, "audit_patient (patient=?)"),
            (
                AuditQuery { device: Some(DeviceId::from_bytes([1; 16])), ..refused.clone() },
                None,
                "audit_device",
            ),
            (all.clone(), Some(&[1]), "audit_actor (actor=?)"),
            (AuditQuery { outcome: refused.outcome, ..reads.clone() }, Some(&[1]), "audit_actor (actor=?)"),
            (AuditQuery { break_glass: true, ..reads.clone() }, None, "audit_broken_glass"),
            (reads.clone(), None, "audit_action (action=?)"),
            (
                AuditQuery { outcome: Some(AuditOutcome::Success), ..reads.clone() },
                None,
                "audit_action (action=?)",
            ),
            (refused.clone(), None, "audit_unsuccessful (outcome=?)"),
            (
                AuditQuery { without_heartbeats: true, outcome: refused.outcome, ..reads.clone() },
                None,
                "audit_unsuccessful (outcome=?)",
            ),
            (span.clone(), None, "USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"),
            (
                AuditQuery { to: None, patient: some(1), ..span.clone() },
                None,
                "audit_patient (patient=? AND sequence>? AND sequence<?)",
            ),
            (
                AuditQuery { from: None, before: Some(9), ..span.clone() },
                None,
                "USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)",
            ),
        ];
        for (query, actor, index) in cases {
            let found = plans(&query, actor);
            let [plan] = &found[..] else { panic!("{query:?}: {found:?}") };
            assert!(plan.contains(index), "{query:?}: {plan}");
            assert!(!plan.contains("TEMP B-TREE"), "{query:?} sorts: {plan}");
            // Ends of a span of time are looked up without a row being read.
            let ends = 2 * usize::from(query.from.or(query.to).is_some());
            assert_eq!(plan.matches("COVERING INDEX audit_time").count(), ends, "{query:?}: {plan}");
        }
        // Several actions are several walks, each no longer than the page.
        let several =
            AuditQuery { actions: vec![AuditAction::Read, AuditAction::Keys, AuditAction::Read], ..all };
        let found = plans(&several, None);
        assert_eq!(found.len(), 2);
        assert!(
            found.iter().all(|plan| plan.contains("audit_action (action=?)") && !plan.contains("TEMP")),
            "{found:?}"
        );
    }
}
