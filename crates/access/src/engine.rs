//! The engine: every question is put to all policies; a forbid wins, and what cannot be evaluated is denied.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cedar_policy::{
    Authorizer, Context, Decision as Answer, Entities, Entity, EntityId, EntityTypeName, EntityUid,
    PolicySet, Request, RestrictedExpression, Schema,
};
use clinical_model::{PatientId, PlaceId};

use crate::permission::{Granted, May, Permission};
use crate::question::{Circumstances, Person, Principal, Resource};
use crate::role::Role;
use crate::rules::{self, BadPolicies, Rule, SITE, Source};

/// Decisions that one asker remembers; beyond it the oldest questions are asked again.
const REMEMBERED_LIMIT: usize = 4_096;

/// What the policies said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether it is permitted.
    pub allowed: bool,
    /// The policies that decided: those that permitted, or those that forbade; none where nothing permitted.
    pub policies: Vec<String>,
    /// Policies that could not be evaluated; then nothing is permitted.
    pub errors: Vec<String>,
}

impl Decision {
    fn denied(error: String) -> Self {
        Decision { allowed: false, policies: Vec::new(), errors: vec![error] }
    }

    /// Why, in one line, for the audit log.
    pub fn why(&self) -> String {
        let named = self.policies.join(", ");
        match (self.allowed, self.errors.is_empty(), named.is_empty()) {
            (true, _, _) => format!("permitted by {named}"),
            (false, false, _) => format!("denied: {}", self.errors.join("; ")),
            (false, true, true) => "denied: no policy permits it".to_owned(),
            (false, true, false) => format!("forbidden by {named}"),
        }
    }
}

/// The policies in force.
pub struct Engine {
    set: PolicySet,
    /// The actions with their groups, and the site.
    base: Entities,
    rules: Vec<Rule>,
    names: Names,
    /// Whether a policy names one patient, place or device: then decisions differ within a ward.
    names_one: bool,
    /// Whether a policy asks for the class of data.
    asks_class: bool,
    evaluated: AtomicU64,
}

/// The names of types, read once.
struct Names {
    role: EntityTypeName,
    care_team: EntityTypeName,
    user: EntityTypeName,
    program: EntityTypeName,
    gateway: EntityTypeName,
    device: EntityTypeName,
    site: EntityTypeName,
    ward: EntityTypeName,
    place: EntityTypeName,
    patient: EntityTypeName,
    action: EntityTypeName,
}

impl Names {
    fn read() -> Result<Self, BadPolicies> {
        let name = |text: &str| {
            text.parse::<EntityTypeName>().map_err(|error| {
                let what = error.to_string();
                let file = "schema.cedarschema".to_owned();
                BadPolicies(vec![rules::Mistake { file, line: 1, column: 1, what, help: None }])
            })
        };
        Ok(Names {
            role: name("Role")?,
            care_team: name("CareTeam")?,
            user: name("User")?,
            program: name("Program")?,
            gateway: name("Gateway")?,
            device: name("Device")?,
            site: name("Site")?,
            ward: name("Ward")?,
            place: name("Place")?,
            patient: name("Patient")?,
            action: name("Action")?,
        })
    }
}

fn uid(name: &EntityTypeName, id: impl std::fmt::Display) -> EntityUid {
    EntityUid::from_type_name_and_id(name.clone(), EntityId::new(id.to_string()))
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Engine({} policies)", self.rules.len())
    }
}

impl Engine {
    /// With the built-in policies alone.
    ///
    /// # Errors
    /// [`BadPolicies`]: never, as a test shows.
    pub fn built_in() -> Result<Self, BadPolicies> {
        Engine::with(&[])
    }

