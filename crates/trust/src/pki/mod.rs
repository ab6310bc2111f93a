//! Certificates: the built-in authority, what a peer's certificate says, and which were revoked.
//!
//! Today one authority signs both device and server certificates directly (one level). An offline
//! root above it needs no other shape here: [`Authority`] is whoever issues, and the TLS builders
//! take chains.

mod authority;
mod peer;
mod revocation;

pub use authority::{
    AUTHORITY_BACKDATE_S, Authority, AuthorityError, AuthorityPem, IssueError, IssueRequest,
    IssueServerRequest, Issued, IssuedForRequest, MAX_AUTHORITY_YEARS, MAX_COMMON_NAME_CHARS,
    MAX_SERVER_NAMES,
};
pub use peer::{
    MAX_PROGRAM_NAME_BYTES, PeerIdentity, PeerIdentityError, PeerUri, PeerUriError, fingerprint_hex,
};
pub use revocation::{
    MAX_REASON_BYTES, MAX_REVOKED, Revocation, RevocationError, RevokedParseError, RevokedSerials,
    normal_serial_hex,
};
