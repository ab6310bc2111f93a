//! Sight: the one place where it is decided whom and what somebody may see. Policy AND scope AND consent, and a broken
//! glass where it lifts them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ::access::consent::Allowed;
use ::access::scopes::{Cruds, Reach};
use ::access::{Asker, Circumstances, ConsentOutcome, Decision, Resource};
use clinical_model::measure::Category;
use clinical_model::place::PlaceKind;
use clinical_model::{
    Alert, AlertKind, DataClass, Device, Measure, Patient, PatientId, Place, PlaceId, SeriesKey, Subject,
};

use super::{Access, Permission, consented};
use crate::json::views;
use crate::state::Web;

/// What somebody may see, now: it lives as long as one request, or one look of a stream.
#[derive(Clone)]
pub(crate) struct Sight<'a> {
    web: &'a Web,
    access: &'a Access,
    asker: Arc<Asker>,
    /// How far scopes reach for the type of resource that is shown.
    reach: Reach,
    /// What was found for patients already: many series are of few patients.
    found: Arc<Mutex<HashMap<PatientId, Allowed>>>,
}

/// The code of a measure's category, as scopes name it.
pub(crate) fn category_of(measure: Measure) -> &'static str {
    match measure.category {
        Category::VitalSigns => "vital-signs",
        Category::Laboratory => "laboratory",
        Category::Activity => "activity",
        Category::Procedure => "procedure",
        Category::Survey => "survey",
    }
}

impl<'a> Sight<'a> {
    pub(super) fn new(web: &'a Web, access: &'a Access) -> Self {
        let asker = web.policies.asker(super::principal_of(web, &access.who));
        // Without a type only those see anything whom no scope narrows.
        let reach = if access.ceiling.is_none() { Reach::everything() } else { Reach::default() };
        Sight { web, access, asker, reach, found: Arc::default() }
    }

    /// The same eyes, for resources of a type of FHIR and what is done with them.
    #[must_use]
    pub(crate) fn of_type(&self, resource: &str, what: Cruds) -> Self {
        let reach = match &self.access.ceiling {
            None => Reach::everything(),
            Some(ceiling) => ceiling.reach(resource, what),
        };
        Sight { reach, found: Arc::default(), ..self.clone() }
    }

    /// The same eyes without their scopes, for what a write names but does not show.
    #[must_use]
    pub(crate) fn beside_scopes(&self) -> Self {
        Sight { reach: Reach::everything(), found: Arc::default(), ..self.clone() }
    }

    fn registry(&self) -> &pipeline::Registry {
        self.web.site.registry()
    }

    fn circumstances(&self, break_glass: bool, consent: ConsentOutcome) -> Circumstances {
        Circumstances {
            purpose: self.access.purpose.code().to_owned(),
            mfa_age_s: self.access.mfa_age_s,
            break_glass,
            consent,
            data_class: None,
            within_scope: true,
        }
    }

    fn decide(&self, permission: Permission, resource: Resource, asked: Circumstances) -> bool {
        self.asker.may(permission) && self.asker.decide(permission, resource, asked).allowed
    }

    /// What they may see of a patient: nothing where they may not know of them. Unknown ids are answered alike.
    pub(crate) fn allowed(&self, patient: PatientId) -> Allowed {
        #[cfg(feature = "bench-off")]
        if super::is_off() {
            return Allowed::ALL;
        }
        let lock = || self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lock().get(&patient) {
            return *known;
        }
        let allowed = match self.registry().patient(patient) {
            Some(patient) => self.allowed_to(Permission::ReadChart, &patient),
            None => Allowed::NONE,
        };
        lock().insert(patient, allowed);
        allowed
    }

    fn allowed_to(&self, permission: Permission, patient: &Patient) -> Allowed {
        #[cfg(feature = "bench-off")]
        if super::is_off() {
            return Allowed::ALL;
        }
        if !self.reach.admits_some_of(patient.id) || !self.asker.may(permission) {
            return Allowed::NONE;
        }
        let (decision, allowed) = self.decided(permission, patient);
        if decision.allowed { allowed } else { Allowed::NONE }
    }

