//! What a search shows besides its results: that to which they refer, and that which refers to them. Nothing is shown
//! that whoever asks could not read by itself, and everybody whose data is shown has a row in the audit log.

use std::collections::{BTreeMap, BTreeSet};

use clinical_model::{PatientId, Subject, Timestamp};
use health_codecs::fhir::search::{Include, Query, Reference, ResourceType};
use health_codecs::fhir::{IssueCode, OutcomeIssue, Severity};
use pipeline::audited::{Act, ReadError};
use pipeline::search::{Position, SearchQuery};
use serde_json::Value;
use store::{AuditAction, Order, SeriesFilter};

use super::answer::Refusal;
use super::call::{self, Call};
use super::{links, records, render, results};
use crate::state::Web;

/// Most resources that one page shows besides its results.
pub const INCLUDE_LIMIT: usize = 1_000;
/// Rounds of `:iterate`: references lead from an Observation over a device and its patient no further than that.
const ROUND_LIMIT: usize = 6;

/// Something that a reference leads from or to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Node {
    /// A patient, a device or a place.
    Record(Subject),
    /// An Observation.
    Observation(Position),
    /// A row of the audit log about a patient; only ever a result.
    Audit(u64, Option<PatientId>),
}

impl Node {
    fn kind(&self) -> ResourceType {
        match self {
            Node::Record(Subject::Patient(_)) => ResourceType::Patient,
            Node::Record(Subject::Device(_)) => ResourceType::Device,
            Node::Record(Subject::Place(_)) => ResourceType::Location,
            Node::Observation(_) => ResourceType::Observation,
            Node::Audit(..) => ResourceType::AuditEvent,
        }
    }
}

/// What is shown besides the results.
#[derive(Default)]
pub(crate) struct Included {
    /// Type, id, resource.
    pub resources: Vec<(ResourceType, (String, Value))>,
    /// What is worth saying.
    pub hints: Vec<OutcomeIssue>,
}

/// Finds and renders what a search asks for besides its results. `recorded` are the patients that the search itself
/// has put into the audit log.
pub(crate) fn all(
    web: &Web,
    call: &Call,
    query: &Query,
    kind: ResourceType,
    matches: Vec<Node>,
    recorded: Vec<PatientId>,
) -> Result<Included, Refusal> {
    let nothing = query.includes.is_empty() && query.reverse_includes.is_empty();
    if nothing || results::is_count(query, &call.params) {
        return Ok(Included::default());
    }
    let mut includer = Includer {
        web,
        call,
        matches: matches.iter().copied().collect(),
        recorded: recorded.into_iter().collect(),
        order: Vec::new(),
        seen: BTreeSet::new(),
        observed: BTreeMap::new(),
        is_cut: false,
    };
    let mut frontier = matches;
    for round in 0..ROUND_LIMIT {
        let applies = |include: &&Include| round == 0 || include.iterate;
        let before = includer.order.len();
        for include in query.includes.iter().filter(applies) {
            includer.forward(&frontier, include)?;
        }
        for include in query.reverse_includes.iter().filter(applies) {
            includer.backward(&frontier, include)?;
        }
        frontier = includer.order[before..].to_vec();
        if frontier.is_empty() {
            break;
        }
    }
    includer.rendered(kind)
}

struct Includer<'a> {
    web: &'a Web,
    call: &'a Call,
    matches: BTreeSet<Node>,
    recorded: BTreeSet<PatientId>,
    order: Vec<Node>,
    seen: BTreeSet<Node>,
    /// Observations are rendered when they are found.
    observed: BTreeMap<Position, (String, Value)>,
    is_cut: bool,
}