    /// With the files of a site: `roles.cedar` takes the place of ours, the others come on top.
    ///
    /// # Errors
    /// [`BadPolicies`] with every mistake and its place.
    pub fn with(own: &[Source]) -> Result<Self, BadPolicies> {
        let read = rules::read(&rules::with_built_in(own))?;
        let names = Names::read()?;
        let single = [&names.patient, &names.place, &names.device];
        let names_one = read.set.policies().any(|policy| {
            policy.entity_literals().iter().any(|literal| single.contains(&literal.type_name()))
        });
        let asks_class = read.rules.iter().any(|rule| rule.text.contains("dataClass"));
        let base = base(&read.schema, &names)?;
        let evaluated = AtomicU64::new(0);
        Ok(Engine { set: read.set, base, rules: read.rules, names, names_one, asks_class, evaluated })
    }

    /// The policies, by file and line.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Whether a policy asks for the class of data, so that classes must be asked one by one.
    pub const fn asks_class(&self) -> bool {
        self.asks_class
    }

    /// Questions that were put to the policies so far, those answered from memory not counted.
    pub fn evaluated(&self) -> u64 {
        self.evaluated.load(Ordering::Relaxed)
    }

    /// One question, without memory.
    pub fn decide(
        &self,
        principal: &Principal,
        permission: Permission,
        resource: &Resource,
        asked: &Circumstances,
    ) -> Decision {
        match self.prepared(principal) {
            Ok((principal, entities)) => self.answer(&principal, &entities, permission, resource, asked),
            Err(error) => Decision::denied(error),
        }
    }

    fn answer(
        &self,
        principal: &EntityUid,
        known: &Entities,
        permission: Permission,
        resource: &Resource,
        asked: &Circumstances,
    ) -> Decision {
        if permission == Permission::Open {
            return Decision { allowed: true, policies: vec!["open".to_owned()], errors: Vec::new() };
        }
        self.evaluated.fetch_add(1, Ordering::Relaxed);
        let (resource, of_resource) = self.resource(resource);
        let of_resource = of_resource.into_iter().filter(|one| known.get(&one.uid()).is_none());
        let result = context(asked).and_then(|context| {
            let action = uid(&self.names.action, permission.word());
            let request = Request::new(principal.clone(), action, resource, context, None);
            let request = request.map_err(|error| error.to_string())?;
            let entities =
                known.clone().add_entities(of_resource, None).map_err(|error| error.to_string())?;
            Ok(Authorizer::new().is_authorized(&request, &self.set, &entities))
        });
        let response = match result {
            Ok(response) => response,
            Err(error) => return Decision::denied(error),
        };
        let errors: Vec<String> = response.diagnostics().errors().map(ToString::to_string).collect();
        let mut policies: Vec<String> = response.diagnostics().reason().map(ToString::to_string).collect();
        policies.sort();
        // The engine leaves out a policy that fails to evaluate: a forbid that fails would permit.
        Decision { allowed: response.decision() == Answer::Allow && errors.is_empty(), policies, errors }
    }

    /// A principal with all that is known of it.
    fn prepared(&self, principal: &Principal) -> Result<(EntityUid, Entities), String> {
        let (own, entities) = self.principal(principal)?;
        let entities = self.base.clone().add_entities(entities, None).map_err(|error| error.to_string())?;
        Ok((own, entities))
    }

    fn principal(&self, principal: &Principal) -> Result<(EntityUid, Vec<Entity>), String> {
        let names = &self.names;
        let role = |word: &str| uid(&names.role, word);
        let machine = |own: EntityUid, word: &str| {
            let parent = role(word);
            let parents = HashSet::from([parent.clone()]);
            let me = Entity::new_no_attrs(own.clone(), parents);
            (own, vec![me, Entity::new_no_attrs(parent, HashSet::new())])
        };
        Ok(match principal {
            Principal::Person(person) => self.person(person)?,
            Principal::Program { name } => machine(uid(&names.program, name), "program"),
            Principal::Device(id) => machine(uid(&names.device, id), "device"),
            Principal::Gateway { name } => machine(uid(&names.gateway, name), "gateway"),
        })
    }