    /// What is decided about a patient, and by which policies.
    pub(crate) fn explain_patient(&self, permission: Permission, patient: &Patient) -> Decision {
        match self.access.decision(permission) {
            decision if !decision.allowed => decision,
            _ => self.decided(permission, patient).0,
        }
    }

    /// What is decided about a ward, and by which policies.
    pub(crate) fn explain_ward(&self, permission: Permission, ward: PlaceId) -> Decision {
        match self.access.decision(permission) {
            decision if !decision.allowed => decision,
            _ => self.asker.decide(permission, Resource::Ward(ward), self.plain()),
        }
    }

    fn decided(&self, permission: Permission, patient: &Patient) -> (Decision, Allowed) {
        let broken = consented::glass_is_broken(self.web, self.access, patient.id);
        let allowed = consented::allowed(self.web, self.access, patient.id);
        let consent = match (allowed.is_none(), allowed.anything_said()) {
            (true, _) => ConsentOutcome::Deny,
            (false, true) => ConsentOutcome::Permit,
            (false, false) => ConsentOutcome::Silent,
        };
        let resource = Resource::Patient { id: patient.id, ward: self.registry().ward_of(patient) };
        (self.asker.decide(permission, resource, self.circumstances(broken, consent)), allowed)
    }

    /// Whether they may know of a patient.
    pub(crate) fn patient(&self, patient: &Patient) -> bool {
        self.allowed(patient.id).record()
    }

    /// As [`Sight::patient`], by id; false for a patient who is not there, so that ids cannot be tried out.
    pub(crate) fn patient_id(&self, patient: PatientId) -> bool {
        self.allowed(patient).record()
    }

    /// Whether they may do something to a patient, by id: assign, correct, mend what is theirs in quarantine.
    pub(crate) fn may(&self, permission: Permission, patient: PatientId) -> bool {
        let known = self.registry().patient(patient);
        known.is_some_and(|patient| self.allowed_to(permission, &patient).record())
    }

    /// Whether a ward is theirs.
    pub(crate) fn ward(&self, ward: PlaceId) -> bool {
        self.shared() && self.decide(Permission::SeePlaces, Resource::Ward(ward), self.plain())
    }

    /// Whether a place is theirs: by its ward, or, a ward, by itself.
    pub(crate) fn place(&self, place: &Place) -> bool {
        if place.kind == PlaceKind::Ward {
            return self.ward(place.id);
        }
        let resource = Resource::Place { id: place.id, ward: place.ward };
        self.shared() && self.decide(Permission::SeePlaces, resource, self.plain())
    }

    /// As [`Sight::place`], by id.
    pub(crate) fn place_id(&self, place: PlaceId) -> bool {
        self.registry().place(place).is_some_and(|place| self.place(&place))
    }

    /// Whether they may know of a device; to whom it is assigned is another question.
    pub(crate) fn device(&self, device: &Device) -> bool {
        let now = self.web.site.clock().now();
        let ward = match self.registry().subject_at(device.id, now) {
            Some(Subject::Patient(patient)) => {
                self.registry().patient(patient).and_then(|patient| self.registry().ward_of(&patient))
            }
            Some(Subject::Place(place)) => self.registry().place(place).and_then(|place| place.ward),
            Some(Subject::Device(_)) | None => None,
        };
        let resource = Resource::Device { id: device.id, ward };
        self.shared() && self.decide(Permission::ReadDevices, resource, self.plain())
    }

    /// Whether a subject may be shown: a patient, a device or a place.
    pub(crate) fn subject(&self, subject: Subject) -> bool {
        match subject {
            Subject::Patient(patient) => self.patient_id(patient),
            Subject::Device(device) => {
                self.registry().device(device).is_some_and(|device| self.device(&device))
            }
            Subject::Place(place) => self.place_id(place),
        }
    }

    /// Whether what is measured in a series may be shown.
    pub(crate) fn series(&self, series: &SeriesKey) -> bool {
        match series.subject {
            Subject::Patient(patient) => self.measure(patient, series.measure),
            other => self.subject(other) && self.reach.admits(None, &[category_of(series.measure)]),
        }
    }

