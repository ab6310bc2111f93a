//! Issues, and the OperationOutcome that carries them to the caller.

use serde_json::{Value, json};

/// How bad an issue is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// For information only.
    Information,
    /// Odd, but accepted.
    Warning,
    /// Refused.
    Error,
    /// Nothing could be done at all.
    Fatal,
}

impl Severity {
    /// The code in FHIR.
    pub const fn code(self) -> &'static str {
        match self {
            Severity::Information => "information",
            Severity::Warning => "warning",
            Severity::Error => "error",
            Severity::Fatal => "fatal",
        }
    }
}

macro_rules! issue_codes {
    ($( $(#[$doc:meta])* $name:ident = $code:literal; )*) => {
        /// What kind of issue (`http://hl7.org/fhir/issue-type`).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum IssueCode { $( $(#[$doc])* $name, )* }

        impl IssueCode {
            /// The code in FHIR.
            pub const fn code(self) -> &'static str {
                match self { $( IssueCode::$name => $code, )* }
            }
        }
    };
}

issue_codes! {
    /// Content is invalid in a way that no other code names.
    Invalid = "invalid";
    /// Malformed: unknown element, wrong JSON type, not JSON.
    Structure = "structure";
    /// A required element is missing.
    Required = "required";
    /// An element has an unacceptable value.
    Value = "value";
    /// A rule of the resource or the profile is broken.
    Invariant = "invariant";
    /// Nobody is signed in, or the sign-in has ended.
    Login = "login";
    /// An authorisation problem that no other code names.
    Security = "security";
    /// It is not known who is asking.
    Unknown = "unknown";
    /// The session has expired.
    Expired = "expired";
    /// Not allowed.
    Forbidden = "forbidden";
    /// Something was left out because the caller may not see it.
    Suppressed = "suppressed";
    /// Processing failed in a way that no other code names.
    Processing = "processing";
    /// The server does not support it.
    NotSupported = "not-supported";
    /// A duplicate of a record that exists.
    Duplicate = "duplicate";
    /// More than one record matches.
    MultipleMatches = "multiple-matches";
    /// There is no such record.
    NotFound = "not-found";
    /// The record was deleted.
    Deleted = "deleted";
    /// Too large.
    TooLong = "too-long";
    /// A code is not known, or not allowed here.
    CodeInvalid = "code-invalid";
    /// An extension is not acceptable.
    Extension = "extension";
    /// The answer would cost too much.
    TooCostly = "too-costly";
    /// A rule of the business forbids it.
    BusinessRule = "business-rule";
    /// Another edit came first.
    Conflict = "conflict";
    /// It may work later.
    Transient = "transient";
    /// A lock could not be taken.
    LockError = "lock-error";
    /// It could not be stored.
    NoStore = "no-store";
    /// An unexpected error inside.
    Exception = "exception";
    /// It took too long.
    Timeout = "timeout";
    /// Not all could be done.
    Incomplete = "incomplete";
    /// Too many requests.
    Throttled = "throttled";
    /// For information.
    Informational = "informational";
}

/// One issue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutcomeIssue {
    /// How bad.
    pub severity: Severity,
    /// What kind.
    pub code: IssueCode,
    /// A sentence for the person at the other end: what was expected, what was there. Never a patient's name.
    pub diagnostics: String,
    /// Where, as a simple FHIRPath (`Observation.component[0].valueQuantity.code`) or a parameter
    /// (`http.date`); may be empty.
    pub expression: Vec<String>,
}

impl OutcomeIssue {
    /// A refusal at one place; an empty `expression` names no place.
    pub fn error(code: IssueCode, diagnostics: impl Into<String>, expression: impl Into<String>) -> Self {
        let expression = expression.into();
        OutcomeIssue {
            severity: Severity::Error,
            code,
            diagnostics: diagnostics.into(),
            expression: if expression.is_empty() { Vec::new() } else { vec![expression] },
        }
    }

    /// Something worth telling although all went well.
    pub fn information(diagnostics: impl Into<String>) -> Self {
        OutcomeIssue {
            severity: Severity::Information,
            code: IssueCode::Informational,
            diagnostics: diagnostics.into(),
            expression: Vec::new(),
        }
    }
}

impl std::fmt::Display for OutcomeIssue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.expression.first() {
            Some(place) => write!(f, "{place}: {} ({})", self.diagnostics, self.code.code()),
            None => write!(f, "{} ({})", self.diagnostics, self.code.code()),
        }
    }
}

impl std::error::Error for OutcomeIssue {}

/// Characters of a diagnostics text that are shown: a caller's own input may be quoted in it.
const DIAGNOSTICS_LIMIT_CHARS: usize = 1_000;

/// An OperationOutcome. With no issues it says that all is well, because FHIR requires at least one.
pub fn operation_outcome(issues: &[OutcomeIssue]) -> Value {
    let all_well = [OutcomeIssue::information("all well")];
    let issues = if issues.is_empty() { &all_well[..] } else { issues };
    let rendered: Vec<Value> = issues.iter().map(render_issue).collect();
    json!({ "resourceType": "OperationOutcome", "issue": rendered })
}

/// Whether a resource is an OperationOutcome.
pub fn is_outcome(resource: &Value) -> bool {
    resource["resourceType"] == "OperationOutcome"
}

fn render_issue(issue: &OutcomeIssue) -> Value {
    let mut value = json!({ "severity": issue.severity.code(), "code": issue.code.code() });
    let diagnostics: String = issue.diagnostics.chars().take(DIAGNOSTICS_LIMIT_CHARS).collect();
    if !diagnostics.is_empty() {
        value["diagnostics"] = Value::String(diagnostics);
    }
    if !issue.expression.is_empty() {
        value["expression"] = json!(issue.expression);
    }
    value
}