    fn person(&self, person: &Person) -> Result<(EntityUid, Vec<Entity>), String> {
        let names = &self.names;
        let own = uid(&names.user, person.id);
        let mut parents = HashSet::from([uid(&names.role, person.role.word())]);
        parents.extend(person.care_teams.iter().map(|team| uid(&names.care_team, team)));
        let set_of = |uids: Vec<EntityUid>| {
            RestrictedExpression::new_set(uids.into_iter().map(RestrictedExpression::new_entity_uid))
        };
        let is_staff = person.role.is_staff();
        let wards = person.wards.iter().flatten().filter(|_| is_staff);
        let mut attributes = HashMap::from([
            ("everyWard".to_owned(), RestrictedExpression::new_bool(is_staff && person.wards.is_none())),
            ("wards".to_owned(), set_of(wards.map(|ward| uid(&names.ward, ward)).collect())),
            (
                "caresFor".to_owned(),
                set_of(person.cares_for.iter().map(|patient| uid(&names.patient, patient)).collect()),
            ),
        ]);
        if let Some(patient) = person.patient {
            let patient = RestrictedExpression::new_entity_uid(uid(&names.patient, patient));
            attributes.insert("patient".to_owned(), patient);
        }
        let me = Entity::new(own.clone(), attributes, parents.clone()).map_err(|error| error.to_string())?;
        let mut entities = vec![me];
        entities.extend(parents.into_iter().map(|parent| Entity::new_no_attrs(parent, HashSet::new())));
        Ok((own, entities))
    }

    fn resource(&self, resource: &Resource) -> (EntityUid, Vec<Entity>) {
        let names = &self.names;
        let site = uid(&names.site, SITE);
        let in_site = HashSet::from([site.clone()]);
        let mut entities = Vec::new();
        let (own, ward) = match resource {
            Resource::Site => return (site, entities),
            Resource::Ward(id) => {
                let own = uid(&names.ward, id);
                entities.push(Entity::new_no_attrs(own.clone(), in_site));
                return (own, entities);
            }
            Resource::Place { id, ward } => (uid(&names.place, id), ward),
            Resource::Patient { id, ward } => (uid(&names.patient, id), ward),
            Resource::Device { id, ward } => (uid(&names.device, id), ward),
        };
        let parents = match ward {
            None => in_site,
            Some(ward) => {
                let ward = uid(&names.ward, ward);
                entities.push(Entity::new_no_attrs(ward.clone(), in_site));
                HashSet::from([ward])
            }
        };
        entities.push(Entity::new_no_attrs(own.clone(), parents));
        (own, entities)
    }
}

/// What every question has in common.
fn base(schema: &Schema, names: &Names) -> Result<Entities, BadPolicies> {
    let site = Entity::new_no_attrs(uid(&names.site, SITE), HashSet::new());
    let ours = |what: String| {
        let file = "schema.cedarschema".to_owned();
        BadPolicies(vec![rules::Mistake { file, line: 1, column: 1, what, help: None }])
    };
    let actions = schema.action_entities().map_err(|error| ours(error.to_string()))?;
    actions.add_entities([site], None).map_err(|error| ours(error.to_string()))
}

fn context(asked: &Circumstances) -> Result<Context, String> {
    let text = |text: &str| RestrictedExpression::new_string(text.to_owned());
    let mut pairs = vec![
        ("purpose".to_owned(), text(&asked.purpose)),
        ("breakGlass".to_owned(), RestrictedExpression::new_bool(asked.break_glass)),
        ("consent".to_owned(), text(asked.consent.word())),
        ("withinScope".to_owned(), RestrictedExpression::new_bool(asked.within_scope)),
    ];
    if let Some(age) = asked.mfa_age_s {
        pairs.push(("mfaAgeS".to_owned(), RestrictedExpression::new_long(i64::from(age))));
    }
    if let Some(class) = asked.data_class {
        pairs.push(("dataClass".to_owned(), text(class)));
    }
    Context::from_pairs(pairs).map_err(|error| error.to_string())
}

/// What tells two questions of one asker apart, as far as the policies can.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Question {
    permission: Permission,
    resource: Resource,
    asked: Circumstances,
}

