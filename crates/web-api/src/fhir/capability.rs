//! The CapabilityStatement, made from the table of interactions.

use health_codecs::fhir::capability::{CapabilityInput, CapabilityResource};
use health_codecs::fhir::capability_statement;

use super::answer::{Answer, Refusal};
use super::call::Call;
use super::interactions;
use crate::state::Web;

const SECURITY: &str = "People sign in on the web port (session cookie); programs bring an access token of SMART App \
                        Launch or SMART Backend Services; devices and programs prove themselves on the device port with \
                        a TLS client certificate of this site's authority.";

/// What is served, resource by resource.
fn resources() -> Vec<CapabilityResource> {
    let mut resources: Vec<CapabilityResource> = Vec::new();
    for interaction in interactions().into_iter().filter(|interaction| !interaction.resource.is_empty()) {
        let place =
            resources.iter().position(|known| known.kind == interaction.resource).unwrap_or_else(|| {
                let kind = interaction.resource;
                resources.push(CapabilityResource { kind, interactions: Vec::new(), operations: Vec::new() });
                resources.len() - 1
            });
        let resource = &mut resources[place];
        let listed = match interaction.code.strip_prefix('$') {
            Some(operation) => (&mut resource.operations, operation),
            None => (&mut resource.interactions, interaction.code),
        };
        if !listed.0.contains(&listed.1) {
            listed.0.push(listed.1);
        }
    }
    resources
}

/// Operations of the whole system; how far an export is, and its files, are asked for by the addresses it gives.
fn operations() -> Vec<&'static str> {
    let mut names: Vec<&str> = interactions()
        .iter()
        .filter(|interaction| interaction.resource.is_empty())
        .filter_map(|interaction| interaction.code.strip_prefix('$'))
        .filter(|name| !name.starts_with("export-"))
        .collect();
    names.dedup();
    names
}

/// `GET /fhir/metadata`
pub(crate) fn show(web: &Web, call: &Call) -> Result<Answer, Refusal> {
    Ok(Answer::ok(capability_statement(&CapabilityInput {
        base_url: call.base.clone(),
        software_version: env!("CARGO_PKG_VERSION").to_owned(),
        at: web.site.clock().now(),
        security_description: SECURITY.to_owned(),
        authorization_server: Some(crate::oauth::origin_of(&web.options, &call.headers)),
        resources: resources(),
        operations: operations(),
    })))
}
