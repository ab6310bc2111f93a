//! Who may what: roles, policies, scopes and consent; questions in, decisions with their reasons out. No I/O.