impl Includer<'_> {
    fn add(&mut self, node: Node) {
        if self.matches.contains(&node) || self.seen.contains(&node) {
            return;
        }
        if self.order.len() >= INCLUDE_LIMIT {
            self.is_cut = true;
            return;
        }
        self.seen.insert(node);
        self.order.push(node);
    }

    /// Where a reference of a node leads.
    fn target(&self, node: &Node, reference: Reference) -> Option<Subject> {
        let registry = self.web.site.registry();
        if node.kind() != reference.source {
            return None;
        }
        let target = match (node, reference.name) {
            (Node::Observation(position), "device") => Subject::Device(position.series.device),
            (Node::Observation(position), _) => position.series.subject,
            (Node::Record(Subject::Device(id)), _) => {
                call::assigned(self.web, self.call, &*registry.device(*id)?)?
            }
            (Node::Record(Subject::Place(id)), _) => Subject::Place(registry.place(*id)?.ward?),
            (Node::Audit(_, patient), _) => Subject::Patient((*patient)?),
            (Node::Record(Subject::Patient(_)), _) => return None,
        };
        reference.targets.contains(&Node::Record(target).kind()).then_some(target)
    }

    fn forward(&mut self, frontier: &[Node], include: &Include) -> Result<(), Refusal> {
        for node in frontier {
            let target = self.target(node, include.reference);
            let wanted = |subject: &Subject| {
                include.target.is_none_or(|kind| kind == Node::Record(*subject).kind())
                    && links::may_show(self.web, self.call, *subject)
            };
            if let Some(subject) = target.filter(wanted) {
                self.add(Node::Record(subject));
            }
        }
        Ok(())
    }

    fn backward(&mut self, frontier: &[Node], include: &Include) -> Result<(), Refusal> {
        let Include { reference, target, .. } = *include;
        if !self.call.access()?.holds(links::permission_for(reference.source)) {
            return Err(Refusal::forbidden(format!(
                "your role does not permit to include a {}",
                reference.source.name()
            )));
        }
        let leads_here = |node: &&Node| {
            reference.targets.contains(&node.kind()) && target.is_none_or(|target| target == node.kind())
        };
        let subjects: BTreeSet<Subject> = frontier
            .iter()
            .filter(leads_here)
            .filter_map(|node| match node {
                Node::Record(subject) => Some(*subject),
                _ => None,
            })
            .collect();
        let registry = self.web.site.registry();
        match reference.source {
            ResourceType::Observation => self.observations(&subjects, reference.name)?,
            ResourceType::Device => {
                for device in registry.devices() {
                    let assigned = call::assigned(self.web, self.call, &device);
                    if assigned.is_some_and(|subject| subjects.contains(&subject)) {
                        self.add(Node::Record(Subject::Device(device.id)));
                    }
                }
            }
            ResourceType::Location => {
                for place in registry.places() {
                    if place.ward.is_some_and(|ward| subjects.contains(&Subject::Place(ward))) {
                        self.add(Node::Record(Subject::Place(place.id)));
                    }
                }
            }
            ResourceType::Patient | ResourceType::AuditEvent | ResourceType::Consent => {}
        }
        Ok(())
    }

    /// The newest Observations of some subjects, or by some devices.
    fn observations(&mut self, of: &BTreeSet<Subject>, reference: &str) -> Result<(), Refusal> {
        let mut series = Vec::new();
        for subject in of {
            let filter = match (reference, subject) {
                ("device", Subject::Device(device)) => {
                    SeriesFilter { device: Some(*device), ..SeriesFilter::default() }
                }
                ("device", _) => continue,
                _ => SeriesFilter { subject: Some(*subject), ..SeriesFilter::default() },
            };
            series.extend(self.web.site.store().series(&filter)?);
        }
        let sight = self.call.sight_of(self.web, "Observation")?;
        series.retain(|one| sight.series(one));
        series.sort();
        series.dedup();
        let query = SearchQuery {
            from: Timestamp::MIN,
            to: Timestamp::MAX,
            order: Order::Descending,
            after: None,
            limit: INCLUDE_LIMIT.saturating_sub(self.order.len()),
        };
        let acts = self.acts(series.iter().filter_map(|one| one.subject.patient()))?;
        let (found, is_cut) = self.call.chart_each(self.web, acts, |chart| {
            let page = chart.search(&series, &query, &|_, _| true)?;
            let rendered = page.found.iter().map(|(position, found)| {
                let rendered = render::observation(chart, position, found)?;
                Ok((*position, (rendered.id, rendered.resource)))
            });
            Ok((rendered.collect::<Result<Vec<_>, ReadError>>()?, page.next.is_some()))
        })?;
        self.is_cut |= is_cut;
        for (position, rendered) in found {
            self.add(Node::Observation(position));
            self.observed.insert(position, rendered);
        }
        Ok(())
    }

    /// Acts for those patients of whom the audit log does not yet say that this search showed them.
    fn acts(&mut self, patients: impl Iterator<Item = PatientId>) -> Result<Vec<Act>, Refusal> {
        let new: Vec<PatientId> = patients.filter(|id| self.recorded.insert(*id)).collect();
        let detail = format!("included by {}", self.call.query_text(self.web));
        self.call.acts(AuditAction::Search, "include", &detail, &new)
    }

    fn rendered(mut self, kind: ResourceType) -> Result<Included, Refusal> {
        let hints = if self.is_cut { vec![cut_hint(kind)] } else { Vec::new() };
        if self.order.is_empty() {
            return Ok(Included { resources: Vec::new(), hints });
        }
        let patient_of = |node: &Node| match node {
            Node::Record(Subject::Patient(id)) => Some(*id),
            // A device shows to whom it is assigned.
            Node::Record(Subject::Device(id)) => {
                let device = self.web.site.registry().device(*id)?;
                call::assigned(self.web, self.call, &device)?.patient()
            }
            _ => None,
        };
        let patients: Vec<PatientId> = self.order.iter().filter_map(patient_of).collect();
        let acts = self.acts(patients.into_iter())?;
        let resources = self.call.chart_each(self.web, acts, |_| {
            let mut resources = Vec::with_capacity(self.order.len());
            for node in &self.order {
                let shown = match node {
                    Node::Record(subject) => records::shown_record(self.web, self.call, *subject)?,
                    Node::Observation(position) => self.observed.remove(position),
                    Node::Audit(..) => None,
                };
                resources.extend(shown.map(|shown| (node.kind(), shown)));
            }
            Ok(resources)
        })?;
        Ok(Included { resources, hints })
    }
}

fn cut_hint(kind: ResourceType) -> OutcomeIssue {
    OutcomeIssue {
        severity: Severity::Warning,
        code: IssueCode::Incomplete,
        diagnostics: format!(
            "more refers to these resources of type {} than one page shows: the newest {INCLUDE_LIMIT} are here; search \
             for the rest by itself",
            kind.name()
        ),
        expression: Vec::new(),
    }
}
