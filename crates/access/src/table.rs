//! The table of roles and actions, as the policies decide it: `docs/reference/roles.md`.

use std::fmt::Write as _;
use std::sync::Arc;

use crate::engine::{Asker, Engine, holders};
use crate::permission::Permission;
use crate::question::Principal;
use crate::role::Role;

/// The table as Markdown: an action a row, a role a column.
pub fn markdown(engine: &Arc<Engine>) -> String {
    let machine = |principal| Asker::new(Arc::clone(engine), principal);
    let machines = [
        ("program", machine(Principal::Program { name: "program".to_owned() })),
        ("device", machine(Principal::Device(clinical_model::DeviceId::from_bytes([0; 16])))),
        ("gateway", machine(Principal::Gateway { name: "gateway".to_owned() })),
    ];
    let mut text = String::from("| Action | |");
    for name in Role::ALL.iter().map(|role| role.word()).chain(machines.iter().map(|(name, _)| *name)) {
        let _ = write!(text, " {name} |");
    }
    text.push_str("\n|---|---|");
    text.push_str(&":-:|".repeat(Role::ALL.len() + machines.len()));
    text.push('\n');
    for permission in Permission::ALL.iter().filter(|permission| **permission != Permission::Open) {
        let _ = write!(text, "| `{permission}` | {} |", permission.meaning());
        let held = holders(engine, *permission);
        let by_roles = Role::ALL.iter().map(|role| held.contains(role));
        for may in by_roles.chain(machines.iter().map(|(_, asker)| asker.may(*permission))) {
            text.push_str(if may { " ● |" } else { "  |" });
        }
        text.push('\n');
    }
    text
}
