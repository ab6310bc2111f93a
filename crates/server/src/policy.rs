//! `auscult policy`: check policies, try them with cases, and explain a decision.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use access::Engine;
use access::cases::{CASES_LIMIT, Case, Cases, On, Who};
use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use clinical_model::{PatientId, PlaceId};
use web_api::access::engine_of;

use crate::config::{Config, ConfigArguments};
use crate::terminal;

/// Largest file of cases, in bytes.
const CASES_LIMIT_BYTES: u64 = 4 << 20;

/// What to do with policies.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Validate policies; every mistake with file, line and column
    #[command(after_help = "Example:
  auscult policy check /etc/auscult/policies")]
    Check {
        /// The directory; without it that of the configuration, else the built-in policies alone
        directory: Option<PathBuf>,
        /// The configuration file
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Say what is decided for somebody, and by which policy
    Explain(Box<ExplainArguments>),
    /// Decide the cases of a file and compare; without a file those that come with Auscult
    #[command(after_help = "Example:
  auscult policy test --print > cases.toml
  auscult policy test cases.toml --policies /etc/auscult/policies")]
    Test {
        /// The cases (TOML)
        file: Option<PathBuf>,
        /// The directory of the policies; without it that of the configuration, else the built-in policies alone
        #[arg(long)]
        policies: Option<PathBuf>,
        /// The configuration file
        #[arg(long)]
        config: Option<PathBuf>,
        /// Print the cases that come with Auscult, to begin one's own
        #[arg(long)]
        print: bool,
    },
    /// Print the roles and what each may try, as Markdown
    Table {
        /// The directory of the policies; without it the built-in policies alone
        #[arg(long)]
        policies: Option<PathBuf>,
    },
    /// Print the built-in policies and what policies can speak about
    Show,
}

/// What is to be explained.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  auscult policy explain --role nurse --ward 0190… --action read-chart --on patient/0191… --lies-in 0190…
  auscult policy explain --program ehr --action read-chart --on patient/0191…")]
pub struct ExplainArguments {
    /// A person's role
    #[arg(long)]
    role: Option<String>,
    /// A ward of the person; may be given several times; none: all wards
    #[arg(long)]
    ward: Vec<PlaceId>,
    /// A care team of the person; may be given several times
    #[arg(long)]
    care_team: Vec<String>,
    /// The patient that the person is
    #[arg(long)]
    patient: Option<PatientId>,
    /// A patient who named the person as caregiver; may be given several times
    #[arg(long)]
    cares_for: Vec<PatientId>,
    /// The name of a program
    #[arg(long)]
    program: Option<String>,
    /// The action, such as read-chart
    #[arg(long)]
    action: String,
    /// What it is about: patient/ID, ward/ID, place/ID, device/ID or site
    #[arg(long, default_value = "site")]
    on: String,
    /// The ward where the patient, place or device is
    #[arg(long)]
    lies_in: Option<PlaceId>,
    /// Purpose of use, such as TREAT or HRESCH
    #[arg(long)]
    purpose: Option<String>,
    /// What consent says: permit, deny or none
    #[arg(long)]
    consent: Option<String>,
    /// As if the glass was broken
    #[arg(long)]
    break_glass: bool,
    /// The directory of the policies; without it that of the configuration, else the built-in policies alone
    #[arg(long)]
    policies: Option<PathBuf>,
    /// The configuration file
    #[arg(long)]
    config: Option<PathBuf>,
}

