//! The demonstration's devices come to their certificates as real ones do: some claim with a one-time code, the others were
//! given theirs by an operator, and all renew by themselves.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Context as _;
use clinical_model::DeviceId;
use rustls::ClientConfig;
use simulator::client::enrol::Held;
use simulator::hospital::{Plan, Transport};
use simulator::play::Credentials;
use store::Actor;
use trust::pki::PeerUri;

use crate::pki::DEFAULT_DAYS;
use crate::running::Running;

/// Devices that claim: enough to see them in the web app, few enough that nobody waits for them.
const CLAIMING: usize = 4;

/// Devices with their certificates.
pub struct Fleet {
    /// What each connects with.
    pub credentials: Credentials,
    /// What each holds, to be renewed.
    pub held: Vec<Held>,
}

/// Enrols every device of a plan, which the site knows already.
///
/// # Errors
/// When one is refused.
pub async fn enrol(running: &Running, plan: &Plan) -> anyhow::Result<Fleet> {
    let directory = running.authority.directory();
    let base = format!("https://{}", running.addresses.devices);
    let (mut configs, mut held) = (HashMap::new(), Vec::new());
    let mut keep = |device: DeviceId, one: Held| -> anyhow::Result<()> {
        let tls: Arc<ClientConfig> = one.tls()?;
        configs.insert(device, tls);
        held.push(one);
        Ok(())
    };
    let claims = |planned: &&simulator::hospital::PlannedDevice| planned.transport == Transport::Https;
    let claiming: Vec<DeviceId> =
        plan.devices().iter().filter(claims).take(CLAIMING).map(|planned| planned.device.id).collect();
    for planned in plan.devices() {
        let (id, serial, name) = (planned.device.id, planned.device.serial.clone(), &planned.device.name);
        let one = if claiming.contains(&id) {
            let site = Arc::clone(&running.site);
            let opened = tokio::task::spawn_blocking(move || site.open_claim(Actor::System, id));
            let opened = opened.await.context("making a claim code was broken off")?;
            let code = opened.with_context(|| format!("{name} cannot be claimed"))?.code;
            let claimed = Held::claim(&base, directory.certificate_pem(), &serial, code.expose()).await;
            claimed.with_context(|| format!("{name} could not claim its certificate"))?
        } else {
            let (directory, common_name) = (Arc::clone(&directory), name.clone());
            let issued = tokio::task::spawn_blocking(move || {
                directory.issue_client(PeerUri::Device(*id.as_uuid()), &common_name, DEFAULT_DAYS)
            });
            let issued = issued.await.context("issuing a certificate was broken off")??;
            let anchors = running.authority.directory();
            Held::given(&serial, anchors.certificate_pem(), &issued.certificate_pem, issued.key_pem.expose())
                .with_context(|| format!("the certificate of {name} cannot be used"))?
        };
        keep(id, one)?;
    }
    Ok(Fleet { credentials: Arc::new(move |device| configs.get(&device).cloned()), held })
}
