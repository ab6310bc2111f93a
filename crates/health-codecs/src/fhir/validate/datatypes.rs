//! The elements of the FHIR R4 data types: names, cardinalities, types and required codes.
//!
//! Read from the R4 (4.0.1) structure definitions of the data types.

use super::model::{Base, Cardinality, Element, Kind, Type, types};
use super::primitives::Primitive::*;
use Kind::{Choice, Complex, OneOf, Opaque, Primitive, Reference};

types! {
    REFERENCE "Reference" Element {
        "reference" Optional Primitive(String);
        "type" Optional Primitive(Uri);
        "identifier" Optional Complex(&IDENTIFIER);
        "display" Optional Primitive(String);
    }
    SIMPLE_QUANTITY "SimpleQuantity" Element {
        "value" Optional Primitive(Decimal);
        "unit" Optional Primitive(String);
        "system" Optional Primitive(Uri);
        "code" Optional Primitive(Code);
    }
    IDENTIFIER "Identifier" Element {
        "use" Optional OneOf(&["usual", "official", "temp", "secondary", "old"]);
        "type" Optional Complex(&CODEABLE_CONCEPT);
        "system" Optional Primitive(Uri);
        "value" Optional Primitive(String);
        "period" Optional Complex(&PERIOD);
        "assigner" Optional Reference(&["Organization"]);
    }
    CODEABLE_CONCEPT "CodeableConcept" Element {
        "coding" Any Complex(&CODING);
        "text" Optional Primitive(String);
    }
    PERIOD "Period" Element {
        "start" Optional Primitive(DateTime);
        "end" Optional Primitive(DateTime);
    }
    TIMING "Timing" Backbone {
        "event" Any Primitive(DateTime);
        "repeat" Optional Complex(&TIMING_REPEAT);
        "code" Optional Complex(&CODEABLE_CONCEPT);
    }
    TIMING_REPEAT "Timing.repeat" Element {
        "bounds" Optional Choice(&[
            ("Duration", Complex(&QUANTITY)), ("Range", Complex(&RANGE)), ("Period", Complex(&PERIOD))
        ]);
        "count" Optional Primitive(PositiveInt);
        "countMax" Optional Primitive(PositiveInt);
        "duration" Optional Primitive(Decimal);
        "durationMax" Optional Primitive(Decimal);
        "durationUnit" Optional OneOf(&["s", "min", "h", "d", "wk", "mo", "a"]);
        "frequency" Optional Primitive(PositiveInt);
        "frequencyMax" Optional Primitive(PositiveInt);
        "period" Optional Primitive(Decimal);
        "periodMax" Optional Primitive(Decimal);
        "periodUnit" Optional OneOf(&["s", "min", "h", "d", "wk", "mo", "a"]);
        "dayOfWeek" Any OneOf(&["mon", "tue", "wed", "thu", "fri", "sat", "sun"]);
        "timeOfDay" Any Primitive(Time);
        "when" Any OneOf(&[
            "MORN", "MORN.early", "MORN.late", "NOON", "AFT", "AFT.early", "AFT.late", "EVE", "EVE.early",
            "EVE.late", "NIGHT", "PHS", "HS", "WAKE", "C", "CM", "CD", "CV", "AC", "ACM", "ACD", "ACV",
            "PC", "PCM", "PCD", "PCV"
        ]);
        "offset" Optional Primitive(UnsignedInt);
    }
    QUANTITY "Quantity" Element {
        "value" Optional Primitive(Decimal);
        "comparator" Optional OneOf(&["<", "<=", ">=", ">"]);
        "unit" Optional Primitive(String);
        "system" Optional Primitive(Uri);
        "code" Optional Primitive(Code);
    }
    RANGE "Range" Element {
        "low" Optional Complex(&SIMPLE_QUANTITY);
        "high" Optional Complex(&SIMPLE_QUANTITY);
    }
    RATIO "Ratio" Element {
        "numerator" Optional Complex(&QUANTITY);
        "denominator" Optional Complex(&QUANTITY);
    }
    SAMPLED_DATA "SampledData" Element {
        "origin" Required Complex(&SIMPLE_QUANTITY);
        "period" Required Primitive(Decimal);
        "factor" Optional Primitive(Decimal);
        "lowerLimit" Optional Primitive(Decimal);
        "upperLimit" Optional Primitive(Decimal);
        "dimensions" Required Primitive(PositiveInt);
        "data" Optional Primitive(String);
    }
    ANNOTATION "Annotation" Element {
        "author" Optional Choice(&[
            ("Reference", Reference(&["Practitioner", "Patient", "RelatedPerson", "Organization"])),
            ("String", Primitive(String))
        ]);
        "time" Optional Primitive(DateTime);
        "text" Required Primitive(Markdown);
    }
    HUMAN_NAME "HumanName" Element {
        "use" Optional OneOf(&["usual", "official", "temp", "nickname", "anonymous", "old", "maiden"]);
        "text" Optional Primitive(String);
        "family" Optional Primitive(String);
        "given" Any Primitive(String);
        "prefix" Any Primitive(String);
        "suffix" Any Primitive(String);
        "period" Optional Complex(&PERIOD);
    }
    CONTACT_POINT "ContactPoint" Element {
        "system" Optional OneOf(&["phone", "fax", "email", "pager", "url", "sms", "other"]);
        "value" Optional Primitive(String);
        "use" Optional OneOf(&["home", "work", "temp", "old", "mobile"]);
        "rank" Optional Primitive(PositiveInt);
        "period" Optional Complex(&PERIOD);
    }
    ADDRESS "Address" Element {
        "use" Optional OneOf(&["home", "work", "temp", "old", "billing"]);
        "type" Optional OneOf(&["postal", "physical", "both"]);
        "text" Optional Primitive(String);
        "line" Any Primitive(String);
        "city" Optional Primitive(String);
        "district" Optional Primitive(String);
        "state" Optional Primitive(String);
        "postalCode" Optional Primitive(String);
        "country" Optional Primitive(String);
        "period" Optional Complex(&PERIOD);
    }
    ATTACHMENT "Attachment" Element {
        "contentType" Optional Primitive(Code);
        "language" Optional Primitive(Code);
        "data" Optional Primitive(Base64Binary);
        "url" Optional Primitive(Url);
        "size" Optional Primitive(UnsignedInt);
        "hash" Optional Primitive(Base64Binary);
        "title" Optional Primitive(String);
        "creation" Optional Primitive(DateTime);
    }
    CODING "Coding" Element {
        "system" Optional Primitive(Uri);
        "version" Optional Primitive(String);
        "code" Optional Primitive(Code);
        "display" Optional Primitive(String);
        "userSelected" Optional Primitive(Boolean);
    }
    SIGNATURE "Signature" Element {
        "type" Some Complex(&CODING);
        "when" Required Primitive(Instant);
        "who" Required Reference(&[
            "Practitioner", "PractitionerRole", "RelatedPerson", "Patient", "Device", "Organization"
        ]);
        "onBehalfOf" Optional Reference(&[
            "Practitioner", "PractitionerRole", "RelatedPerson", "Patient", "Device", "Organization"
        ]);
        "targetFormat" Optional Primitive(Code);
        "sigFormat" Optional Primitive(Code);
        "data" Optional Primitive(Base64Binary);
    }
    MONEY "Money" Element {
        "value" Optional Primitive(Decimal);
        "currency" Optional Primitive(Code);
    }
    META "Meta" Element {
        "versionId" Optional Primitive(Id);
        "lastUpdated" Optional Primitive(Instant);
        "source" Optional Primitive(Uri);
        "profile" Any Primitive(Canonical);
        "security" Any Complex(&CODING);
        "tag" Any Complex(&CODING);
    }
    NARRATIVE "Narrative" Element {
        "status" Required OneOf(&["generated", "extensions", "additional", "empty"]);
        "div" Required Primitive(Xhtml);
    }
    EXTENSION "Extension" Element {
        "url" Required Primitive(Uri);
        "value" Optional Choice(OPEN);
    }
}

