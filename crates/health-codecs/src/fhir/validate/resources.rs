//! The elements of the FHIR R4 resources that we read or write: names, cardinalities, types and required codes.
//!
//! Read from the R4 (4.0.1) structure definitions of the resources.

use super::datatypes::*;
use super::model::{Base, Cardinality, Element, Kind, Type, types};
use super::primitives::Primitive::*;
use Kind::{Choice, Complex, OneOf, Primitive, Reference, Resource};

/// The resources that can be checked.
pub(super) static RESOURCES: &[&Type] = &[
    &OBSERVATION,
    &PATIENT,
    &DEVICE,
    &DEVICE_METRIC,
    &LOCATION,
    &CONSENT,
    &AUDIT_EVENT,
    &BUNDLE,
    &OPERATION_OUTCOME,
];

static OBSERVATION_VALUE: &[(&str, Kind)] = &[
    ("Quantity", Complex(&QUANTITY)),
    ("CodeableConcept", Complex(&CODEABLE_CONCEPT)),
    ("String", Primitive(String)),
    ("Boolean", Primitive(Boolean)),
    ("Integer", Primitive(Integer)),
    ("Range", Complex(&RANGE)),
    ("Ratio", Complex(&RATIO)),
    ("SampledData", Complex(&SAMPLED_DATA)),
    ("Time", Primitive(Time)),
    ("DateTime", Primitive(DateTime)),
    ("Period", Complex(&PERIOD)),
];

