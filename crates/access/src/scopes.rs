//! SMART scopes: what a program was let in for. A ceiling under the policy: they open nothing that is not open anyway.
//!
//! Syntax: SMART App Launch 2.2, "Scopes and Launch Context": `(patient|user|system)/(Type|*).cruds?category=…`, and the
//! words of version 1 (`.read`, `.write`, `.*`).

use std::fmt;
use std::str::FromStr;

use clinical_model::PatientId;

use crate::types;

/// Longest text of scopes that is read, in bytes: some hundred scopes.
pub const SCOPES_LIMIT_BYTES: usize = 8 << 10;
/// Most scopes in one text.
pub const SCOPES_LIMIT: usize = 200;
/// Longest name of a resource type, in characters; FHIR R4 has none longer than 33.
const TYPE_LIMIT_CHARS: usize = 64;
/// Longest category code, in bytes.
const CATEGORY_LIMIT_BYTES: usize = 200;

/// The first part of a resource scope: whose data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Context {
    /// Of the one patient in context.
    Patient,
    /// Of whom the person who is signed in may see.
    User,
    /// Of whom the program itself may see.
    System,
}

impl Context {
    const ALL: [Context; 3] = [Context::Patient, Context::User, Context::System];

    const fn word(self) -> &'static str {
        match self {
            Context::Patient => "patient",
            Context::User => "user",
            Context::System => "system",
        }
    }
}

/// A set of create, read, update, delete and search.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Cruds(u8);

impl Cruds {
    /// None of them.
    pub const NONE: Cruds = Cruds(0);
    /// Create.
    pub const CREATE: Cruds = Cruds(1);
    /// Read one by its id, and its earlier versions.
    pub const READ: Cruds = Cruds(2);
    /// Change.
    pub const UPDATE: Cruds = Cruds(4);
    /// Delete.
    pub const DELETE: Cruds = Cruds(8);
    /// Search, and operations that answer with many.
    pub const SEARCH: Cruds = Cruds(16);
    /// All of them.
    pub const ALL: Cruds = Cruds(31);

    /// In the order in which SMART writes them.
    const LETTERS: [(char, Cruds, &'static str); 5] = [
        ('c', Cruds::CREATE, "add"),
        ('r', Cruds::READ, "read"),
        ('u', Cruds::UPDATE, "change"),
        ('d', Cruds::DELETE, "delete"),
        ('s', Cruds::SEARCH, "search"),
    ];

    /// All that is in either.
    #[must_use]
    pub const fn union(self, other: Cruds) -> Cruds {
        Cruds(self.0 | other.0)
    }

    /// All that is in both.
    #[must_use]
    pub const fn intersection(self, other: Cruds) -> Cruds {
        Cruds(self.0 & other.0)
    }

    /// Whether all of the other is in this.
    pub const fn contains(self, other: Cruds) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// `rs`, `cruds` in their one order, or a word of version 1.
    fn parse(text: &str) -> Option<Cruds> {
        match text {
            "read" => return Some(Cruds::READ.union(Cruds::SEARCH)),
            "write" => return Some(Cruds::CREATE.union(Cruds::UPDATE).union(Cruds::DELETE)),
            "*" => return Some(Cruds::ALL),
            _ => {}
        }
        let mut letters = Self::LETTERS.iter();
        let mut found = Cruds::NONE;
        for letter in text.chars() {
            // Advancing one iterator refuses repeats and another order.
            let (_, one, _) = letters.by_ref().find(|(known, ..)| *known == letter)?;
            found = found.union(*one);
        }
        (!found.is_empty()).then_some(found)
    }
}

impl fmt::Display for Cruds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters = Self::LETTERS.iter().filter(|(_, one, _)| self.contains(*one));
        letters.map(|(letter, ..)| letter).try_for_each(|letter| write!(f, "{letter}"))
    }
}

/// The one filter that a scope may carry: a category of the resource, by its code.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Category {
    /// The system of the code; `None`: any.
    pub system: Option<String>,
    /// The code.
    pub code: String,
}

impl Category {
    fn parse(text: &str) -> Option<Category> {
        let (system, code) = match text.split_once('|') {
            Some((system, code)) => (Some(system.to_owned()), code),
            None => (None, text),
        };
        let sound = |text: &str| {
            !text.is_empty()
                && text.len() <= CATEGORY_LIMIT_BYTES
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/".contains(&byte))
        };
        (sound(code) && system.as_deref().is_none_or(sound))
            .then(|| Category { system, code: code.to_owned() })
    }

