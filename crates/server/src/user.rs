//! `auscult user`: a new one-time link for somebody who lost every way in, with the server running or not.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use pipeline::{Site, SiteOptions, SystemClock};
use serde::{Deserialize, Serialize};
use store::Actor;
use web_api::{Web, WebOptions};

use crate::admin_socket::{self, Answer, Request};
use crate::config::{Config, ConfigArguments};
use crate::listening::link_base;
use crate::{opening, terminal};

/// Folding is no business of a command.
const FOLD_NEVER: Duration = Duration::from_secs(24 * 3_600);

/// What to do with a person.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum UserCommand {
    /// Forget every way in of a person and print a one-time link with which they set new ones
    #[command(after_help = "Example:
  auscult user reset anna --data /var/lib/auscult --key-file /etc/auscult/key

Password, authenticator app, passkeys and recovery codes are gone, and running sessions end. The link works once, for
72 hours. It is written to the audit log that it was made.")]
    Reset {
        /// The name to sign in with
        name: String,
        #[command(flatten)]
        config: ConfigArguments,
    },
}

/// A one-time link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserLink {
    /// The beginning of the site's address, where it is known.
    pub base: Option<String>,
    /// The page, with the token behind `#`.
    pub path: String,
    /// Until when it works.
    pub expires_at: String,
}

/// Does it.
///
/// # Errors
/// What failed, where, and what to do.
pub fn run(command: &UserCommand) -> anyhow::Result<ExitCode> {
    let UserCommand::Reset { name, config } = command;
    let config = Config::assemble(config)?;
    let request = Request::ResetUser { name: name.clone() };
    let link = match admin_socket::ask(&config.site.data_dir, &request, &mut |_, _| {})? {
        Some(Answer::Link(link)) => link,
        Some(_) => bail!("the running server answered something else; is it of another release?"),
        None => offline(&config, name)?,
    };
    let base = link.base.unwrap_or_else(|| "https://<this site>".to_owned());
    terminal::println(&format!("{base}{}", link.path));
    eprintln!("Give this link to {name} alone. It works once, until {}.", link.expires_at);
    Ok(ExitCode::SUCCESS)
}

/// Resets a person of a site that runs.
///
/// # Errors
/// When nobody has the name, or it cannot be kept.
pub fn reset(web: &Web, link_base: &str, name: &str) -> anyhow::Result<UserLink> {
    let user = web.user_named(name).with_context(|| format!("nobody here is called \"{name}\""))?;
    let invitation = web.reset_user(Actor::System, user.id).context("the person cannot be reset")?;
    Ok(UserLink {
        base: Some(link_base).filter(|base| !base.is_empty()).map(str::to_owned),
        path: invitation.path(),
        expires_at: invitation.expires_at.to_string(),
    })
}

fn offline(config: &Config, name: &str) -> anyhow::Result<UserLink> {
    let store = opening::open_existing(config)?;
    let options = SiteOptions {
        fold_every: FOLD_NEVER,
        on_durability_failure: Box::new(|error| panic!("stable storage failed: {error}")),
    };
    let site = Site::start(store, Arc::new(SystemClock), options).context("the site cannot be opened")?;
    let options =
        WebOptions { public_addresses: config.web.public_addresses.clone(), ..WebOptions::default() };
    let web = Web::new(Arc::clone(&site), options).context("the users cannot be read")?;
    // A free port is taken anew with each start.
    let is_fixed = !config.web.public_addresses.is_empty() || config.web.listen.port() != 0;
    let base = link_base(&config.web.public_addresses, config.web.listen, config.web.tls);
    let link = reset(&web, if is_fixed { &base } else { "" }, name);
    site.stop();
    link
}