/// Whoever asks, prepared: many questions of one request cost few evaluations.
///
/// It holds the policies that were in force when it was made, and lives as long as one request, or one look of a stream.
pub struct Asker {
    engine: Arc<Engine>,
    principal: Principal,
    prepared: Result<(EntityUid, Entities), String>,
    remembered: Mutex<HashMap<Question, Decision>>,
    #[cfg(feature = "bench-off")]
    permits_all: bool,
}

impl std::fmt::Debug for Asker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Asker({:?})", self.principal)
    }
}

impl Asker {
    /// Somebody, under the policies in force.
    pub fn new(engine: Arc<Engine>, principal: Principal) -> Self {
        let prepared = engine.prepared(&principal);
        Asker {
            engine,
            principal,
            prepared,
            remembered: Mutex::default(),
            #[cfg(feature = "bench-off")]
            permits_all: false,
        }
    }

    /// Somebody to whom everything is permitted unasked, for measuring what it costs to ask. Never in a release.
    #[cfg(feature = "bench-off")]
    pub fn permitting_all(engine: Arc<Engine>, principal: Principal) -> Self {
        Asker { permits_all: true, ..Asker::new(engine, principal) }
    }

    /// Who.
    pub const fn principal(&self) -> &Principal {
        &self.principal
    }

    /// The policies.
    pub const fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Whether it may be tried at all.
    pub fn may(&self, permission: Permission) -> bool {
        self.decide(permission, Resource::Site, Circumstances::default()).allowed
    }

    /// The proof that it may be tried at all; `None` where it may not.
    pub fn granted<P: May>(&self) -> Option<Granted<P>> {
        self.may(P::PERMISSION).then(Granted::by_decision)
    }

    /// What may be tried at all, for menus.
    pub fn permissions(&self) -> Vec<Permission> {
        Permission::ALL.iter().copied().filter(|permission| self.may(*permission)).collect()
    }

    /// One question.
    pub fn decide(&self, permission: Permission, resource: Resource, asked: Circumstances) -> Decision {
        #[cfg(feature = "bench-off")]
        if self.permits_all {
            return Decision { allowed: true, policies: Vec::new(), errors: Vec::new() };
        }
        let question = Question { permission, resource: self.blurred(&resource), asked };
        let lock = || self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lock().get(&question) {
            return known.clone();
        }
        let decision = match &self.prepared {
            Ok((principal, entities)) => {
                self.engine.answer(principal, entities, permission, &resource, &question.asked)
            }
            Err(error) => Decision::denied(error.clone()),
        };
        let mut remembered = lock();
        if remembered.len() >= REMEMBERED_LIMIT {
            remembered.clear();
        }
        remembered.insert(question, decision.clone());
        decision
    }

    /// The resource as far as policies can tell it from others of its ward: where no policy names one by its id, only
    /// the ties of a person tell patients of one ward apart.
    fn blurred(&self, resource: &Resource) -> Resource {
        if self.engine.names_one {
            return resource.clone();
        }
        match resource {
            Resource::Patient { id, ward } if !self.is_tied(*id) => {
                Resource::Patient { id: PatientId::from_bytes([0; 16]), ward: *ward }
            }
            Resource::Place { ward, .. } => Resource::Place { id: PlaceId::from_bytes([0; 16]), ward: *ward },
            Resource::Device { ward, .. } => {
                Resource::Device { id: clinical_model::DeviceId::from_bytes([0; 16]), ward: *ward }
            }
            other => other.clone(),
        }
    }

    fn is_tied(&self, patient: PatientId) -> bool {
        match &self.principal {
            Principal::Person(person) => {
                person.patient == Some(patient) || person.cares_for.contains(&patient)
            }
            _ => false,
        }
    }
}

/// The roles that hold a permission at all, by the policies.
pub fn holders(engine: &Arc<Engine>, permission: Permission) -> Vec<Role> {
    let of = |role: Role| Person {
        id: clinical_model::UserId::from_bytes([0; 16]),
        role,
        wards: None,
        care_teams: Vec::new(),
        patient: None,
        cares_for: Vec::new(),
    };
    let may = |role: &Role| Asker::new(Arc::clone(engine), Principal::Person(of(*role))).may(permission);
    Role::ALL.iter().copied().filter(may).collect()
}
