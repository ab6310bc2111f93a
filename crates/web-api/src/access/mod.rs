//! Access: who asks, what they may try, and whom they may see. The answers are the policies' (crate `access`); here stand
//! the questions.

mod asking;
mod consented;
mod looks;
mod permit;
mod policies;
mod sight;

use std::net::IpAddr;
use std::sync::Arc;

use ::access::scopes::Ceiling;
use ::access::{Asker, Person, Principal};
use clinical_model::{PatientId, Purpose, UserId};
use pipeline::Peer;
use pipeline::audited::{Act, Agent};
use store::{Actor, AuditAction};

pub use ::access::{Permission, may};
pub(crate) use asking::purpose_of;
pub(crate) use consented::is_kept_out;
pub(crate) use looks::{LOOK_LASTS, Looks, STREAM_LASTS};
pub use permit::{Permit, Taken};
pub use policies::{Policies, PoliciesError, engine_of, sources_of};
pub(crate) use sight::Sight;

use crate::people::{Role, User};
use crate::session::Caller;
use crate::state::Web;

/// A program that asks with a token.
#[derive(Clone, Debug)]
pub struct AppAccess {
    /// Its registration.
    pub client: [u8; 16],
    /// Its name at this site.
    pub client_name: String,
    /// The person for whom it asks.
    pub user: Option<User>,
    /// How far its scopes reach.
    pub ceiling: Ceiling,
}

/// Who it is.
#[derive(Clone, Debug)]
pub enum Who {
    /// A person with a session.
    Person(User),
    /// A device or a program with a certificate.
    Peer(Peer),
    /// A program with a token.
    App(Arc<AppAccess>),
}

/// Who asks, and what they may.
#[derive(Clone, Debug)]
pub struct Access {
    who: Who,
    asker: Arc<Asker>,
    /// How far scopes reach; `None`: people, whom no scope narrows.
    ceiling: Option<Arc<Ceiling>>,
    purpose: Purpose,
    /// Whether what they are shown leaves the house: programs always, people where they take something out.
    discloses: bool,
    /// Seconds since the second factor was used.
    mfa_age_s: Option<u32>,
    /// The network address that the request came from.
    address: Option<IpAddr>,
}

impl Access {
    /// A person with a session.
    pub(crate) fn of_person(web: &Web, user: User) -> Self {
        Access::of(web, Who::Person(user), None)
    }

    /// A device or a program with a certificate.
    pub(crate) fn of_peer(web: &Web, peer: Peer) -> Self {
        let ceiling = asking::ceiling_of(web, &peer);
        Access::of(web, Who::Peer(peer), ceiling)
    }

    /// A program with a token.
    pub(crate) fn of_app(web: &Web, app: AppAccess) -> Self {
        let ceiling = Arc::new(app.ceiling.clone());
        Access::of(web, Who::App(Arc::new(app)), Some(ceiling))
    }

    fn of(web: &Web, who: Who, ceiling: Option<Arc<Ceiling>>) -> Self {
        let asker = web.policies.asker(principal_of(web, &who));
        let purpose = purpose_of(&who);
        let discloses = !matches!(who, Who::Person(_));
        Access { who, asker, ceiling, purpose, discloses, mfa_age_s: None, address: None }
    }

    /// With another purpose of use than the usual one.
    #[must_use]
    pub(crate) fn with_purpose(self, purpose: Purpose) -> Self {
        Access { purpose, ..self }
    }

    /// For what is taken out of the house: an export.
    #[must_use]
    pub(crate) fn disclosing(self) -> Self {
        Access { discloses: true, ..self }
    }

    /// With the age of the second factor.
    #[must_use]
    pub(crate) fn with_mfa_age(self, mfa_age_s: Option<u32>) -> Self {
        Access { mfa_age_s, ..self }
    }

    /// As asked from somewhere: the audit log names the address.
    #[must_use]
    pub(crate) fn asked_from(self, caller: &Caller) -> Self {
        Access { address: caller.whole_address, ..self }
    }

    /// Whether whoever asked would still be let in, for what goes on for long: people while a session of theirs runs (it
    /// ends with all that is taken from them), programs while they are registered. Blocks.
    pub(crate) fn still_stands(&self, web: &Web) -> bool {
        let is_on = |user: &User| web.people.by_id(user.id).is_some_and(|now| !now.disabled);
        match &self.who {
            // Where the store cannot be asked, what is read next fails by itself.
            Who::Person(user) => {
                let running = web.sessions.running(user.id, web.site.clock().now());
                is_on(user) && running.map_or(true, |running| !running.is_empty())
            }
            Who::App(app) => {
                web.oauth.clients.active(app.client).is_some() && app.user.as_ref().is_none_or(is_on)
            }
            Who::Peer(Peer::Device(device)) => {
                web.site.registry().device(*device).is_some_and(|known| !known.retired)
            }
            Who::Peer(Peer::Program(_)) => true,
        }
    }

    /// Who it is.
    pub const fn who(&self) -> &Who {
        &self.who
    }

    /// Who, for the audit log.
    pub fn actor(&self) -> Actor {
        match &self.who {
            Who::Person(user) => Actor::User(user.id),
            Who::Peer(Peer::Device(device)) => Actor::Device(*device),
            Who::Peer(Peer::Program(name)) => Actor::Program(name.clone()),
            Who::App(app) => match &app.user {
                Some(user) => Actor::User(user.id),
                None => Actor::Program(app.client_name.clone()),
            },
        }
    }

    /// An act of theirs.
    pub fn act(&self, action: AuditAction, object: &'static str) -> Act {
        self.by().act(action, object)
    }