    /// Whether a resource of these category codes is in it. Where the system of the filter is named, it must be the one
    /// of the codes: [`Category::OBSERVATION`].
    fn fits(&self, codes: &[&str]) -> bool {
        self.system.as_deref().is_none_or(|system| system == Self::OBSERVATION)
            && codes.contains(&self.code.as_str())
    }

    /// The system of the categories of an Observation, which are the only ones that this server gives resources.
    pub const OBSERVATION: &'static str = "http://terminology.hl7.org/CodeSystem/observation-category";

    /// All that is in both; `Err` where nothing can be.
    fn meet<'a>(one: Option<&'a Category>, other: Option<&'a Category>) -> Result<Option<&'a Category>, ()> {
        match (one, other) {
            (None, narrow) | (narrow, None) => Ok(narrow),
            (Some(one), Some(other)) if one.code != other.code => Err(()),
            (Some(one), Some(other)) => match (&one.system, &other.system) {
                (None, _) => Ok(Some(other)),
                (_, None) => Ok(Some(one)),
                (a, b) if a == b => Ok(Some(one)),
                _ => Err(()),
            },
        }
    }
}

impl fmt::Display for Category {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(system) = &self.system {
            write!(f, "{system}|")?;
        }
        f.write_str(&self.code)
    }
}

/// One scope on resources.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceScope {
    /// Whose.
    pub context: Context,
    /// The type of resource; `None`: every type.
    pub resource: Option<String>,
    /// What may be done.
    pub cruds: Cruds,
    /// Only these; `None`: all.
    pub category: Option<Category>,
}

impl ResourceScope {
    fn speaks_of(&self, resource: &str) -> bool {
        self.resource.as_deref().is_none_or(|own| own == resource)
    }

    /// What it opens, in a sentence for the person who decides.
    pub fn words(&self) -> String {
        let acts: Vec<&str> = Cruds::LETTERS
            .iter()
            .filter(|(_, one, _)| self.cruds.contains(*one))
            .map(|(.., word)| *word)
            .collect();
        let acts = match acts.split_last() {
            Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
            Some((last, _)) => (*last).to_owned(),
            None => String::new(),
        };
        let what = match (self.resource.as_deref(), &self.category) {
            (None, None) => "everything".to_owned(),
            (Some("Observation"), None) => "measurements".to_owned(),
            (Some("Patient"), None) => "who the patient is".to_owned(),
            (Some("Device"), None) => "devices".to_owned(),
            (Some("Location"), None) => "places".to_owned(),
            (Some("AuditEvent"), None) => "the audit log".to_owned(),
            (Some("Consent"), None) => "consents".to_owned(),
            (Some(kind), None) => format!("{kind} records"),
            (Some("Observation"), Some(category)) if category.code == "vital-signs" => {
                "vital signs".to_owned()
            }
            (kind, Some(category)) => {
                format!("{} of the category {}", kind.unwrap_or("everything"), category.code)
            }
        };
        let whose = match self.context {
            Context::Patient => "of the one patient that is chosen",
            Context::User => "of every patient that you may see",
            Context::System => "of every patient that the program may see",
        };
        let mut sentence = format!("{acts} {what}, {whose}");
        if let Some(first) = sentence.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        sentence
    }

    fn parse(word: &str) -> Option<Result<Self, ()>> {
        let (context, rest) = word.split_once('/')?;
        let context = Context::ALL.into_iter().find(|known| known.word() == context)?;
        let parsed = || {
            let (path, filter) = match rest.split_once('?') {
                Some((path, filter)) => (path, Some(filter)),
                None => (rest, None),
            };
            let (resource, cruds) = path.split_once('.')?;
            let is_type = |name: &str| {
                name.len() <= TYPE_LIMIT_CHARS
                    && name.starts_with(|first: char| first.is_ascii_uppercase())
                    && name.bytes().all(|byte| byte.is_ascii_alphabetic())
            };
            let resource = match resource {
                "*" => None,
                name if is_type(name) => Some(name.to_owned()),
                _ => return None,
            };
            let category = match filter {
                None => None,
                Some(filter) => Some(Category::parse(filter.strip_prefix("category=")?)?),
            };
            Some(ResourceScope { context, resource, cruds: Cruds::parse(cruds)?, category })
        };
        Some(parsed().ok_or(()))
    }

