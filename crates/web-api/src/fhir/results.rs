//! What every search answers with: a Bundle of what matches, what was asked for besides, and what is worth saying.

use health_codecs::fhir::bundle::{SearchEntry, SearchMode, SearchsetInput};
use health_codecs::fhir::search::{Query, ResourceType};
use health_codecs::fhir::view::View;
use health_codecs::fhir::{OutcomeIssue, operation_outcome, searchset};
use serde_json::Value;

use super::answer::Answer;
use super::call::Call;
use super::include::Included;
use super::page;
use crate::state::Web;

/// What a search found.
pub(crate) struct Results<'a> {
    /// Path of the search below the base.
    pub path: &'a str,
    /// Type of the matches.
    pub kind: ResourceType,
    /// Matches of this page with their ids.
    pub matches: Vec<(String, Value)>,
    /// What else was asked for.
    pub included: Included,
    /// How many match in all, where that was counted.
    pub total: Option<u64>,
    /// Where the next page is.
    pub next_link: Option<String>,
}

/// Whether only the number of results is wanted: `_summary=count`, or a page of none.
pub(crate) fn is_count(query: &Query, params: &[(String, String)]) -> bool {
    query.view == View::Count || params.iter().any(|(name, value)| name == "_count" && value == "0")
}

/// The filters of a type without `_count=0`, which asks for the number of results and no page.
pub(crate) fn without_zero_count(filters: &[(String, String)]) -> Vec<(String, String)> {
    filters.iter().filter(|(name, value)| name != "_count" || value != "0").cloned().collect()
}

/// Results of a page.
pub(crate) fn count_of(asked: Option<u16>) -> Option<u16> {
    asked.or(Some(page::COUNT_DEFAULT))
}

/// The Bundle. Of a count it has no entries and no next page.
pub(crate) fn bundle(web: &Web, call: &Call, query: &Query, results: Results<'_>) -> Answer {
    let at = web.site.clock().now();
    let is_counted = is_count(query, &call.params);
    let entry = |kind: ResourceType, (id, resource): (String, Value), mode: SearchMode| SearchEntry {
        full_url: format!("{}/{}/{id}", call.base, kind.name()),
        resource,
        mode,
    };
    let kind = results.kind;
    let matches = results.matches.into_iter().map(|found| entry(kind, found, SearchMode::Match));
    let mut entries: Vec<SearchEntry> = if is_counted { Vec::new() } else { matches.collect() };
    if !is_counted {
        let included = results.included.resources.into_iter();
        entries.extend(included.map(|(kind, found)| entry(kind, found, SearchMode::Include)));
        let hints: Vec<OutcomeIssue> = query.hints.iter().cloned().chain(results.included.hints).collect();
        entries.extend(outcome(web, &hints));
    }
    let understood: Vec<(String, String)> =
        call.params.iter().filter(|(name, _)| !query.ignored.contains(name)).cloned().collect();
    Answer::ok(searchset(&SearchsetInput {
        self_link: page::link(&call.base, results.path, &understood),
        next_link: results.next_link.filter(|_| !is_counted),
        total: results.total,
        at,
        entries,
    }))
}

/// An entry that says something about the search; none where there is nothing to say.
fn outcome(web: &Web, hints: &[OutcomeIssue]) -> Option<SearchEntry> {
    let at_ms = u64::try_from(web.site.clock().now().as_millis()).unwrap_or(0);
    (!hints.is_empty()).then(|| SearchEntry {
        full_url: format!("urn:uuid:{}", trust::uuid_v7(at_ms)),
        resource: operation_outcome(hints),
        mode: SearchMode::Outcome,
    })
}
