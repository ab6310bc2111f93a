//! What happens to the memory of this process, where keys and readings stand in the clear.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Lets nobody but root look into this process, and lets the system write none of its memory into a core file; nor that of
/// any program that it starts. What is swapped out is the operator's to encrypt.
///
/// Called before anything else: every command that opens a store holds keys, not the server alone.
pub fn keep_private() {
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        eprintln!("warning: the memory of this process can be looked at by its user: {error}");
    }
    if let Err(error) = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }) {
        eprintln!("warning: a core file of this process would hold keys: {error}");
    }
}