    /// All that is in both, if anything is.
    fn meet(&self, other: &ResourceScope) -> Option<ResourceScope> {
        let cruds = self.cruds.intersection(other.cruds);
        let resource = match (&self.resource, &other.resource) {
            (None, narrow) | (narrow, None) => narrow,
            (one, two) if one == two => one,
            _ => return None,
        };
        if self.context != other.context || cruds.is_empty() {
            return None;
        }
        let category = Category::meet(self.category.as_ref(), other.category.as_ref()).ok()?;
        let (resource, category) = (resource.clone(), category.cloned());
        Some(ResourceScope { context: self.context, resource, cruds, category })
    }

    fn covers(&self, other: &ResourceScope) -> bool {
        self.meet(other).as_ref() == Some(other)
    }
}

impl fmt::Display for ResourceScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let resource = self.resource.as_deref().unwrap_or("*");
        write!(f, "{}/{resource}.{}", self.context.word(), self.cruds)?;
        match &self.category {
            Some(category) => write!(f, "?category={category}"),
            None => Ok(()),
        }
    }
}

/// The scopes that are no resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Extra {
    /// An id_token is wanted.
    OpenId,
    /// In it, who the person is as a FHIR resource.
    FhirUser,
    /// The name in it.
    Profile,
    /// A patient is to be chosen.
    LaunchPatient,
    /// Access until the session ends, renewed meanwhile.
    OnlineAccess,
    /// Access beyond the session.
    OfflineAccess,
}

impl Extra {
    const WORDS: [(&'static str, Extra); 6] = [
        ("openid", Extra::OpenId),
        ("fhirUser", Extra::FhirUser),
        ("profile", Extra::Profile),
        ("launch/patient", Extra::LaunchPatient),
        ("online_access", Extra::OnlineAccess),
        ("offline_access", Extra::OfflineAccess),
    ];

    /// The scope as it is written.
    pub fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, one)| *one == self).map_or("", |(word, _)| word)
    }

    /// What it opens, in a sentence for the person who decides.
    pub const fn words(self) -> &'static str {
        match self {
            Extra::OpenId => "Know that it is you",
            Extra::FhirUser => "Know who you are here",
            Extra::Profile => "Know your name",
            Extra::LaunchPatient => "Have one patient chosen by you",
            Extra::OnlineAccess => "Stay connected until you sign out",
            Extra::OfflineAccess => "Stay connected after you sign out",
        }
    }
}

/// Why a text is no scopes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    /// It is too long.
    #[error("scopes have at most {SCOPES_LIMIT} words and {SCOPES_LIMIT_BYTES} bytes")]
    TooMany,
    /// A word is no scope, or one with a filter that cannot be enforced here.
    #[error("\"{word}\" is no scope that can be granted here")]
    Unknown {
        /// The word, cut to 100 characters.
        word: String,
    },
    /// FHIR R4 has no such type of resource: it would never open anything.
    #[error("FHIR R4 has no type \"{name}\"; is it a typing error?")]
    NoType {
        /// What was written.
        name: String,
    },
}

/// A set of scopes, in one order and without repeats.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Scopes {
    resources: Vec<ResourceScope>,
    extras: Vec<Extra>,
}

impl Scopes {
    /// Reads the scopes that can be enforced, and says which words cannot: a server may grant fewer than are asked for.
    ///
    /// # Errors
    /// [`ScopeError::TooMany`].
    pub fn parse_some(text: &str) -> Result<(Scopes, Vec<String>), ScopeError> {
        if text.len() > SCOPES_LIMIT_BYTES || text.split_whitespace().count() > SCOPES_LIMIT {
            return Err(ScopeError::TooMany);
        }
        let (mut scopes, mut refused) = (Scopes::default(), Vec::new());
        for word in text.split_whitespace() {
            let extra = Extra::WORDS.iter().find(|(known, _)| *known == word);
            match (extra, ResourceScope::parse(word)) {
                (Some((_, extra)), _) => scopes.extras.push(*extra),
                (None, Some(Ok(resource))) => scopes.resources.push(resource),
                (None, _) => refused.push(word.chars().take(100).collect()),
            }
        }
        Ok((scopes.ordered(), refused))
    }

    /// Refuses types of resources that there are not: for registrations, where a typing error should be found when it is
    /// made. What a program asks for later opens no more than it was registered for.
    ///
    /// # Errors
    /// [`ScopeError::NoType`] with the first of them.
    pub fn check_types(&self) -> Result<(), ScopeError> {
        let named = self.resources.iter().filter_map(|scope| scope.resource.as_deref());
        match named.into_iter().find(|name| !types::is_type(name)) {
            Some(name) => Err(ScopeError::NoType { name: name.to_owned() }),
            None => Ok(()),
        }
    }

