//! The addresses of the code systems, profiles and extensions that we write and read.

/// LOINC.
pub const LOINC: &str = "http://loinc.org";
/// IEEE 11073-10101 nomenclature (MDC).
pub const MDC: &str = "urn:iso:std:iso:11073:10101";
/// The same nomenclature by its object identifier, as HL7 v2 gateways write it.
pub const MDC_OID: &str = "urn:oid:2.16.840.1.113883.6.24";
/// Units of measure.
pub const UCUM: &str = "http://unitsofmeasure.org";
/// Observation category.
pub const OBSERVATION_CATEGORY: &str = "http://terminology.hl7.org/CodeSystem/observation-category";
/// Why a value is absent.
pub const DATA_ABSENT_REASON: &str = "http://terminology.hl7.org/CodeSystem/data-absent-reason";
/// Kinds of identifiers (HL7 table 0203).
pub const IDENTIFIER_TYPE: &str = "http://terminology.hl7.org/CodeSystem/v2-0203";
/// Physical form of a location.
pub const LOCATION_PHYSICAL_TYPE: &str = "http://terminology.hl7.org/CodeSystem/location-physical-type";
/// DICOM controlled terminology.
pub const DICOM: &str = "http://dicom.nema.org/resources/ontology/DCM";
/// Codes of statistics.
pub const OBSERVATION_STATISTICS: &str = "http://terminology.hl7.org/CodeSystem/observation-statistics";
/// Kinds of audit events.
pub const AUDIT_EVENT_TYPE: &str = "http://terminology.hl7.org/CodeSystem/audit-event-type";
/// RESTful interactions.
pub const RESTFUL_INTERACTION: &str = "http://hl7.org/fhir/restful-interaction";
/// Kinds of audited things.
pub const AUDIT_ENTITY_TYPE: &str = "http://terminology.hl7.org/CodeSystem/audit-entity-type";
/// Roles of audited things.
pub const OBJECT_ROLE: &str = "http://terminology.hl7.org/CodeSystem/object-role";
/// Kinds of audit sources.
pub const SECURITY_SOURCE_TYPE: &str = "http://terminology.hl7.org/CodeSystem/security-source-type";
/// What a consent is about.
pub const CONSENT_SCOPE: &str = "http://terminology.hl7.org/CodeSystem/consentscope";
/// What a consent lets somebody do.
pub const CONSENT_ACTION: &str = "http://terminology.hl7.org/CodeSystem/consentaction";
/// HL7 v3 acts: opt-in, opt-out, information disclosure.
pub const ACT_CODE: &str = "http://terminology.hl7.org/CodeSystem/v3-ActCode";
/// HL7 v3 reasons: purposes of use.
pub const ACT_REASON: &str = "http://terminology.hl7.org/CodeSystem/v3-ActReason";
/// HL7 v3 kinds of participation: information recipient.
pub const PARTICIPATION_TYPE: &str = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType";
/// Types of resources.
pub const RESOURCE_TYPES: &str = "http://hl7.org/fhir/resource-types";
/// Base of the profiles that FHIR R4 itself defines.
pub const PROFILE_BASE: &str = "http://hl7.org/fhir/StructureDefinition/";

/// Names of our measures.
pub const MEASURE: &str = "urn:auscult:measure";
/// Record numbers of this site.
pub const RECORD_NUMBER: &str = "urn:auscult:record-number";
/// Classes of data that a consent can name.
pub const DATA_CLASS: &str = "urn:auscult:data-class";
/// Roles of people.
pub const ROLE: &str = "urn:auscult:role";
/// Care teams.
pub const CARE_TEAM: &str = "urn:auscult:care-team";
/// Programs, by name.
pub const PROGRAM: &str = "urn:auscult:program";
/// The policy under which consents are written here.
pub const CONSENT_POLICY: &str = "urn:auscult:consent-policy";
/// What people call the kinds of events in our audit log.
pub const AUDIT_SUBTYPE: &str = "urn:auscult:audit";

/// Extension (code): one finding about a value.
pub const EXT_FINDING: &str = "urn:auscult:finding";
/// Extension (instant): when the frame arrived.
pub const EXT_RECEIVED_AT: &str = "urn:auscult:received-at";
/// Extension (instant): when it was on stable storage.
pub const EXT_COMMITTED_AT: &str = "urn:auscult:committed-at";
/// Extension (decimal, whole): order among readings of one series at one instant, where it is not 0.
pub const EXT_SEQUENCE: &str = "urn:auscult:sequence";
/// Extension (string) on an event that has an amount: the text of the device.
pub const EXT_EVENT_TEXT: &str = "urn:auscult:event-text";
/// Extension (instant) on a sampled component: time of its first sample.
pub const EXT_SEGMENT_START: &str = "urn:auscult:segment-start";
/// Extension (Ratio) on sampled data: samples a second, where the period in ms has no finite decimal form.
pub const EXT_SAMPLING_RATE: &str = "urn:auscult:sampling-rate";
/// Extension (Reference(Location)) on a patient: the bed or home.
pub const EXT_PLACE: &str = "urn:auscult:place";
/// Extension on a device: how far its clock is believed (`rule`, and `shift` in s).
pub const EXT_CLOCK: &str = "urn:auscult:clock";
/// Extension (Quantity, min) on a device: zone of its wall clock, east of UTC.
pub const EXT_UTC_OFFSET: &str = "urn:auscult:utc-offset";
/// Extension on the alarm limits of a patient: one limit (`measure`, `low`, `high`, `priority`, `persistence-s`).
pub const EXT_LIMIT: &str = "urn:auscult:limit";
/// Extension (Quantity, s) on a device: longest usual silence.
pub const EXT_EXPECTED_INTERVAL: &str = "urn:auscult:expected-interval";
