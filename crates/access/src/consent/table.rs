//! The decision table of one patient: compiled from the consents, asked for all data at once.

use clinical_model::{
    Consent, ConsentAction, ConsentActor, ConsentId, ConsentStatus, Provision, Purpose, Ruling, Timestamp,
};

use super::{Asker, Items, Use};

/// Provisions of one consent: what a person can oversee, and a bound on what one request costs.
pub const PROVISIONS_LIMIT: usize = 500;
/// Levels of provisions within each other, a base rule aside.
pub const LEVELS_LIMIT: usize = 6;
/// Active consents of one patient.
pub const CONSENTS_LIMIT: usize = 200;

/// Why consents cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// Too many provisions.
    #[error("a consent has {count} provisions; at most {PROVISIONS_LIMIT} are taken")]
    Provisions {
        /// How many.
        count: usize,
    },
    /// Too deep.
    #[error("provisions stand in each other {levels} levels deep; at most {LEVELS_LIMIT} are taken")]
    Levels {
        /// How many levels.
        levels: usize,
    },
    /// Too many consents.
    #[error("the patient has {count} active consents; at most {CONSENTS_LIMIT} are taken: withdraw some")]
    Consents {
        /// How many.
        count: usize,
    },
    /// A rule that ends before it begins.
    #[error("a provision ends before it begins")]
    Period,
}

/// What the consents say to somebody: disjoint sets; what is in neither they do not speak of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ruled {
    /// Permitted.
    pub permitted: Items,
    /// Denied.
    pub denied: Items,
}

impl Ruled {
    /// Nothing is said.
    pub const NOTHING: Ruled = Ruled { permitted: Items::NONE, denied: Items::NONE };

    /// Both together: a denial wins.
    fn beside(self, other: Ruled) -> Ruled {
        let denied = self.denied.with(other.denied);
        Ruled { permitted: self.permitted.with(other.permitted).without(denied), denied }
    }
}

/// One rule of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    ruling: Ruling,
    from: Option<Timestamp>,
    until: Option<Timestamp>,
    /// Sorted, each once; empty: everybody.
    actors: Vec<ConsentActor>,
    actions: Vec<ConsentAction>,
    purposes: Vec<Purpose>,
    items: Items,
    except: Vec<Row>,
}

/// The decision table of one patient.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    rows: Vec<(ConsentId, Row)>,
}

impl Table {
    /// Compiles the consents of one patient. Those that are not active say nothing; the order does not matter.
    ///
    /// # Errors
    /// [`CompileError`]: then nothing may be read by them.
    pub fn compile<'c>(consents: impl IntoIterator<Item = &'c Consent>) -> Result<Table, CompileError> {
        let mut rows = Vec::new();
        for consent in consents {
            check(consent)?;
            if consent.status != ConsentStatus::Active {
                continue;
            }
            rows.extend(row_of(consent).map(|row| (consent.id, row)));
        }
        if rows.len() > CONSENTS_LIMIT {
            return Err(CompileError::Consents { count: rows.len() });
        }
        rows.sort_by_key(|(id, _)| *id);
        Ok(Table { rows })
    }

    /// Whether it says nothing to anybody.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// What the consents say to somebody.
    pub fn rule(&self, asker: &Asker<'_>, using: Use) -> Ruled {
        let said = self.rows.iter().map(|(_, row)| row.rule(asker, using, Items::ALL));
        said.fold(Ruled::NOTHING, Ruled::beside)
    }

    /// The consents that say something to somebody now, for the audit log.
    pub fn speaking(&self, asker: &Asker<'_>, using: Use) -> Vec<ConsentId> {
        let speaks = |row: &Row| row.rule(asker, using, Items::ALL) != Ruled::NOTHING;
        self.rows.iter().filter(|(_, row)| speaks(row)).map(|(id, _)| *id).collect()
    }

    /// Whether a person is named anywhere as one who looks after the patient.
    pub fn caregivers(&self) -> Vec<clinical_model::UserId> {
        let mut found = Vec::new();
        for (_, row) in &self.rows {
            row.caregivers(&mut found);
        }
        found.sort();
        found.dedup();
        found
    }
}

/// Whether a consent can be compiled.
///
/// # Errors
/// [`CompileError`].
pub fn check(consent: &Consent) -> Result<(), CompileError> {
    let Some(provision) = &consent.provision else { return Ok(()) };
    let levels = provision.depth();
    if levels > LEVELS_LIMIT {
        return Err(CompileError::Levels { levels });
    }
    let count = provision.count();
    if count > PROVISIONS_LIMIT {
        return Err(CompileError::Provisions { count });
    }
    if has_empty_period(provision) {
        return Err(CompileError::Period);
    }
    Ok(())
}

/// Whether a consent keeps anything from somebody who asks for a purpose, at any time and of whatever data. Whoever it
/// keeps out is not who may change it. What is said to everybody is said to people; a program is meant by its name.
pub fn keeps_out(consent: &Consent, asker: &Asker<'_>, purpose: Purpose) -> bool {
    row_of(consent).is_some_and(|row| row.keeps_out(asker, purpose))
}

