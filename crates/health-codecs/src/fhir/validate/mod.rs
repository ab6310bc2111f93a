//! Strict checks of foreign FHIR resources: structure, primitives, codes, references, invariants, vital-signs profiles.
//!
//! What is checked is exactly what the tables in this folder say. Extensible bindings and slices of profiles other
//! than the vital signs are not checked; unknown elements are always refused.

mod datatypes;
mod invariants;
mod model;
mod primitives;
mod profiles;
mod resources;

use std::borrow::Cow;
use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::element::cut;
use super::outcome::{IssueCode, OutcomeIssue};
use model::{Cardinality, Element, Kind, Type};
pub(super) use primitives::is_id;
pub(super) use profiles::profile_for;

/// Issues that are reported of one resource: enough to mend it, and a bound on what one request can make us write.
pub const ISSUE_LIMIT: usize = 100;

/// Checks a resource. Nothing found means that it may be taken.
///
/// Known resource types: Observation, Patient, Device, DeviceMetric, Location, Consent, AuditEvent, Bundle, OperationOutcome;
/// any other gives one issue `not-supported`.
pub fn resource(value: &Value) -> Vec<OutcomeIssue> {
    let mut report = Report::default();
    report.resource(value, Place::Top);
    report.issues
}

/// Where a resource stands: some rules depend on it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// By itself.
    Top,
    /// In `contained`.
    Contained,
    /// In the entry of a Bundle.
    Entry,
}

/// One step of the way to an element. Names are borrowed from what is checked: nearly every resource is sound, and then
/// nobody asks for its way.
enum Step<'v> {
    Name(Cow<'v, str>),
    Index(usize),
}

/// What was found so far, and where we are.
#[derive(Default)]
struct Report<'v> {
    path: Vec<Step<'v>>,
    issues: Vec<OutcomeIssue>,
}

impl<'v> Report<'v> {
    fn expression(&self) -> String {
        let mut text = String::new();
        for step in &self.path {
            match step {
                Step::Name(name) if text.is_empty() => text.push_str(name),
                Step::Name(name) => {
                    text.push('.');
                    text.push_str(name);
                }
                // Writing into a string cannot fail.
                Step::Index(index) => drop(write!(text, "[{index}]")),
            }
        }
        text
    }

    /// Notes an issue here.
    fn note(&mut self, code: IssueCode, diagnostics: impl Into<String>) {
        if self.issues.len() < ISSUE_LIMIT {
            let expression = self.expression();
            self.issues.push(OutcomeIssue::error(code, diagnostics, expression));
        }
    }

    /// Notes an issue at a child of where we are.
    fn note_at(&mut self, name: &str, code: IssueCode, diagnostics: impl Into<String>) {
        self.within(Step::Name(Cow::Owned(name.to_owned())), |report| report.note(code, diagnostics));
    }

    fn within(&mut self, step: Step<'v>, work: impl FnOnce(&mut Self)) {
        self.path.push(step);
        work(self);
        self.path.pop();
    }

    fn resource(&mut self, value: &'v Value, place: Place) {
        let Some(fields) = value.as_object() else {
            self.note(IssueCode::Structure, "a resource is a JSON object");
            return;
        };
        let Some(name) = fields.get("resourceType").and_then(Value::as_str) else {
            self.note(IssueCode::Structure, "resourceType is missing");
            return;
        };
        let is_first = self.path.is_empty();
        if is_first {
            self.path.push(Step::Name(Cow::Owned(cut(name))));
        }
        match resources::RESOURCES.iter().find(|known| known.name == name) {
            Some(known) => {
                self.object(known, value, true);
                invariants::resource(self, fields, place);
                if name == "Observation" {
                    profiles::check(self, value);
                }
            }
            // What a contained or an unrelated resource holds is not ours to judge, but it must be sound JSON.
            None if place == Place::Contained && is_resource_name(name) => self.opaque(value),
            None => self.note(
                IssueCode::NotSupported,
                format!("resources of type \"{}\" are not accepted here", cut(name)),
            ),
        }
        if is_first {
            self.path.pop();
        }
    }

    fn object(&mut self, shape: &'static Type, value: &'v Value, is_resource: bool) {
        let Some(fields) = value.as_object() else {
            self.note(IssueCode::Structure, format!("expected a JSON object ({})", shape.name));
            return;
        };
        if fields.is_empty() {
            self.note(IssueCode::Structure, "an empty object; leave the element out instead");
            return;
        }
        // Companions of primitives (`_name`) are rare, and looking for each costs an allocation.
        let has_shadows = fields.keys().any(|name| name.starts_with('_'));
        for (name, content) in fields {
            if is_resource && name == "resourceType" {
                continue;
            }
            let shadow = if has_shadows { fields.get(&format!("_{name}")) } else { None };
            self.property(shape, name, content, shadow);
        }
        for element in shape.all_elements() {
            self.presence(fields, has_shadows, element);
        }
        invariants::complex(self, shape.name, fields);
    }