    fn ordered(mut self) -> Self {
        self.resources.sort();
        self.resources.dedup();
        self.extras.sort();
        self.extras.dedup();
        self
    }

    /// What is in both. `launch/patient` and the like stay where both have them.
    #[must_use]
    pub fn intersect(&self, other: &Scopes) -> Scopes {
        let met =
            self.resources.iter().flat_map(|one| other.resources.iter().filter_map(|two| one.meet(two)));
        let mut all = Scopes { resources: met.collect(), extras: Vec::new() }.ordered().resources;
        // What another one covers says nothing.
        let whole = all.clone();
        all.retain(|one| !whole.iter().any(|other| other != one && other.covers(one)));
        let extras = self.extras.iter().copied().filter(|extra| other.has(*extra)).collect();
        Scopes { resources: all, extras }
    }

    /// Only what is of one of these contexts; the extras stay.
    #[must_use]
    pub fn of(&self, contexts: &[Context]) -> Scopes {
        let resources =
            self.resources.iter().filter(|one| contexts.contains(&one.context)).cloned().collect();
        Scopes { resources, extras: self.extras.clone() }
    }

    /// Without one of the extras.
    #[must_use]
    pub fn without(mut self, extra: Extra) -> Scopes {
        self.extras.retain(|own| *own != extra);
        self
    }

    /// Whether one of the extras is in it.
    pub fn has(&self, extra: Extra) -> bool {
        self.extras.contains(&extra)
    }

    /// The scopes on resources.
    pub fn resources(&self) -> &[ResourceScope] {
        &self.resources
    }

    /// The others.
    pub fn extras(&self) -> &[Extra] {
        &self.extras
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.resources.is_empty() && self.extras.is_empty()
    }

    /// Whether a patient must be chosen before they open anything.
    pub fn needs_patient(&self) -> bool {
        self.has(Extra::LaunchPatient) || self.resources.iter().any(|one| one.context == Context::Patient)
    }

    /// Whether all that the other opens is opened by this.
    pub fn covers(&self, other: &Scopes) -> bool {
        other.resources.iter().all(|one| self.resources.iter().any(|own| own.covers(one)))
            && other.extras.iter().all(|extra| self.has(*extra))
    }
}

impl FromStr for Scopes {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        let (scopes, refused) = Scopes::parse_some(text)?;
        match refused.into_iter().next() {
            Some(word) => Err(ScopeError::Unknown { word }),
            None => Ok(scopes),
        }
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let resources = self.resources.iter().map(ToString::to_string);
        let words: Vec<String> =
            resources.chain(self.extras.iter().map(|one| one.word().to_owned())).collect();
        f.write_str(&words.join(" "))
    }
}

/// What a token or the certificate of a program carries: scopes, and the patient in context.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Ceiling {
    /// The scopes.
    pub scopes: Scopes,
    /// The patient of the `patient/` scopes; without one they open nothing.
    pub patient: Option<PatientId>,
}

impl Ceiling {
    /// How far the scopes reach for one type of resource and one act on it.
    pub fn reach(&self, resource: &str, what: Cruds) -> Reach {
        let mut openings = Vec::new();
        for scope in &self.scopes.resources {
            let is_patient = scope.context == Context::Patient;
            let fits = scope.speaks_of(resource) && !what.is_empty() && scope.cruds.contains(what);
            if fits && (!is_patient || self.patient.is_some()) {
                let only_patient = self.patient.filter(|_| is_patient);
                openings.push(Opening { only_patient, category: scope.category.clone() });
            }
        }
        Reach(openings)
    }

    /// Whether one of the scopes does this to anything at all: what no scope names is not even tried.
    pub fn is_ever(&self, what: Cruds) -> bool {
        self.scopes.resources.iter().any(|scope| scope.cruds.contains(what))
    }
}

/// One way in which scopes open a type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Only what is this patient's.
    pub only_patient: Option<PatientId>,
    /// Only of this category.
    pub category: Option<Category>,
}

/// How far scopes reach: the union of their openings.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Reach(Vec<Opening>);

impl Reach {
    /// Without a ceiling: everything.
    pub fn everything() -> Self {
        Reach(vec![Opening { only_patient: None, category: None }])
    }