    /// Who they are, for the audit log: with why they ask, under which role and from which address.
    pub fn by(&self) -> Agent {
        let role = match (&self.who, self.person()) {
            // The person is the actor, and the program is named beside them: it was the program that read.
            (Who::App(app), Some(user)) => {
                Some(format!("{}, by the program {}", user.role.word(), app.client_name))
            }
            (_, user) => user.map(|user| user.role.word().to_owned()),
        };
        let (purpose, address) = (self.purpose.code().to_owned(), self.address.map(|from| from.to_string()));
        Agent { who: self.actor(), role, purpose: Some(purpose), address }
    }

    /// An act of theirs that is refused for want of a permission, with the policies that decided so.
    pub(crate) fn refused_act(&self, permission: Permission, object: &'static str, what: &str) -> Act {
        let decision = self.decision(permission);
        self.act(AuditAction::Read, object)
            .detail(format!("{what} needs {permission}: {}", decision.why()))
            .policies(decision.policies)
    }

    /// As [`Access::by`], where it is a person.
    pub fn by_person(&self) -> Option<Agent<UserId>> {
        self.user().map(|user| self.by().with(user))
    }

    /// A look at a patient that is refused, with the policies that forbid it. Where none permits it there are none, nor
    /// where scopes end before it.
    pub(crate) fn refused_look(&self, web: &Web, act: Act) -> Act {
        self.decided_by(web, act, false)
    }

    fn decided_by(&self, web: &Web, act: Act, is_allowed: bool) -> Act {
        let known = act.patient.and_then(|patient| web.site.registry().patient(patient));
        let decided = known.map(|patient| self.sight(web).explain_patient(Permission::ReadChart, &patient));
        let decided = decided.filter(|decision| decision.allowed == is_allowed);
        decided.into_iter().fold(act, |act, decision| act.policies(decision.policies))
    }

    /// An act that reads, with the policies where it is done under a broken glass.
    pub(crate) fn reading(&self, web: &Web, act: Act) -> Act {
        match act.patient {
            Some(patient) if consented::glass_is_broken(web, self, patient) => {
                self.decided_by(web, act, true)
            }
            _ => act,
        }
    }

    /// The person, where it is one.
    pub fn user(&self) -> Option<UserId> {
        self.person().map(|user| user.id)
    }

    /// The person who asks, or for whom a program asks.
    pub fn person(&self) -> Option<&User> {
        match &self.who {
            Who::Person(user) => Some(user),
            Who::App(app) => app.user.as_ref(),
            Who::Peer(_) => None,
        }
    }

    /// The certificate's peer, where it is one.
    pub fn peer(&self) -> Option<&Peer> {
        match &self.who {
            Who::Peer(peer) => Some(peer),
            Who::Person(_) | Who::App(_) => None,
        }
    }

    /// The name of the program that asks, for itself or for a person.
    pub fn program(&self) -> Option<&str> {
        match &self.who {
            Who::Peer(Peer::Program(name)) => Some(name),
            Who::App(app) => Some(&app.client_name),
            Who::Person(_) | Who::Peer(Peer::Device(_)) => None,
        }
    }

    /// How far scopes reach; `None`: nothing narrows.
    pub(crate) fn ceiling(&self) -> Option<&Ceiling> {
        self.ceiling.as_deref()
    }

    /// Why they ask.
    pub const fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// Whether an operation that needs `permission` may be tried at all.
    pub fn holds(&self, permission: Permission) -> bool {
        self.asker.may(permission)
    }

    /// Whether it may be tried at all, with the policies that say so.
    pub(crate) fn decision(&self, permission: Permission) -> ::access::Decision {
        let asked = ::access::Circumstances::default();
        self.asker.decide(permission, ::access::Resource::Site, asked)
    }

    /// The words of what may be tried, for menus.
    pub(crate) fn permissions(&self) -> Vec<&'static str> {
        self.asker.permissions().into_iter().map(Permission::word).collect()
    }

    /// The permit of an operation, where the policies give it.
    pub(crate) fn permit<P: ::access::May>(&self) -> Option<Permit<P>> {
        self.asker.granted().map(|granted| Permit::of(self.clone(), granted))
    }

    /// Whom and what they may see, by all that decides it, now.
    pub(crate) fn sight<'a>(&'a self, web: &'a Web) -> Sight<'a> {
        Sight::new(web, self)
    }
}

/// Whether a measurement switched deciding off. Never in a release.
#[cfg(feature = "bench-off")]
fn is_off() -> bool {
    trust::bench_off::is_off(trust::bench_off::Part::Authorisation)
}

/// As the policies know them.
fn principal_of(web: &Web, who: &Who) -> Principal {
    match who {
        Who::Person(user) => Principal::Person(person_of(web, user)),
        Who::Peer(Peer::Device(device)) => Principal::Device(*device),
        Who::Peer(Peer::Program(name)) => Principal::Program { name: name.clone() },
        Who::App(app) => match &app.user {
            Some(user) => Principal::Person(person_of(web, user)),
            None => Principal::Program { name: app.client_name.clone() },
        },
    }
}

fn person_of(web: &Web, user: &User) -> Person {
    let cares_for: Vec<PatientId> = match user.role {
        Role::Caregiver => consented::cares_for(web, user.id),
        _ => Vec::new(),
    };
    Person {
        id: user.id,
        role: user.role,
        wards: user.wards.clone(),
        care_teams: user.care_teams.clone(),
        patient: user.patient,
        cares_for,
    }
}
