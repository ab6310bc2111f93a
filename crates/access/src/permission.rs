//! What can be done here: one table of permissions, each with its word in policies and with a type of its own, so that a
//! handler holds the permission of its operation and no other.

use std::fmt;
use std::marker::PhantomData;

/// A permission as a type.
pub trait May: Send + Sync + 'static {
    /// The permission that the type stands for.
    const PERMISSION: Permission;
}

/// Permissions under which what is kept of patients and devices is read, behind the audit wrapper.
pub trait ReadsChart: May {}

macro_rules! permissions {
    ($($name:ident $word:literal $meaning:literal;)*) => {
        /// What an operation needs, and what a policy permits: an action of the policies.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Permission {
            $(#[doc = $meaning] $name,)*
        }

        impl Permission {
            /// Every permission.
            pub const ALL: &'static [Permission] = &[$(Permission::$name),*];

            /// The action's name in policies.
            pub const fn word(self) -> &'static str {
                match self { $(Permission::$name => $word),* }
            }

            /// What it permits, in a sentence.
            pub const fn meaning(self) -> &'static str {
                match self { $(Permission::$name => $meaning),* }
            }
        }

        /// Every permission as a type.
        pub mod may {
            $(
                #[doc = $meaning]
                #[derive(Debug)]
                pub enum $name {}

                impl super::May for $name {
                    const PERMISSION: super::Permission = super::Permission::$name;
                }
            )*
        }
    };
}

permissions! {
    Open "open" "Nothing but the network: sign-in, setup, the web app itself, the capability statement.";
    SignedIn "be-signed-in" "What everybody who is signed in may.";
    SeePlaces "see-places" "See wards, beds, homes and rooms.";
    ReadChart "read-chart" "See patients, their readings and alerts.";
    ActOnAlerts "act-on-alerts" "Answer alerts, set limits.";
    AdmitPatients "admit-patients" "Admit patients.";
    ReadDevices "read-devices" "See devices.";
    ManageDevices "manage-devices" "Register devices, change their clock rules, take them out of service.";
    AssignDevices "assign-devices" "Assign devices to patients and places.";
    EnrolDevices "enrol-devices" "Issue claim codes and certificates, and revoke them.";
    MendQuarantine "mend-quarantine" "See and mend quarantine.";
    ReadAudit "read-audit" "See the audit log.";
    ManagePeople "manage-people" "See and add people, places.";
    ManageApps "manage-apps" "Register programs and what they may ask for.";
    ManageIdentityProvider "manage-identity-provider" "Say which identity providers people may come from.";
    ManagePolicies "manage-policies" "See, try and reload the policies.";
    ReadConsents "read-consents" "See what a patient allows.";
    ManageConsents "manage-consents" "Write down what a patient allows.";
    ManageDefaults "manage-defaults" "Say what holds where a patient has said nothing.";
    BreakGlass "break-glass" "See a patient in an emergency, against a reason and a review.";
    ReviewBreakGlass "review-break-glass" "Close the review of an emergency access.";
    ExportPatient "export-patient" "Take out everything about one patient.";
    EraseData "erase-data" "Erase a patient.";
    ManageRetention "manage-retention" "Say how long what is kept, and hold back from erasure.";
    ManageKeys "manage-keys" "Turn keys over.";
    SendMeasurements "send-measurements" "Send measurements.";
    CorrectChart "correct-chart" "Put right what is charted, or take it out.";
    SendBundle "send-bundle" "Send a batch or a transaction; each entry needs the permission of what it does.";
}

impl Permission {
    /// The permission of a word.
    pub fn by_word(word: &str) -> Option<Permission> {
        Permission::ALL.iter().copied().find(|permission| permission.word() == word)
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl ReadsChart for may::ReadChart {}
impl ReadsChart for may::ActOnAlerts {}
impl ReadsChart for may::AdmitPatients {}
impl ReadsChart for may::ReadDevices {}
impl ReadsChart for may::ManageDevices {}
impl ReadsChart for may::AssignDevices {}
impl ReadsChart for may::MendQuarantine {}
impl ReadsChart for may::ReadAudit {}
impl ReadsChart for may::SeePlaces {}
impl ReadsChart for may::SendMeasurements {}
impl ReadsChart for may::CorrectChart {}
impl ReadsChart for may::ManageConsents {}
impl ReadsChart for may::ReadConsents {}
impl ReadsChart for may::BreakGlass {}
impl ReadsChart for may::ReviewBreakGlass {}
impl ReadsChart for may::ExportPatient {}
impl ReadsChart for may::EraseData {}

/// Proof that the policies permitted `P`: made by a decision alone.
pub struct Granted<P>(PhantomData<fn() -> P>);

impl<P: May> Granted<P> {
    /// Made by the engine where it permitted.
    pub(crate) const fn by_decision() -> Self {
        Granted(PhantomData)
    }
}

impl<P> Clone for Granted<P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P> Copy for Granted<P> {}

impl<P: May> fmt::Debug for Granted<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Granted({})", P::PERMISSION)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_told_apart_and_read_back() {
        for permission in Permission::ALL {
            assert_eq!(Permission::by_word(permission.word()), Some(*permission));
        }
        for role in crate::Role::ALL {
            assert_eq!(crate::Role::by_word(role.word()), Some(*role));
            assert_eq!(serde_json::to_value(role).unwrap(), role.word());
        }
    }
}