    /// Whether nothing is opened: `insufficient_scope`.
    pub fn is_nothing(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether nothing is kept back.
    pub fn is_everything(&self) -> bool {
        self.0.iter().any(|one| one.only_patient.is_none() && one.category.is_none())
    }

    /// The openings.
    pub fn openings(&self) -> &[Opening] {
        &self.0
    }

    /// Whether one resource is opened: of which patient it is (`None`: of nobody), and the codes of its categories.
    pub fn admits(&self, patient: Option<PatientId>, categories: &[&str]) -> bool {
        self.0.iter().any(|one| {
            one.only_patient.is_none_or(|only| patient == Some(only))
                && one.category.as_ref().is_none_or(|category| category.fits(categories))
        })
    }

    /// Whether a resource that is of nobody (a place, a device on no patient) is opened: also by the scopes of a patient,
    /// since nothing in it is anybody's.
    pub fn admits_shared(&self) -> bool {
        self.0.iter().any(|one| one.category.is_none())
    }

    /// Whether anything of a patient can be opened, whatever its category.
    pub fn admits_some_of(&self, patient: PatientId) -> bool {
        self.0.iter().any(|one| one.only_patient.is_none_or(|only| only == patient))
    }

    /// The one patient to whom all is narrowed, if it is: a search needs to look at nobody else.
    pub fn only_patient(&self) -> Option<PatientId> {
        let mut patients = self.0.iter().map(|one| one.only_patient);
        let first = patients.next()??;
        patients.all(|next| next == Some(first)).then_some(first)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scopes(text: &str) -> Scopes {
        text.parse().unwrap()
    }

    fn one() -> PatientId {
        PatientId::from_bytes([1; 16])
    }

    fn two() -> PatientId {
        PatientId::from_bytes([2; 16])
    }

    #[test]
    fn both_versions_are_read_and_the_second_is_written() {
        let cases = [
            ("patient/Observation.rs?category=vital-signs", "patient/Observation.rs?category=vital-signs"),
            ("user/*.read", "user/*.rs"),
            ("system/Observation.write", "system/Observation.cud"),
            ("patient/*.*", "patient/*.cruds"),
            ("openid fhirUser launch/patient", "openid fhirUser launch/patient"),
            ("  user/Patient.r   user/Patient.r ", "user/Patient.r"),
        ];
        for (given, written) in cases {
            assert_eq!(scopes(given).to_string(), written);
        }
        let category = format!("user/Observation.s?category={}|laboratory", Category::OBSERVATION);
        assert_eq!(scopes(&category).to_string(), category);
    }

    #[test]
    fn what_is_no_scope_or_cannot_be_enforced_is_refused_by_name() {
        let bad = [
            "patient/Observation",
            "patient/Observation.",
            "patient/Observation.sr",
            "patient/Observation.rr",
            "patient/Observation.x",
            "patient/observation.r",
            "patient/.r",
            "patient/Obs/ervation.r",
            "Patient/Observation.r",
            "everyone/Observation.r",
            "patient/Observation.r?code=1",
            "patient/Observation.r?category=",
            "patient/Observation.r?category=a&category=b",
            "patient/Observation.r?category=a,b",
            "patient/Observation.r?category=a&code=b",
            "patient/Observation.r?",
            "launch",
            "admin",
            "patient/*.cruds?_security=x",
        ];
        for word in bad {
            assert_eq!(word.parse::<Scopes>(), Err(ScopeError::Unknown { word: word.to_owned() }));
        }
        assert_eq!("a ".repeat(SCOPES_LIMIT + 1).parse::<Scopes>(), Err(ScopeError::TooMany));
        assert_eq!("a".repeat(SCOPES_LIMIT_BYTES + 1).parse::<Scopes>(), Err(ScopeError::TooMany));
        let (granted, refused) = Scopes::parse_some("user/*.r nonsense").unwrap();
        assert_eq!((granted, refused), (scopes("user/*.r"), vec!["nonsense".to_owned()]));
    }

    #[test]
    fn a_ceiling_says_whose_and_of_which_category() {
        let ceiling = Ceiling {
            scopes: scopes("patient/Observation.rs?category=vital-signs user/Patient.r"),
            patient: Some(one()),
        };
        let reach = ceiling.reach("Observation", Cruds::SEARCH);
        assert!(reach.admits(Some(one()), &["vital-signs"]));
        assert!(!reach.admits(Some(one()), &["laboratory"]));
        assert!(!reach.admits(Some(two()), &["vital-signs"]));
        assert!(!reach.admits(None, &["vital-signs"]));
        assert_eq!(reach.only_patient(), Some(one()));
        assert!(ceiling.reach("Observation", Cruds::CREATE).is_nothing());
        assert!(ceiling.reach("Patient", Cruds::SEARCH).is_nothing());
        assert!(ceiling.reach("Patient", Cruds::READ).is_everything());
        assert!(ceiling.reach("Patient", Cruds::READ).only_patient().is_none());
        let without = Ceiling { patient: None, ..ceiling };
        assert!(without.reach("Observation", Cruds::SEARCH).is_nothing(), "no patient, no patient's data");
    }

    #[test]
    fn a_named_system_must_be_the_one_of_the_categories() {
        let other =
            Ceiling { scopes: scopes("user/Observation.r?category=urn:x|vital-signs"), patient: None };
        assert!(!other.reach("Observation", Cruds::READ).admits(Some(one()), &["vital-signs"]));
    }

    #[test]
    fn an_intersection_keeps_what_both_have() {
        let cases = [
            ("patient/*.cruds", "patient/Observation.rs", "patient/Observation.rs"),
            ("patient/*.rs", "user/*.rs", ""),
            (
                "user/Observation.rs",
                "user/Observation.rs?category=vital-signs",
                "user/Observation.rs?category=vital-signs",
            ),
            ("user/Observation.r?category=a", "user/Observation.r?category=b", ""),
            ("user/Observation.cud user/*.r", "user/*.cr", "user/*.r user/Observation.c"),
            ("openid offline_access user/*.r", "openid user/*.r", "user/*.r openid"),
        ];
        for (one, two, both) in cases {
            assert_eq!(scopes(one).intersect(&scopes(two)).to_string(), both, "{one} and {two}");
        }
    }

    #[test]
    fn words_are_sentences() {
        let words = |text: &str| scopes(text).resources()[0].words();
        assert_eq!(
            words("patient/Observation.rs?category=vital-signs"),
            "Read and search vital signs, of the one patient that is chosen"
        );
        assert_eq!(
            words("user/*.cruds"),
            "Add, read, change, delete and search everything, of every patient that you may see"
        );
    }

    fn any_scope() -> impl Strategy<Value = ResourceScope> {
        let context = prop::sample::select(Context::ALL.to_vec());
        let kind = prop::sample::select(vec![None, Some("Observation"), Some("Patient")]);
        let category = prop::sample::select(vec![None, Some("vital-signs"), Some("laboratory")]);
        (context, kind, 1_u8..32, category).prop_map(|(context, kind, cruds, category)| ResourceScope {
            context,
            resource: kind.map(str::to_owned),
            cruds: Cruds(cruds),
            category: category.map(|code| Category { system: None, code: code.to_owned() }),
        })
    }

    fn any_scopes() -> impl Strategy<Value = Scopes> {
        prop::collection::vec(any_scope(), 0..6)
            .prop_map(|resources| Scopes { resources, extras: Vec::new() }.ordered())
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(scopes in any_scopes()) {
            prop_assert_eq!(scopes.to_string().parse::<Scopes>().unwrap(), scopes);
        }

        /// The intersection admits a resource when, and only when, both do.
        #[test]
        fn an_intersection_opens_what_both_open_and_nothing_else(a in any_scopes(), b in any_scopes()) {
            let both = a.intersect(&b);
            prop_assert_eq!(&both, &b.intersect(&a));
            prop_assert!(a.covers(&both) && b.covers(&both));
            for context in Context::ALL {
                let ceiling = |scopes: &Scopes| Ceiling { scopes: scopes.of(&[context]), patient: Some(one()) };
                for kind in ["Observation", "Patient", "Device"] {
                    for what in [Cruds::CREATE, Cruds::READ, Cruds::UPDATE, Cruds::DELETE, Cruds::SEARCH] {
                        for patient in [None, Some(one()), Some(two())] {
                            for code in ["vital-signs", "laboratory", "survey"] {
                                let admits = |scopes| ceiling(scopes).reach(kind, what).admits(patient, &[code]);
                                prop_assert_eq!(admits(&both), admits(&a) && admits(&b));
                            }
                        }
                    }
                }
            }
        }

        #[test]
        fn no_text_makes_the_parser_fail(text in "\\PC{0,200}") {
            let _ = Scopes::parse_some(&text);
        }
    }
}