    /// One JSON property: finds the element it belongs to and checks its content.
    /// `shadow` is its companion.
    fn property(
        &mut self,
        shape: &'static Type,
        name: &'v str,
        content: &'v Value,
        shadow: Option<&'v Value>,
    ) {
        let bare = name.strip_prefix('_').unwrap_or(name);
        let Some((element, kind)) = find(shape, bare) else {
            self.note_at(
                &cut(name),
                IssueCode::Structure,
                format!("{} has no element \"{}\"", shape.name, cut(name)),
            );
            return;
        };
        let is_shadow = bare.len() != name.len();
        if is_shadow && !matches!(kind, Kind::Primitive(_) | Kind::OneOf(_)) {
            self.note_at(name, IssueCode::Structure, "only a primitive element has such a companion");
            return;
        }
        let shadow = shadow.filter(|_| !is_shadow);
        self.within(Step::Name(Cow::Borrowed(name)), |report| {
            if element.cardinality.is_array() {
                report.array(kind, content, shadow, is_shadow);
            } else if is_shadow {
                report.shadow(content);
            } else {
                report.content(kind, content);
            }
        });
    }

    fn array(&mut self, kind: Kind, content: &'v Value, shadow: Option<&'v Value>, is_shadow: bool) {
        let Some(items) = content.as_array() else {
            self.note(IssueCode::Structure, "expected a JSON array");
            return;
        };
        if items.is_empty() {
            self.note(IssueCode::Structure, "an empty array; leave the element out instead");
        }
        for (index, item) in items.iter().enumerate() {
            self.within(Step::Index(index), |report| {
                let stand_in = shadow.and_then(|array| array.get(index)).is_some_and(Value::is_object);
                match (item.is_null(), is_shadow) {
                    (true, true) => {}
                    (true, false) if stand_in => {}
                    (_, true) => report.shadow(item),
                    (_, false) => report.content(kind, item),
                }
            });
        }
    }

    /// The `_name` companion of a primitive: id and extensions only.
    fn shadow(&mut self, content: &'v Value) {
        static SHADOW: Type = Type { name: "Element", base: model::Base::Element, elements: &[] };
        self.object(&SHADOW, content, false);
    }

    fn content(&mut self, kind: Kind, content: &'v Value) {
        match kind {
            Kind::Primitive(primitive) => {
                if let Err(what) = primitives::check(primitive, content) {
                    self.note(IssueCode::Value, what);
                }
            }
            Kind::OneOf(allowed) => self.code(allowed, content),
            Kind::Complex(shape) => self.object(shape, content, false),
            Kind::Reference(targets) => self.reference(targets, content),
            Kind::Resource => {
                let is_contained =
                    self.path.iter().any(|step| matches!(step, Step::Name(n) if n == "contained"));
                self.resource(content, if is_contained { Place::Contained } else { Place::Entry });
            }
            Kind::Opaque => self.opaque(content),
            // `find` has resolved the choice.
            Kind::Choice(_) => {}
        }
    }

    fn code(&mut self, allowed: &[&str], content: &Value) {
        match content.as_str() {
            Some(code) if allowed.contains(&code) => {}
            Some(code) => self.note(
                IssueCode::CodeInvalid,
                format!("\"{}\" is not one of {}", cut(code), allowed.join(", ")),
            ),
            None => self.note(IssueCode::Value, "expected a JSON string with a code"),
        }
    }

    fn reference(&mut self, targets: &[&str], content: &'v Value) {
        self.object(&datatypes::REFERENCE, content, false);
        let stated = content.get("type").and_then(Value::as_str);
        if let Some(kind) = stated.filter(|kind| !targets.is_empty() && !targets.contains(kind)) {
            self.note_at("type", IssueCode::Value, wrong_target(kind, targets));
        }
        let Some(target) = content.get("reference").and_then(Value::as_str) else { return };
        match reference_type(target) {
            ReferenceType::Open => {}
            ReferenceType::Malformed => self.note_at(
                "reference",
                IssueCode::Value,
                format!("expected Type/id, an absolute address, urn:uuid: or #id, found \"{}\"", cut(target)),
            ),
            ReferenceType::Named(kind) if targets.is_empty() || targets.contains(&kind) => {}
            ReferenceType::Named(kind) => {
                self.note_at("reference", IssueCode::Value, wrong_target(kind, targets));
            }
        }
    }