    /// Whether a measure of a patient may be shown: its category by the scopes, its class by consent and policy.
    pub(crate) fn measure(&self, patient: PatientId, measure: Measure) -> bool {
        self.reach.admits(Some(patient), &[category_of(measure)])
            && self.allowed(patient).measure(measure)
            && self.class(patient, measure)
    }

    /// Whether the policies show a class of data, where one of them asks for it.
    fn class(&self, patient: PatientId, measure: Measure) -> bool {
        if !self.asker.engine().asks_class() {
            return true;
        }
        let ward = self.registry().patient(patient).and_then(|patient| self.registry().ward_of(&patient));
        let class = clinical_model::DataClass::of(measure).code();
        let broken = consented::glass_is_broken(self.web, self.access, patient);
        let mut asked = self.circumstances(broken, ConsentOutcome::Silent);
        asked.data_class = Some(class);
        self.decide(Permission::ReadChart, Resource::Patient { id: patient, ward }, asked)
    }

    /// Whether an alert may be shown. A denial of a class of data silences no alarm for the ward that cares: whoever may
    /// know of the patient by their ward sees the alerts. To others, what is no threshold says how devices work.
    pub(crate) fn alert(&self, alert: &Alert) -> bool {
        let Some(patient) = views::concerned(self.web, alert) else {
            return match alert.subject {
                Subject::Patient(_) => false,
                other => self.subject(other),
            };
        };
        let allowed = self.allowed_to(Permission::ReadChart, &patient);
        let is_allowed = match &alert.what {
            AlertKind::Threshold { measure, .. } => allowed.measure(*measure),
            _ => allowed.class(DataClass::Device),
        };
        allowed.record() && (is_allowed || self.cares_for(&patient))
    }

    /// Whether what staff noted with an alert may be read: by those who care for the patient, and who see all of them.
    pub(crate) fn notes(&self, alert: &Alert) -> bool {
        views::concerned(self.web, alert).is_none_or(|patient| self.knows_all(&patient))
    }

    /// Whether how the devices of a patient work may be shown.
    pub(crate) fn devices_of(&self, patient: &Patient) -> bool {
        self.allowed(patient.id).class(DataClass::Device) || self.cares_for(patient)
    }

    /// Whether the limits of a measure of a patient may be shown.
    pub(crate) fn limit(&self, patient: &Patient, measure: Measure) -> bool {
        self.measure(patient.id, measure) || self.cares_for(patient)
    }

    /// The classes of which a rule keeps anything from a clinician of the ward: a bed where it does must not look silent.
    /// Nothing for others, to whom what may not be seen is not there.
    pub(crate) fn withheld(&self, patient: &Patient) -> Vec<&'static str> {
        let allowed = self.allowed(patient.id);
        if allowed.is_all() || !self.cares_for(patient) {
            return Vec::new();
        }
        let is_kept = |class: &DataClass| class.measures().any(|measure| !allowed.measure(measure));
        DataClass::ALL.iter().copied().filter(is_kept).map(DataClass::code).collect()
    }

    fn knows_all(&self, patient: &Patient) -> bool {
        self.cares_for(patient) || self.allowed(patient.id).is_all()
    }

    /// Whether the patient lies in one of the wards where this clinician works.
    fn cares_for(&self, patient: &Patient) -> bool {
        let is_clinician = |role| matches!(role, crate::people::Role::Nurse | crate::people::Role::Physician);
        self.access.person().is_some_and(|user| {
            is_clinician(user.role)
                && match &user.wards {
                    None => true,
                    Some(wards) => self.registry().ward_of(patient).is_some_and(|ward| wards.contains(&ward)),
                }
        })
    }

    fn plain(&self) -> Circumstances {
        self.circumstances(false, ConsentOutcome::Silent)
    }

    /// Whether what is nobody's is open: also to the scopes of one patient.
    fn shared(&self) -> bool {
        self.reach.admits_shared()
    }
}
