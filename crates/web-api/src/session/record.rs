//! A session as it is kept, and what must be said of one that is to begin.

use clinical_model::{RecordId as _, Timestamp, UserId};
use pipeline::audited::Act;
use pipeline::records::{json_write, sortable};
use serde::{Deserialize, Serialize};
use store::{DocumentWrite, Expected, IndexEntry, KeyDomain, Kind};
use trust::TokenHash;

use super::{BY_START, BY_USER, Caller, id_of};
use crate::people::Subject;

/// How far a person has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Stage {
    /// An identity provider vouched for them by name only: nothing is proven yet, and nobody is signed in. It says as whom
    /// they are linked there once they have signed in here as they always do.
    Linking,
    /// The password was right; a second factor is needed.
    SecondFactor,
    /// They have still to make a complete way in, and may do nothing else. Also sessions of earlier releases.
    #[default]
    Enrolling,
    /// Signed in.
    Whole,
}

/// By what a session began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum By {
    /// A password, and a code where there is one.
    #[default]
    Password,
    /// A passkey.
    Passkey,
    /// A one-time link.
    Link,
    /// The link of the demonstration.
    Demo,
    /// The site's identity provider.
    Provider,
    /// A password and a recovery code.
    RecoveryCode,
}

/// A session that is to begin.
#[derive(Clone, Debug)]
pub(crate) struct NewSession {
    pub user: UserId,
    pub stage: Stage,
    pub by: By,
    /// When the second factor was used.
    pub second_factor_at: Option<Timestamp>,
    pub caller: Caller,
    /// As whom an identity provider vouches for them by name: kept as a link once they are in, wholly.
    pub vouched: Option<Subject>,
    /// The session it takes the place of.
    pub replaces: Option<TokenHash>,
    /// What is recorded of it.
    pub act: Act,
}

/// A session as it is kept: sealed, under the first half of the token's hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// SHA-256 of the token, whole.
    pub(super) hash: [u8; 32],
    pub user: UserId,
    pub started_at: Timestamp,
    pub seen_at: Timestamp,
    #[serde(default)]
    pub stage: Stage,
    #[serde(default)]
    pub by: By,
    #[serde(default)]
    pub second_factor_at: Option<Timestamp>,
    #[serde(default)]
    pub caller: Caller,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vouched: Option<Subject>,
    #[serde(default)]
    pub(super) wrong_codes: u8,
}

impl Record {
    /// The id by which its owner and administrators name it; nothing can be done with it but ending the session.
    pub(crate) fn id(&self) -> [u8; 16] {
        id_of(&TokenHash(self.hash))
    }

    pub(super) fn write(&self, expected: Expected) -> DocumentWrite {
        let started = sortable(self.started_at);
        let by_user = [&self.user.to_bytes()[..], &started].concat();
        let index = vec![
            IndexEntry { name: BY_START, value: started.to_vec(), unique: false },
            IndexEntry { name: BY_USER, value: by_user, unique: false },
        ];
        json_write(Kind::Session, self.id(), expected, KeyDomain::System, self, index)
    }
}