/// What an extension may hold.
pub(super) static OPEN: &[(&str, Kind)] = &[
    ("Base64Binary", Primitive(Base64Binary)),
    ("Boolean", Primitive(Boolean)),
    ("Canonical", Primitive(Canonical)),
    ("Code", Primitive(Code)),
    ("Date", Primitive(Date)),
    ("DateTime", Primitive(DateTime)),
    ("Decimal", Primitive(Decimal)),
    ("Id", Primitive(Id)),
    ("Instant", Primitive(Instant)),
    ("Integer", Primitive(Integer)),
    ("Markdown", Primitive(Markdown)),
    ("Oid", Primitive(Oid)),
    ("PositiveInt", Primitive(PositiveInt)),
    ("String", Primitive(String)),
    ("Time", Primitive(Time)),
    ("UnsignedInt", Primitive(UnsignedInt)),
    ("Uri", Primitive(Uri)),
    ("Url", Primitive(Url)),
    ("Uuid", Primitive(Uuid)),
    ("Address", Complex(&ADDRESS)),
    ("Age", Complex(&QUANTITY)),
    ("Annotation", Complex(&ANNOTATION)),
    ("Attachment", Complex(&ATTACHMENT)),
    ("CodeableConcept", Complex(&CODEABLE_CONCEPT)),
    ("Coding", Complex(&CODING)),
    ("ContactPoint", Complex(&CONTACT_POINT)),
    ("Count", Complex(&QUANTITY)),
    ("Distance", Complex(&QUANTITY)),
    ("Duration", Complex(&QUANTITY)),
    ("HumanName", Complex(&HUMAN_NAME)),
    ("Identifier", Complex(&IDENTIFIER)),
    ("Money", Complex(&MONEY)),
    ("Period", Complex(&PERIOD)),
    ("Quantity", Complex(&QUANTITY)),
    ("Range", Complex(&RANGE)),
    ("Ratio", Complex(&RATIO)),
    ("Reference", Reference(&[])),
    ("SampledData", Complex(&SAMPLED_DATA)),
    ("Signature", Complex(&SIGNATURE)),
    ("Timing", Complex(&TIMING)),
    ("ContactDetail", Opaque),
    ("Contributor", Opaque),
    ("DataRequirement", Opaque),
    ("Expression", Opaque),
    ("ParameterDefinition", Opaque),
    ("RelatedArtifact", Opaque),
    ("TriggerDefinition", Opaque),
    ("UsageContext", Opaque),
    ("Dosage", Opaque),
    ("Meta", Complex(&META)),
];