fn has_empty_period(provision: &Provision) -> bool {
    let ends_early = provision.from.zip(provision.until).is_some_and(|(from, until)| until <= from);
    ends_early || provision.except.iter().any(has_empty_period)
}

/// The rule of a consent. A base rule stands around the provision: what that does not touch is as the base says. A base
/// that permits, around a provision, says no more than that the patient takes part: there the site's defaults hold.
fn row_of(consent: &Consent) -> Option<Row> {
    let provision = consent.provision.as_ref();
    match (consent.base, provision) {
        (Some(Ruling::Deny), _) => Some(Row {
            except: provision.into_iter().map(row).collect(),
            ..row(&Provision::of(Ruling::Deny))
        }),
        (_, Some(provision)) => Some(row(provision)),
        (Some(Ruling::Permit), None) => Some(row(&Provision::of(Ruling::Permit))),
        (None, None) => None,
    }
}

fn row(provision: &Provision) -> Row {
    let classes = provision.classes.iter().fold(Items::NONE, |all, one| all.with(Items::of_class(*one)));
    let measures = provision.measures.iter().fold(Items::NONE, |all, one| all.with(Items::of_measure(*one)));
    let items = match (provision.classes.is_empty(), provision.measures.is_empty()) {
        (true, true) => Items::ALL,
        (false, true) => classes,
        (true, false) => measures,
        (false, false) => classes.within(measures),
    };
    Row {
        ruling: provision.ruling,
        from: provision.from,
        until: provision.until,
        actors: sorted(&provision.actors),
        actions: sorted(&provision.actions),
        purposes: sorted(&provision.purposes),
        items,
        except: provision.except.iter().map(row).collect(),
    }
}

fn sorted<T: Ord + Clone>(all: &[T]) -> Vec<T> {
    let mut sorted = all.to_vec();
    sorted.sort();
    sorted.dedup();
    sorted
}

impl Row {
    fn rule(&self, asker: &Asker<'_>, using: Use, within: Items) -> Ruled {
        let items = self.items.within(within);
        if items.is_none() || !self.applies(asker, using) {
            return Ruled::NOTHING;
        }
        let exceptions = self.except.iter().map(|row| row.rule(asker, using, items));
        let Ruled { permitted, denied } = exceptions.fold(Ruled::NOTHING, Ruled::beside);
        let rest = items.without(permitted).without(denied);
        match self.ruling {
            Ruling::Permit => Ruled { permitted: permitted.with(rest), denied },
            Ruling::Deny => Ruled { permitted, denied: denied.with(rest) },
        }
    }

    fn keeps_out(&self, asker: &Asker<'_>, purpose: Purpose) -> bool {
        let is_named = self.actors.iter().any(|actor| is(actor, asker));
        let is_meant = is_named || self.actors.is_empty();
        let is_denied = self.ruling == Ruling::Deny && (is_named || asker.user.is_some());
        is_meant
            && is_among(&self.purposes, &purpose)
            && (is_denied || self.except.iter().any(|row| row.keeps_out(asker, purpose)))
    }

    fn applies(&self, asker: &Asker<'_>, using: Use) -> bool {
        self.from.is_none_or(|from| from <= using.at)
            && self.until.is_none_or(|until| using.at < until)
            && is_among(&self.purposes, &using.purpose)
            && self.is_done(using.action)
            && (self.actors.is_empty() || self.actors.iter().any(|actor| is(actor, asker)))
    }

    /// What leaves the house is seen as well: a rule about seeing holds for it, and not the other way round.
    fn is_done(&self, action: ConsentAction) -> bool {
        is_among(&self.actions, &action)
            || action == ConsentAction::Disclose
                && self.actions.contains(&ConsentAction::Access)
                && self.ruling == Ruling::Deny
    }

    fn caregivers(&self, found: &mut Vec<clinical_model::UserId>) {
        found.extend(self.actors.iter().filter_map(|actor| match actor {
            ConsentActor::Caregiver(user) => Some(*user),
            _ => None,
        }));
        for row in &self.except {
            row.caregivers(found);
        }
    }
}

fn is_among<T: PartialEq>(all: &[T], one: &T) -> bool {
    all.is_empty() || all.contains(one)
}

fn is(actor: &ConsentActor, asker: &Asker<'_>) -> bool {
    match actor {
        ConsentActor::Person(user) | ConsentActor::Caregiver(user) => asker.user == Some(*user),
        ConsentActor::Role(role) => asker.role == Some(role.as_str()),
        ConsentActor::Ward(ward) => asker.user.is_some() && asker.wards.contains(*ward),
        ConsentActor::CareTeam(team) => asker.care_teams.contains(team),
        ConsentActor::Program(name) => asker.program == Some(name.as_str()),
        ConsentActor::Patient(patient) => asker.patient == Some(*patient),
    }
}