types! {
    OBSERVATION "Observation" Domain {
        "identifier" Any Complex(&IDENTIFIER);
        "basedOn" Any Reference(&[
            "CarePlan", "DeviceRequest", "ImmunizationRecommendation", "MedicationRequest",
            "NutritionOrder", "ServiceRequest"
        ]);
        "partOf" Any Reference(&[
            "MedicationAdministration", "MedicationDispense", "MedicationStatement", "Procedure",
            "Immunization", "ImagingStudy"
        ]);
        "status" Required OneOf(&[
            "registered", "preliminary", "final", "amended", "corrected", "cancelled", "entered-in-error",
            "unknown"
        ]);
        "category" Any Complex(&CODEABLE_CONCEPT);
        "code" Required Complex(&CODEABLE_CONCEPT);
        "subject" Optional Reference(&["Patient", "Group", "Device", "Location"]);
        "focus" Any Reference(&[]);
        "encounter" Optional Reference(&["Encounter"]);
        "effective" Optional Choice(&[
            ("DateTime", Primitive(DateTime)), ("Period", Complex(&PERIOD)), ("Timing", Complex(&TIMING)),
            ("Instant", Primitive(Instant))
        ]);
        "issued" Optional Primitive(Instant);
        "performer" Any Reference(&[
            "Practitioner", "PractitionerRole", "Organization", "CareTeam", "Patient", "RelatedPerson"
        ]);
        "value" Optional Choice(OBSERVATION_VALUE);
        "dataAbsentReason" Optional Complex(&CODEABLE_CONCEPT);
        "interpretation" Any Complex(&CODEABLE_CONCEPT);
        "note" Any Complex(&ANNOTATION);
        "bodySite" Optional Complex(&CODEABLE_CONCEPT);
        "method" Optional Complex(&CODEABLE_CONCEPT);
        "specimen" Optional Reference(&["Specimen"]);
        "device" Optional Reference(&["Device", "DeviceMetric"]);
        "referenceRange" Any Complex(&OBSERVATION_REFERENCE_RANGE);
        "hasMember" Any Reference(&["Observation", "QuestionnaireResponse", "MolecularSequence"]);
        "derivedFrom" Any Reference(&[
            "DocumentReference", "ImagingStudy", "Media", "QuestionnaireResponse", "Observation",
            "MolecularSequence"
        ]);
        "component" Any Complex(&OBSERVATION_COMPONENT);
    }
    OBSERVATION_REFERENCE_RANGE "Observation.referenceRange" Backbone {
        "low" Optional Complex(&SIMPLE_QUANTITY);
        "high" Optional Complex(&SIMPLE_QUANTITY);
        "type" Optional Complex(&CODEABLE_CONCEPT);
        "appliesTo" Any Complex(&CODEABLE_CONCEPT);
        "age" Optional Complex(&RANGE);
        "text" Optional Primitive(String);
    }
    OBSERVATION_COMPONENT "Observation.component" Backbone {
        "code" Required Complex(&CODEABLE_CONCEPT);
        "value" Optional Choice(OBSERVATION_VALUE);
        "dataAbsentReason" Optional Complex(&CODEABLE_CONCEPT);
        "interpretation" Any Complex(&CODEABLE_CONCEPT);
        "referenceRange" Any Complex(&OBSERVATION_REFERENCE_RANGE);
    }
    PATIENT "Patient" Domain {
        "identifier" Any Complex(&IDENTIFIER);
        "active" Optional Primitive(Boolean);
        "name" Any Complex(&HUMAN_NAME);
        "telecom" Any Complex(&CONTACT_POINT);
        "gender" Optional OneOf(&["male", "female", "other", "unknown"]);
        "birthDate" Optional Primitive(Date);
        "deceased" Optional Choice(&[("Boolean", Primitive(Boolean)), ("DateTime", Primitive(DateTime))]);
        "address" Any Complex(&ADDRESS);
        "maritalStatus" Optional Complex(&CODEABLE_CONCEPT);
        "multipleBirth" Optional Choice(&[
            ("Boolean", Primitive(Boolean)), ("Integer", Primitive(Integer))
        ]);
        "photo" Any Complex(&ATTACHMENT);
        "contact" Any Complex(&PATIENT_CONTACT);
        "communication" Any Complex(&PATIENT_COMMUNICATION);
        "generalPractitioner" Any Reference(&["Organization", "Practitioner", "PractitionerRole"]);
        "managingOrganization" Optional Reference(&["Organization"]);
        "link" Any Complex(&PATIENT_LINK);
    }
    PATIENT_CONTACT "Patient.contact" Backbone {
        "relationship" Any Complex(&CODEABLE_CONCEPT);
        "name" Optional Complex(&HUMAN_NAME);
        "telecom" Any Complex(&CONTACT_POINT);
        "address" Optional Complex(&ADDRESS);
        "gender" Optional OneOf(&["male", "female", "other", "unknown"]);
        "organization" Optional Reference(&["Organization"]);
        "period" Optional Complex(&PERIOD);
    }
    PATIENT_COMMUNICATION "Patient.communication" Backbone {
        "language" Required Complex(&CODEABLE_CONCEPT);
        "preferred" Optional Primitive(Boolean);
    }
    PATIENT_LINK "Patient.link" Backbone {
        "other" Required Reference(&["Patient", "RelatedPerson"]);
        "type" Required OneOf(&["replaced-by", "replaces", "refer", "seealso"]);
    }
    DEVICE "Device" Domain {
        "identifier" Any Complex(&IDENTIFIER);
        "definition" Optional Reference(&["DeviceDefinition"]);
        "udiCarrier" Any Complex(&DEVICE_UDI_CARRIER);
        "status" Optional OneOf(&["active", "inactive", "entered-in-error", "unknown"]);
        "statusReason" Any Complex(&CODEABLE_CONCEPT);
        "distinctIdentifier" Optional Primitive(String);
        "manufacturer" Optional Primitive(String);
        "manufactureDate" Optional Primitive(DateTime);
        "expirationDate" Optional Primitive(DateTime);
        "lotNumber" Optional Primitive(String);
        "serialNumber" Optional Primitive(String);
        "deviceName" Any Complex(&DEVICE_DEVICE_NAME);
        "modelNumber" Optional Primitive(String);
        "partNumber" Optional Primitive(String);
        "type" Optional Complex(&CODEABLE_CONCEPT);
        "specialization" Any Complex(&DEVICE_SPECIALIZATION);
        "version" Any Complex(&DEVICE_VERSION);
        "property" Any Complex(&DEVICE_PROPERTY);
        "patient" Optional Reference(&["Patient"]);
        "owner" Optional Reference(&["Organization"]);
        "contact" Any Complex(&CONTACT_POINT);
        "location" Optional Reference(&["Location"]);
        "url" Optional Primitive(Uri);
        "note" Any Complex(&ANNOTATION);
        "safety" Any Complex(&CODEABLE_CONCEPT);
        "parent" Optional Reference(&["Device"]);
    }
    DEVICE_UDI_CARRIER "Device.udiCarrier" Backbone {
        "deviceIdentifier" Optional Primitive(String);
        "issuer" Optional Primitive(Uri);
        "jurisdiction" Optional Primitive(Uri);
        "carrierAIDC" Optional Primitive(Base64Binary);
        "carrierHRF" Optional Primitive(String);
        "entryType" Optional OneOf(&["barcode", "rfid", "manual", "card", "self-reported", "unknown"]);
    }
    DEVICE_DEVICE_NAME "Device.deviceName" Backbone {
        "name" Required Primitive(String);
        "type" Required OneOf(&[
            "udi-label-name", "user-friendly-name", "patient-reported-name", "manufacturer-name",
            "model-name", "other"
        ]);
    }
    DEVICE_SPECIALIZATION "Device.specialization" Backbone {
        "systemType" Required Complex(&CODEABLE_CONCEPT);
        "version" Optional Primitive(String);
    }
    DEVICE_VERSION "Device.version" Backbone {
        "type" Optional Complex(&CODEABLE_CONCEPT);
        "component" Optional Complex(&IDENTIFIER);
        "value" Required Primitive(String);
    }
    DEVICE_PROPERTY "Device.property" Backbone {
        "type" Required Complex(&CODEABLE_CONCEPT);
        "valueQuantity" Any Complex(&QUANTITY);
        "valueCode" Any Complex(&CODEABLE_CONCEPT);
    }
    DEVICE_METRIC "DeviceMetric" Domain {
        "identifier" Any Complex(&IDENTIFIER);
        "type" Required Complex(&CODEABLE_CONCEPT);
        "unit" Optional Complex(&CODEABLE_CONCEPT);
        "source" Optional Reference(&["Device"]);
        "parent" Optional Reference(&["Device"]);
        "operationalStatus" Optional OneOf(&["on", "off", "standby", "entered-in-error"]);
        "color" Optional OneOf(&["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"]);
        "category" Required OneOf(&["measurement", "setting", "calculation", "unspecified"]);
        "measurementPeriod" Optional Complex(&TIMING);
        "calibration" Any Complex(&DEVICE_METRIC_CALIBRATION);
    }
    DEVICE_METRIC_CALIBRATION "DeviceMetric.calibration" Backbone {
        "type" Optional OneOf(&["unspecified", "offset", "gain", "two-point"]);
        "state" Optional OneOf(&["not-calibrated", "calibration-required", "calibrated", "unspecified"]);
        "time" Optional Primitive(Instant);
    }
    LOCATION "Location" Domain {
        "identifier" Any Complex(&IDENTIFIER);
        "status" Optional OneOf(&["active", "suspended", "inactive"]);
        "operationalStatus" Optional Complex(&CODING);
        "name" Optional Primitive(String);
        "alias" Any Primitive(String);
        "description" Optional Primitive(String);
        "mode" Optional OneOf(&["instance", "kind"]);
        "type" Any Complex(&CODEABLE_CONCEPT);
        "telecom" Any Complex(&CONTACT_POINT);
        "address" Optional Complex(&ADDRESS);
        "physicalType" Optional Complex(&CODEABLE_CONCEPT);
        "position" Optional Complex(&LOCATION_POSITION);
        "managingOrganization" Optional Reference(&["Organization"]);
        "partOf" Optional Reference(&["Location"]);
        "hoursOfOperation" Any Complex(&LOCATION_HOURS_OF_OPERATION);
        "availabilityExceptions" Optional Primitive(String);
        "endpoint" Any Reference(&["Endpoint"]);
    }
    LOCATION_POSITION "Location.position" Backbone {
        "longitude" Required Primitive(Decimal);
        "latitude" Required Primitive(Decimal);
        "altitude" Optional Primitive(Decimal);
    }
    LOCATION_HOURS_OF_OPERATION "Location.hoursOfOperation" Backbone {
        "daysOfWeek" Any OneOf(&["mon", "tue", "wed", "thu", "fri", "sat", "sun"]);
        "allDay" Optional Primitive(Boolean);
        "openingTime" Optional Primitive(Time);
        "closingTime" Optional Primitive(Time);
    }
    CONSENT "Consent" Domain {
        "identifier" Any Complex(&IDENTIFIER);
        "status" Required OneOf(&[
            "draft", "proposed", "active", "rejected", "inactive", "entered-in-error"
        ]);
        "scope" Required Complex(&CODEABLE_CONCEPT);
        "category" Some Complex(&CODEABLE_CONCEPT);
        "patient" Optional Reference(&["Patient"]);
        "dateTime" Optional Primitive(DateTime);
        "performer" Any Reference(&[
            "Organization", "Patient", "Practitioner", "RelatedPerson", "PractitionerRole"
        ]);
        "organization" Any Reference(&["Organization"]);
        "source" Optional Choice(&[
            ("Attachment", Complex(&ATTACHMENT)),
            ("Reference", Reference(&["Consent", "DocumentReference", "Contract", "QuestionnaireResponse"]))
        ]);
        "policy" Any Complex(&CONSENT_POLICY);
        "policyRule" Optional Complex(&CODEABLE_CONCEPT);
        "verification" Any Complex(&CONSENT_VERIFICATION);
        "provision" Optional Complex(&CONSENT_PROVISION);
    }
    CONSENT_POLICY "Consent.policy" Backbone {
        "authority" Optional Primitive(Uri);
        "uri" Optional Primitive(Uri);
    }
    CONSENT_VERIFICATION "Consent.verification" Backbone {
        "verified" Required Primitive(Boolean);
        "verifiedWith" Optional Reference(&["Patient", "RelatedPerson"]);
        "verificationDate" Optional Primitive(DateTime);
    }
    CONSENT_PROVISION "Consent.provision" Backbone {
        "type" Optional OneOf(&["deny", "permit"]);
        "period" Optional Complex(&PERIOD);
        "actor" Any Complex(&CONSENT_PROVISION_ACTOR);
        "action" Any Complex(&CODEABLE_CONCEPT);
        "securityLabel" Any Complex(&CODING);
        "purpose" Any Complex(&CODING);
        "class" Any Complex(&CODING);
        "code" Any Complex(&CODEABLE_CONCEPT);
        "dataPeriod" Optional Complex(&PERIOD);
        "data" Any Complex(&CONSENT_PROVISION_DATA);
        "provision" Any Complex(&CONSENT_PROVISION);
    }
    CONSENT_PROVISION_ACTOR "Consent.provision.actor" Backbone {
        "role" Required Complex(&CODEABLE_CONCEPT);
        "reference" Required Reference(&[
            "Device", "Group", "CareTeam", "Organization", "Patient", "Practitioner", "RelatedPerson",
            "PractitionerRole"
        ]);
    }
    CONSENT_PROVISION_DATA "Consent.provision.data" Backbone {
        "meaning" Required OneOf(&["instance", "related", "dependents", "authoredby"]);
        "reference" Required Reference(&[]);
    }
    AUDIT_EVENT "AuditEvent" Domain {
        "type" Required Complex(&CODING);
        "subtype" Any Complex(&CODING);
        "action" Optional OneOf(&["C", "R", "U", "D", "E"]);
        "period" Optional Complex(&PERIOD);
        "recorded" Required Primitive(Instant);
        "outcome" Optional OneOf(&["0", "4", "8", "12"]);
        "outcomeDesc" Optional Primitive(String);
        "purposeOfEvent" Any Complex(&CODEABLE_CONCEPT);
        "agent" Some Complex(&AUDIT_EVENT_AGENT);
        "source" Required Complex(&AUDIT_EVENT_SOURCE);
        "entity" Any Complex(&AUDIT_EVENT_ENTITY);
    }
    AUDIT_EVENT_AGENT "AuditEvent.agent" Backbone {
        "type" Optional Complex(&CODEABLE_CONCEPT);
        "role" Any Complex(&CODEABLE_CONCEPT);
        "who" Optional Reference(&[
            "PractitionerRole", "Practitioner", "Organization", "Device", "Patient", "RelatedPerson"
        ]);
        "altId" Optional Primitive(String);
        "name" Optional Primitive(String);
        "requestor" Required Primitive(Boolean);
        "location" Optional Reference(&["Location"]);
        "policy" Any Primitive(Uri);
        "media" Optional Complex(&CODING);
        "network" Optional Complex(&AUDIT_EVENT_AGENT_NETWORK);
        "purposeOfUse" Any Complex(&CODEABLE_CONCEPT);
    }
    AUDIT_EVENT_AGENT_NETWORK "AuditEvent.agent.network" Backbone {
        "address" Optional Primitive(String);
        "type" Optional OneOf(&["1", "2", "3", "4", "5"]);
    }
    AUDIT_EVENT_SOURCE "AuditEvent.source" Backbone {
        "site" Optional Primitive(String);
        "observer" Required Reference(&[
            "PractitionerRole", "Practitioner", "Organization", "Device", "Patient", "RelatedPerson"
        ]);
        "type" Any Complex(&CODING);
    }
    AUDIT_EVENT_ENTITY "AuditEvent.entity" Backbone {
        "what" Optional Reference(&[]);
        "type" Optional Complex(&CODING);
        "role" Optional Complex(&CODING);
        "lifecycle" Optional Complex(&CODING);
        "securityLabel" Any Complex(&CODING);
        "name" Optional Primitive(String);
        "description" Optional Primitive(String);
        "query" Optional Primitive(Base64Binary);
        "detail" Any Complex(&AUDIT_EVENT_ENTITY_DETAIL);
    }
    AUDIT_EVENT_ENTITY_DETAIL "AuditEvent.entity.detail" Backbone {
        "type" Required Primitive(String);
        "value" Required Choice(&[
            ("String", Primitive(String)), ("Base64Binary", Primitive(Base64Binary))
        ]);
    }
    BUNDLE "Bundle" Resource {
        "identifier" Optional Complex(&IDENTIFIER);
        "type" Required OneOf(&[
            "document", "message", "transaction", "transaction-response", "batch", "batch-response",
            "history", "searchset", "collection"
        ]);
        "timestamp" Optional Primitive(Instant);
        "total" Optional Primitive(UnsignedInt);
        "link" Any Complex(&BUNDLE_LINK);
        "entry" Any Complex(&BUNDLE_ENTRY);
        "signature" Optional Complex(&SIGNATURE);
    }
    BUNDLE_LINK "Bundle.link" Backbone {
        "relation" Required Primitive(String);
        "url" Required Primitive(Uri);
    }
    BUNDLE_ENTRY "Bundle.entry" Backbone {
        "link" Any Complex(&BUNDLE_LINK);
        "fullUrl" Optional Primitive(Uri);
        "resource" Optional Resource;
        "search" Optional Complex(&BUNDLE_ENTRY_SEARCH);
        "request" Optional Complex(&BUNDLE_ENTRY_REQUEST);
        "response" Optional Complex(&BUNDLE_ENTRY_RESPONSE);
    }
    BUNDLE_ENTRY_SEARCH "Bundle.entry.search" Backbone {
        "mode" Optional OneOf(&["match", "include", "outcome"]);
        "score" Optional Primitive(Decimal);
    }
    BUNDLE_ENTRY_REQUEST "Bundle.entry.request" Backbone {
        "method" Required OneOf(&["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"]);
        "url" Required Primitive(Uri);
        "ifNoneMatch" Optional Primitive(String);
        "ifModifiedSince" Optional Primitive(Instant);
        "ifMatch" Optional Primitive(String);
        "ifNoneExist" Optional Primitive(String);
    }
    BUNDLE_ENTRY_RESPONSE "Bundle.entry.response" Backbone {
        "status" Required Primitive(String);
        "location" Optional Primitive(Uri);
        "etag" Optional Primitive(String);
        "lastModified" Optional Primitive(Instant);
        "outcome" Optional Resource;
    }
    OPERATION_OUTCOME "OperationOutcome" Domain {
        "issue" Some Complex(&OPERATION_OUTCOME_ISSUE);
    }
    OPERATION_OUTCOME_ISSUE "OperationOutcome.issue" Backbone {
        "severity" Required OneOf(&["fatal", "error", "warning", "information"]);
        "code" Required OneOf(&[
            "invalid", "structure", "required", "value", "invariant", "security", "login", "unknown",
            "expired", "forbidden", "suppressed", "processing", "not-supported", "duplicate",
            "multiple-matches", "not-found", "deleted", "too-long", "code-invalid", "extension",
            "too-costly", "business-rule", "conflict", "transient", "lock-error", "no-store", "exception",
            "timeout", "incomplete", "throttled", "informational"
        ]);
        "details" Optional Complex(&CODEABLE_CONCEPT);
        "diagnostics" Optional Primitive(String);
        "location" Any Primitive(String);
        "expression" Any Primitive(String);
    }
}