    /// Content whose type we do not know: no nulls, no empty strings, arrays or objects.
    fn opaque(&mut self, content: &'v Value) {
        match content {
            Value::Null => self.note(IssueCode::Structure, "null; leave the element out instead"),
            Value::String(text) if text.is_empty() => {
                self.note(IssueCode::Value, "an empty string; leave the element out instead");
            }
            Value::Array(items) if items.is_empty() => {
                self.note(IssueCode::Structure, "an empty array; leave the element out instead");
            }
            Value::Object(fields) if fields.is_empty() => {
                self.note(IssueCode::Structure, "an empty object; leave the element out instead");
            }
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.within(Step::Index(index), |report| report.opaque(item));
                }
            }
            Value::Object(fields) => {
                for (name, item) in fields {
                    self.within(Step::Name(Cow::Owned(cut(name))), |report| report.opaque(item));
                }
            }
            _ => {}
        }
    }

    /// Cardinality: required elements are there, and a choice is made once.
    fn presence(&mut self, fields: &Map<String, Value>, has_shadows: bool, element: &Element) {
        let count = match element.kind {
            Kind::Choice(options) => chosen(fields, element.name, options),
            _ => {
                let shadowed = || has_shadows && fields.contains_key(&format!("_{}", element.name));
                usize::from(fields.contains_key(element.name) || shadowed())
            }
        };
        let shown = || match element.kind {
            Kind::Choice(_) => format!("{}[x]", element.name),
            _ => element.name.to_owned(),
        };
        if count == 0 && element.cardinality.is_required() {
            let shown = shown();
            self.note_at(&shown, IssueCode::Required, format!("{shown} is required"));
        }
        if count > 1 && element.cardinality != Cardinality::Any {
            let shown = shown();
            self.note_at(
                &shown,
                IssueCode::Structure,
                format!("{shown} may have one type only, found {count}"),
            );
        }
    }
}

/// How many types of a choice are given, a value and its companion counted once.
fn chosen(fields: &Map<String, Value>, name: &str, options: &[(&str, Kind)]) -> usize {
    let is_option = |key: &str| {
        let suffix = key.strip_prefix(name);
        suffix.is_some_and(|suffix| options.iter().any(|(option, _)| *option == suffix))
    };
    let counts = |key: &String| match key.strip_prefix('_') {
        Some(bare) => is_option(bare) && !fields.contains_key(bare),
        None => is_option(key),
    };
    fields.keys().filter(|key| counts(key)).count()
}

/// The element of that JSON name, with the kind that a choice resolves to.
fn find(shape: &'static Type, name: &str) -> Option<(&'static Element, Kind)> {
    shape.all_elements().find_map(|element| match element.kind {
        Kind::Choice(options) => {
            let suffix = name.strip_prefix(element.name)?;
            let (_, kind) = options.iter().find(|(option, _)| *option == suffix)?;
            Some((element, *kind))
        }
        kind => (element.name == name).then_some((element, kind)),
    })
}

fn wrong_target(kind: &str, targets: &[&str]) -> String {
    format!("may refer to {}, not to {}", targets.join(", "), cut(kind))
}

/// What a reference says about the type of its target.
#[derive(Debug, PartialEq, Eq)]
enum ReferenceType<'t> {
    /// Nothing: `#id`, `urn:…`, an address of another kind of server.
    Open,
    /// The type in `Type/id`.
    Named(&'t str),
    /// Not a reference.
    Malformed,
}

fn is_resource_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_uppercase()) && text.bytes().all(|byte| byte.is_ascii_alphabetic())
}

fn reference_type(target: &str) -> ReferenceType<'_> {
    if target.starts_with('#') || target.starts_with("urn:") {
        return ReferenceType::Open;
    }
    let is_absolute = target.starts_with("http://") || target.starts_with("https://");
    // A conditional reference, as transactions use it: Patient?identifier=…
    if let Some((kind, query)) = target.split_once('?').filter(|_| !is_absolute) {
        let fits = is_resource_name(kind) && !query.is_empty();
        return if fits { ReferenceType::Named(kind) } else { ReferenceType::Malformed };
    }
    let unversioned = target.split_once("/_history/").map_or(target, |(head, _)| head);
    let mut parts = unversioned.rsplit('/');
    let (id, kind) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    match is_resource_name(kind) && is_id(id) {
        true if is_absolute || parts.next().is_none() => ReferenceType::Named(kind),
        false if is_absolute => ReferenceType::Open,
        _ => ReferenceType::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_name_their_type() {
        assert_eq!(reference_type("Patient/p1"), ReferenceType::Named("Patient"));
        assert_eq!(reference_type("Patient/p1/_history/2"), ReferenceType::Named("Patient"));
        assert_eq!(reference_type("https://a.example/fhir/Device/d"), ReferenceType::Named("Device"));
        assert_eq!(reference_type("Patient?identifier=a|b"), ReferenceType::Named("Patient"));
        assert_eq!(reference_type("urn:uuid:x"), ReferenceType::Open);
        assert_eq!(reference_type("#x"), ReferenceType::Open);
        assert_eq!(reference_type("p1"), ReferenceType::Malformed);
        assert_eq!(reference_type("Patient/"), ReferenceType::Malformed);
        assert_eq!(reference_type("a/Patient/p1"), ReferenceType::Malformed);
    }
}