/// Does it.
///
/// # Errors
/// What is wrong with the policies, the cases or the question.
pub fn run(command: &PolicyCommand) -> anyhow::Result<ExitCode> {
    match command {
        PolicyCommand::Check { directory, config } => check(directory.as_deref(), config.as_deref()),
        PolicyCommand::Explain(arguments) => explain(arguments),
        PolicyCommand::Test { print: true, .. } => {
            terminal::print(access::rules::CASES);
            Ok(ExitCode::SUCCESS)
        }
        PolicyCommand::Test { file, policies, config, print: false } => {
            test(file.as_deref(), &engine(policies.as_deref(), config.as_deref())?)
        }
        PolicyCommand::Table { policies } => {
            let engine = Arc::new(engine_of(policies.as_deref())?);
            terminal::print(&access::table::markdown(&engine));
            Ok(ExitCode::SUCCESS)
        }
        PolicyCommand::Show => {
            for part in [access::rules::SCHEMA, access::rules::CORE, access::rules::ROLES] {
                terminal::println(part);
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The directory that is meant: named, or of the configuration.
fn directory_of(named: Option<&Path>, config: Option<&Path>) -> anyhow::Result<Option<PathBuf>> {
    match (named, config) {
        (Some(directory), _) => Ok(Some(directory.to_owned())),
        (None, Some(config)) => {
            let arguments = ConfigArguments { config: Some(config.to_owned()), ..ConfigArguments::default() };
            Ok(Config::assemble(&arguments)?.access.policies)
        }
        (None, None) => Ok(None),
    }
}

fn engine(named: Option<&Path>, config: Option<&Path>) -> anyhow::Result<Engine> {
    Ok(engine_of(directory_of(named, config)?.as_deref())?)
}

fn check(named: Option<&Path>, config: Option<&Path>) -> anyhow::Result<ExitCode> {
    let directory = directory_of(named, config)?;
    let engine = engine_of(directory.as_deref())?;
    for rule in engine.rules() {
        terminal::println(&format!("{:6} {:34} {}:{}", rule.effect, rule.id, rule.file, rule.line));
    }
    let own = directory.as_deref().map(web_api::access::sources_of).transpose()?;
    let is_empty = own.is_some_and(|own| own.is_empty());
    let place = directory.map_or_else(|| "built in".to_owned(), |path| path.display().to_string());
    if is_empty {
        terminal::println(&format!(
            "no policy stands in {place}: it has no *.cedar file; the built-in ones hold"
        ));
    }
    terminal::println(&format!("{} policies ({place}): no mistakes", engine.rules().len()));
    Ok(ExitCode::SUCCESS)
}

fn on_of(text: &str, lies_in: Option<PlaceId>) -> anyhow::Result<On> {
    let mut on = On { ward: lies_in, ..On::default() };
    match text.split_once('/') {
        None if text == "site" => {}
        Some(("patient", id)) => on.patient = Some(id.parse()?),
        Some(("ward", id)) => on.ward = Some(id.parse()?),
        Some(("place", id)) => on.place = Some(id.parse()?),
        Some(("device", id)) => on.device = Some(id.parse()?),
        _ => bail!("--on is patient/ID, ward/ID, place/ID, device/ID or site, and not \"{text}\""),
    }
    Ok(on)
}

fn explain(arguments: &ExplainArguments) -> anyhow::Result<ExitCode> {
    let engine = engine(arguments.policies.as_deref(), arguments.config.as_deref())?;
    let who = Who {
        role: arguments.role.clone(),
        wards: (!arguments.ward.is_empty()).then(|| arguments.ward.clone()),
        care_teams: arguments.care_team.clone(),
        patient: arguments.patient,
        cares_for: arguments.cares_for.clone(),
        program: arguments.program.clone(),
        ..Who::default()
    };
    let on = on_of(&arguments.on, arguments.lies_in)?;
    let case = |on: On| Case {
        name: String::new(),
        who: who.clone(),
        action: arguments.action.clone(),
        on,
        purpose: arguments.purpose.clone(),
        consent: arguments.consent.clone(),
        data_class: None,
        break_glass: arguments.break_glass,
        mfa_age_s: None,
        within_scope: None,
        allow: true,
    };
    // Whether it may be tried at all comes first, as it does for every request.
    let mut questions = vec![("may it be tried at all", case(On::default()))];
    if arguments.on != "site" {
        questions.push(("is it theirs", case(on)));
    }
    let mut allowed = true;
    for (what, case) in questions {
        let decision = case.decide(&engine)?;
        allowed &= decision.allowed;
        terminal::println(&format!("{what}: {}", decision.why()));
        for rule in engine.rules().iter().filter(|rule| decision.policies.contains(&rule.id)) {
            terminal::println(&format!("  {} ({}:{}): {}", rule.id, rule.file, rule.line, rule.description));
        }
    }
    terminal::println(if allowed { "allowed" } else { "denied" });
    Ok(ExitCode::SUCCESS)
}

fn test(file: Option<&Path>, engine: &Engine) -> anyhow::Result<ExitCode> {
    let text = match file {
        None => access::rules::CASES.to_owned(),
        Some(path) => {
            let shown = path.display();
            let size = std::fs::metadata(path).with_context(|| format!("{shown} cannot be looked at"))?.len();
            if size > CASES_LIMIT_BYTES {
                bail!("{shown} has {size} bytes; at most {CASES_LIMIT_BYTES} are read");
            }
            std::fs::read_to_string(path).with_context(|| format!("{shown} cannot be read"))?
        }
    };
    let cases: Cases = toml::from_str(&text).context("the cases cannot be read")?;
    if cases.cases.len() > CASES_LIMIT {
        bail!("{} cases; at most {CASES_LIMIT} are taken", cases.cases.len());
    }
    let word = |allowed: bool| if allowed { "allow" } else { "deny" };
    let mut wrong = 0;
    for case in &cases.cases {
        let decision = case.decide(engine).with_context(|| format!("the case \"{}\"", case.name))?;
        if decision.allowed != case.allow {
            wrong += 1;
            terminal::println(&format!(
                "WRONG {}: {} expected, {}",
                case.name,
                word(case.allow),
                decision.why()
            ));
        }
    }
    terminal::println(&format!("{} cases, {wrong} wrong", cases.cases.len()));
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_is_about_is_read_or_refused() {
        let id = "01010101-0101-0101-0101-010101010101";
        assert!(on_of("site", None).is_ok());
        for kind in ["patient", "ward", "place", "device"] {
            assert!(on_of(&format!("{kind}/{id}"), None).is_ok(), "{kind}");
        }
        for wrong in ["patient", "patient/x", "planet/1", "patient/"] {
            assert!(on_of(wrong, None).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_shipped_cases_hold() {
        let engine = Engine::built_in().unwrap();
        assert_eq!(test(None, &engine).unwrap(), ExitCode::SUCCESS);
    }
}
