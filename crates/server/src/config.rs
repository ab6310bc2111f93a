//! Configuration: one TOML file, environment overrides by one rule, and what must be true of it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

pub use crate::database_url::DatabaseUrl;
use crate::keys;

/// Longest address of a database, in bytes.
const URL_LIMIT_BYTES: u64 = 4 << 10;
/// Largest configuration file that is read, in bytes.
const FILE_LIMIT_BYTES: u64 = 256 << 10;
/// What environment overrides begin with; the section and the field follow.
const ENVIRONMENT_PREFIX: &str = "AUSCULT_";
/// Sections that environment overrides may name; other variables with the prefix are not ours to judge.
const SECTIONS: [&str; 11] =
    ["site", "store", "key", "web", "access", "mqtt", "devices", "tls", "pki", "log", "audit"];
/// Shortest interval between two folds, in seconds: folding more often only makes small blocks.
const FOLD_INTERVAL_MIN_S: u64 = 1;
/// Longest interval between two folds, in seconds: the journal is read again at start.
const FOLD_INTERVAL_MAX_S: u64 = 3_600;
/// Longest that a session may last, in minutes: one day.
const SESSION_MAX_MIN: u64 = 24 * 60;

/// The commented file that `auscult config-template` prints.
pub const TEMPLATE: &str = include_str!("config_template.toml");

/// All settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The site and where its data live.
    pub site: SiteConfig,
    /// Where everything is kept, when it is not in the data directory.
    pub store: StoreConfig,
    /// The key-encryption key.
    pub key: KeyConfig,
    /// The web app and its API.
    pub web: WebConfig,
    /// Who may what.
    pub access: AccessConfig,
    /// The MQTT port of devices.
    pub mqtt: MqttConfig,
    /// The HTTPS port of devices and programs.
    pub devices: DevicesConfig,
    /// The server's own certificate.
    pub tls: TlsConfig,
    /// The built-in certificate authority.
    pub pki: PkiConfig,
    /// The log.
    pub log: LogConfig,
    /// The audit log: its checkpoints and witnesses.
    pub audit: AuditConfig,
}

/// Who may what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct AccessConfig {
    /// A directory with the site's own policies (`*.cedar`).
    pub policies: Option<PathBuf>,
}

/// The site and where its data live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SiteConfig {
    /// What the site calls itself.
    pub name: String,
    /// The data directory.
    pub data_dir: PathBuf,
    /// Seconds between two folds of the journal into blocks.
    pub fold_interval_s: u64,
}

impl Default for SiteConfig {
    fn default() -> Self {
        SiteConfig {
            name: "Auscult".to_owned(),
            data_dir: PathBuf::from("/var/lib/auscult"),
            fold_interval_s: 10,
        }
    }
}

/// Where everything is kept: in the data directory (neither is set), or in a PostgreSQL database that several nodes may
/// share (one of the two).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct StoreConfig {
    /// Address of the database.
    pub database: Option<DatabaseUrl>,
    /// A file that only its owner may read, with the address of the database in it.
    pub database_file: Option<PathBuf>,
}

impl StoreConfig {
    /// The address of the database, if everything is kept in one.
    ///
    /// # Errors
    /// When the file cannot be read, others may read it, or it holds no address.
    pub fn url(&self) -> anyhow::Result<Option<DatabaseUrl>> {
        let Some(path) = &self.database_file else { return Ok(self.database.clone()) };
        let shown = path.display();
        keys::check_mode(path, "database file")?;
        let length = std::fs::metadata(path).with_context(|| format!("{shown} cannot be looked at"))?.len();
        if length > URL_LIMIT_BYTES {
            bail!("{shown} has {length} bytes, which is no address of a database");
        }
        let text = std::fs::read_to_string(path).with_context(|| format!("{shown} cannot be read"))?;
        let url: anyhow::Result<DatabaseUrl> = text.trim().parse();
        url.map(Some).with_context(|| format!("{shown} (store.database_file) cannot be used"))
    }
}

/// Where the key-encryption key comes from: one of the two.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeyConfig {
    /// A file that only its owner may read, outside the data directory.
    pub file: Option<PathBuf>,
    /// Name of a credential in `$CREDENTIALS_DIRECTORY` (systemd's `LoadCredential=`).
    pub credential: Option<String>,
    /// A program with its arguments that gives the key; started without a shell.
    pub command: Option<Vec<String>>,
    /// The library of a token (PKCS #11).
    pub pkcs11_module: Option<PathBuf>,
    /// The label of the token.
    pub pkcs11_token: Option<String>,
    /// The label of the secret in the token.
    pub pkcs11_label: Option<String>,
    /// A file that only its owner may read, with the PIN of the token.
    pub pkcs11_pin_file: Option<PathBuf>,
    /// The list of erasures, kept beside the key and not beside the data; without it the file of the key with `.erasures`.
    pub erasures: Option<PathBuf>,
    /// Days after an erasure within which the epoch must have turned.
    pub turn_within_days: u32,
    /// Whether this site holds patients: then key and data must not share a volume.
    pub production: bool,
}

impl Default for KeyConfig {
    fn default() -> Self {
        KeyConfig {
            file: None,
            credential: None,
            command: None,
            pkcs11_module: None,
            pkcs11_token: None,
            pkcs11_label: None,
            pkcs11_pin_file: None,
            erasures: None,
            turn_within_days: 30,
            production: false,
        }
    }
}

impl KeyConfig {
    /// A key in a file.
    pub fn of_file(file: &Path) -> Self {
        KeyConfig { file: Some(file.to_owned()), ..KeyConfig::default() }
    }

    /// The token, where one is named.
    pub fn token(&self) -> Option<crate::kek::Token> {
        Some(crate::kek::Token {
            module: self.pkcs11_module.clone()?,
            token: self.pkcs11_token.clone().unwrap_or_else(|| "auscult".to_owned()),
            label: self.pkcs11_label.clone().unwrap_or_else(|| "auscult-kek".to_owned()),
            pin_file: self.pkcs11_pin_file.clone()?,
        })
    }

    /// Where the list of erasures is kept.
    pub fn erasures_file(&self, data_dir: &Path) -> PathBuf {
        if let Some(path) = &self.erasures {
            return path.clone();
        }
        match &self.file {
            Some(file) => {
                let mut name = file.clone().into_os_string();
                name.push(".erasures");
                name.into()
            }
            None => data_dir.join("erasures.json"),
        }
    }
}

/// The web app and its API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebConfig {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Whether to speak TLS; needed on every address but loopback.
    pub tls: bool,
    /// Addresses and networks of TCP balancers before it, which say by the PROXY protocol (version 1) whose a connection
    /// is. Nobody else is believed.
    pub proxy_from: Vec<String>,
    /// Minutes without a request after which a session ends.
    pub idle_timeout_min: u64,
    /// Minutes after which a session ends at the latest.
    pub session_limit_min: u64,
    /// The addresses at which browsers open the web app; passkeys are bound to the host of the first.
    pub public_addresses: Vec<String>,
    /// Whether a session ends when it is shown from another address than where it began.
    pub bind_sessions_to_address: bool,
}

impl Default for WebConfig {
    fn default() -> Self {
        WebConfig {
            listen: loopback(8080),
            tls: false,
            proxy_from: Vec::new(),
            idle_timeout_min: 15,
            session_limit_min: 12 * 60,
            public_addresses: Vec::new(),
            bind_sessions_to_address: true,
        }
    }
}

impl WebConfig {
    /// The balancers that are believed.
    ///
    /// # Errors
    /// When one is no address or network.
    pub fn balancers(&self) -> anyhow::Result<web_api::Balancers> {
        web_api::Balancers::parse(self.proxy_from.iter().map(String::as_str)).context("web.proxy_from")
    }
}

/// The MQTT port of devices: always TLS with client certificates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MqttConfig {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
}

impl Default for MqttConfig {
    fn default() -> Self {
        MqttConfig { listen: loopback(8883) }
    }
}

/// The HTTPS port of devices and programs: always TLS with client certificates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DevicesConfig {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
}

impl Default for DevicesConfig {
    fn default() -> Self {
        DevicesConfig { listen: loopback(8443) }
    }
}

/// The server's own certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    /// Certificate chain (PEM). Without it the built-in authority issues one.
    pub certificate: Option<PathBuf>,
    /// Private key of the certificate (PEM).
    pub key: Option<PathBuf>,
    /// Further names and addresses for the certificate that the built-in authority issues.
    pub names: Vec<String>,
}

/// The built-in certificate authority.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct PkiConfig {
    /// Its directory; without it `pki` in the data directory.
    pub dir: Option<PathBuf>,
    /// How devices call the device port (`https://host:port`), where that is not the first of tls.names at its port: it
    /// stands in claim codes, and in certificates as the place of the list of revoked ones.
    pub address: Option<String>,
}

/// The audit log: its checkpoints and witnesses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditConfig {
    /// Seconds after which a checkpoint is signed, where anything was added.
    pub checkpoint_interval_s: u64,
    /// Rows after which one is signed, however soon.
    pub checkpoint_entries: u64,
    /// Seconds between two heartbeats, by whose absence an end shows that was cut off.
    pub heartbeat_s: u64,
    /// Who cosigns checkpoints.
    pub witnesses: Vec<WitnessConfig>,
}

impl Default for AuditConfig {
    fn default() -> Self {
        let options = pipeline::checkpoints::CheckpointOptions::default();
        AuditConfig {
            checkpoint_interval_s: options.every.as_secs(),
            checkpoint_entries: options.entries,
            heartbeat_s: options.heartbeat.as_secs(),
            witnesses: Vec::new(),
        }
    }
}

impl AuditConfig {
    /// The pace of checkpoints.
    pub fn options(&self) -> pipeline::checkpoints::CheckpointOptions {
        pipeline::checkpoints::CheckpointOptions {
            every: Duration::from_secs(self.checkpoint_interval_s),
            entries: self.checkpoint_entries,
            heartbeat: Duration::from_secs(self.heartbeat_s),
        }
    }
}

/// A witness that cosigns checkpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessConfig {
    /// Its public key, as `auscult witness key` prints it.
    pub key: String,
    /// Where it is asked; `/add-checkpoint` is added.
    pub url: String,
    /// A certificate (PEM) to believe besides those of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
}

/// The log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// Level, or a filter such as `info,connectors=debug`.
    pub level: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig { level: "info".to_owned() }
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// What the command line says, above the file and the environment.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ConfigArguments {
    /// Configuration file (TOML); `auscult config-template` prints a commented one
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Data directory (setting site.data_dir)
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// File with the key-encryption key, outside the data directory (setting key.file)
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Address of a PostgreSQL database in which everything is kept (setting store.database); a password is better in a
    /// file (store.database_file), for others on this machine can read a command line
    #[arg(long, value_name = "URL")]
    pub database: Option<DatabaseUrl>,
}

impl Config {
    /// The settings of the file, overridden by the environment, overridden by the command line, and checked.
    ///
    /// # Errors
    /// A sentence that names the file, the variable or the setting at fault.
    pub fn assemble(arguments: &ConfigArguments) -> anyhow::Result<Config> {
        Self::assemble_from(arguments, std::env::vars())
    }

    fn assemble_from(
        arguments: &ConfigArguments,
        environment: impl Iterator<Item = (String, String)>,
    ) -> anyhow::Result<Config> {
        let mut table = match &arguments.config {
            Some(path) => read_file(path)?,
            None => toml::Table::new(),
        };
        override_from(&mut table, environment)?;
        let mut config: Config = toml::Value::Table(table).try_into().with_context(|| {
            let place = arguments.config.as_ref().map_or("the environment".to_owned(), |path| {
                format!("{} (with {ENVIRONMENT_PREFIX}… from the environment)", path.display())
            });
            format!("the settings of {place} cannot be used; compare `auscult config-template`")
        })?;
        if let Some(data) = &arguments.data {
            config.site.data_dir.clone_from(data);
        }
        if let Some(file) = &arguments.key_file {
            config.key = KeyConfig {
                file: Some(file.clone()),
                credential: None,
                command: None,
                pkcs11_module: None,
                ..config.key.clone()
            };
        }
        if let Some(url) = &arguments.database {
            config.store = StoreConfig { database: Some(url.clone()), database_file: None };
        }
        config.check()?;
        Ok(config)
    }

    /// What no single field can promise.
    ///
    /// # Errors
    /// A sentence that names the setting.
    pub fn check(&self) -> anyhow::Result<()> {
        if !self.web.listen.ip().is_loopback() && !self.web.tls {
            bail!(
                "web.listen = \"{}\" can be reached from other machines, and passwords and patients' data would \
                 cross the network unencrypted; set web.tls = true, or listen on 127.0.0.1",
                self.web.listen
            );
        }
        let fold = self.site.fold_interval_s;
        if !(FOLD_INTERVAL_MIN_S..=FOLD_INTERVAL_MAX_S).contains(&fold) {
            bail!("site.fold_interval_s = {fold} must be {FOLD_INTERVAL_MIN_S} to {FOLD_INTERVAL_MAX_S}");
        }
        let (idle, limit) = (self.web.idle_timeout_min, self.web.session_limit_min);
        if idle == 0 || idle > limit || limit > SESSION_MAX_MIN {
            bail!(
                "web.idle_timeout_min = {idle} must be at least 1 and at most web.session_limit_min = {limit}, \
                 which must be at most {SESSION_MAX_MIN}"
            );
        }
        crate::kek::check(&self.key)?;
        if self.store.database.is_some() && self.store.database_file.is_some() {
            bail!("store.database and store.database_file are both set; remove one of them");
        }
        if let Some(url) = &self.store.database {
            url.check().context("store.database cannot be used")?;
        }
        if self.tls.certificate.is_some() != self.tls.key.is_some() {
            bail!(
                "tls.certificate and tls.key belong together; set both, or neither to use the built-in authority"
            );
        }
        self.web.balancers()?;
        if let Some(address) = &self.pki.address
            && (!address.starts_with("https://")
                || address.ends_with('/')
                || !address.is_ascii()
                || address.len() > 255)
        {
            bail!("pki.address = \"{address}\" must be https://host:port without a slash at the end");
        }
        if !self.web.public_addresses.is_empty() {
            trust::webauthn::RelyingParty::at(&self.web.public_addresses).context("web.public_addresses")?;
        }
        if self.site.name.trim().is_empty() || self.site.name.chars().count() > 60 {
            bail!("site.name must have 1 to 60 characters");
        }
        Ok(())
    }

    /// The directory of the built-in authority.
    pub fn pki_dir(&self) -> PathBuf {
        self.pki.dir.clone().unwrap_or_else(|| self.site.data_dir.join("pki"))
    }

    /// Time between two folds.
    pub fn fold_interval(&self) -> Duration {
        Duration::from_secs(self.site.fold_interval_s)
    }
}

fn read_file(path: &Path) -> anyhow::Result<toml::Table> {
    let shown = path.display();
    let length =
        std::fs::metadata(path).with_context(|| format!("cannot read the configuration {shown}"))?.len();
    if length > FILE_LIMIT_BYTES {
        bail!(
            "the configuration {shown} has {length} bytes, more than {FILE_LIMIT_BYTES}; is it the right file?"
        );
    }
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read the configuration {shown}"))?;
    text.parse().with_context(|| format!("the configuration {shown} is not TOML"))
}

/// `AUSCULT_<SECTION>_<FIELD>` replaces one field. A value that is TOML is taken as TOML (`true`, `15`,
/// `["a", "b"]`), anything else as text.
fn override_from(
    table: &mut toml::Table,
    environment: impl Iterator<Item = (String, String)>,
) -> anyhow::Result<()> {
    for (name, value) in environment {
        let Some(rest) = name.strip_prefix(ENVIRONMENT_PREFIX) else { continue };
        let rest = rest.to_ascii_lowercase();
        let Some((section, field)) = rest.split_once('_') else { continue };
        if !SECTIONS.contains(&section) {
            continue;
        }
        let fields = table
            .entry(section)
            .or_insert_with(|| toml::Value::Table(toml::Table::new()))
            .as_table_mut()
            .with_context(|| format!("[{section}] must be a table, so that {name} can set a field of it"))?;
        let parsed = format!("value = {value}").parse::<toml::Table>().ok();
        let value = parsed.and_then(|mut table| table.remove("value")).unwrap_or(toml::Value::String(value));
        fields.insert(field.to_owned(), value);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(text: &str, environment: &[(&str, &str)]) -> anyhow::Result<Config> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("auscult.toml");
        std::fs::write(&path, text)?;
        let arguments = ConfigArguments { config: Some(path), ..ConfigArguments::default() };
        let environment: Vec<_> =
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Config::assemble_from(&arguments, environment.into_iter())
    }

    fn message(result: anyhow::Result<Config>) -> String {
        format!("{:#}", result.unwrap_err())
    }

    #[test]
    fn the_template_is_the_defaults() {
        let plain: Config = toml::from_str(TEMPLATE).unwrap();
        assert_eq!(plain, Config::default());
        // Each commented setting stands there with its default, or with an example where there is none.
        let uncommented: String = TEMPLATE
            .lines()
            .map(|line| line.strip_prefix("#: ").unwrap_or(line))
            .map(|line| format!("{line}\n"))
            .collect();
        let config: Config = toml::from_str(&uncommented).unwrap();
        let defaults = Config {
            key: config.key.clone(),
            store: config.store.clone(),
            tls: config.tls.clone(),
            pki: config.pki.clone(),
            web: WebConfig { public_addresses: config.web.public_addresses.clone(), ..WebConfig::default() },
            access: config.access.clone(),
            audit: AuditConfig { witnesses: config.audit.witnesses.clone(), ..AuditConfig::default() },
            ..Config::default()
        };
        assert_eq!(config, defaults);
        assert!(config.key.file.is_some() && config.key.credential.is_some());
        assert!(config.store.database.is_some() && config.store.database_file.is_some());
        assert!(config.tls.certificate.is_some() && config.pki.dir.is_some());
    }

    #[test]
    fn every_setting_stands_in_the_template() {
        let full = Config {
            key: KeyConfig {
                file: Some("k".into()),
                credential: Some("c".into()),
                command: Some(vec!["/c".into()]),
                pkcs11_module: Some("m".into()),
                pkcs11_token: Some("t".into()),
                pkcs11_label: Some("l".into()),
                pkcs11_pin_file: Some("p".into()),
                erasures: Some("e".into()),
                ..KeyConfig::default()
            },
            store: StoreConfig {
                database: Some("postgres://h/d".parse().unwrap()),
                database_file: Some("f".into()),
            },
            tls: TlsConfig { certificate: Some("c".into()), key: Some("k".into()), names: vec!["n".into()] },
            pki: PkiConfig { dir: Some("p".into()), address: Some("https://h:1".into()) },
            ..Config::default()
        };
        let toml::Value::Table(sections) = toml::Value::try_from(full).unwrap() else { panic!("a table") };
        assert_eq!(sections.keys().cloned().collect::<std::collections::BTreeSet<_>>(), {
            SECTIONS.iter().map(|name| (*name).to_owned()).collect()
        });
        for (section, fields) in sections {
            assert!(TEMPLATE.contains(&format!("[{section}]")), "[{section}]");
            for field in fields.as_table().unwrap().keys() {
                assert!(TEMPLATE.contains(&format!("#: {field} = ")), "{section}.{field}");
            }
        }
    }

    #[test]
    fn the_environment_overrides_the_file_by_one_rule() {
        let config = from(
            "[site]\nname = \"North\"\nfold_interval_s = 5\n",
            &[
                ("AUSCULT_SITE_DATA_DIR", "/srv/auscult"),
                ("AUSCULT_SITE_FOLD_INTERVAL_S", "7"),
                ("AUSCULT_WEB_TLS", "true"),
                ("AUSCULT_WEB_LISTEN", "0.0.0.0:443"),
                ("AUSCULT_TLS_NAMES", "[\"a.example\", \"b.example\"]"),
                ("AUSCULT_CRASH_ROUNDS", "5"),
                ("HOME", "/root"),
            ],
        )
        .unwrap();
        assert_eq!(config.site.name, "North");
        assert_eq!(config.site.data_dir, PathBuf::from("/srv/auscult"));
        assert_eq!(config.site.fold_interval_s, 7);
        assert_eq!(config.web.listen, SocketAddr::from(([0, 0, 0, 0], 443)));
        assert_eq!(config.tls.names, ["a.example", "b.example"]);
    }

    #[test]
    fn a_mistake_is_named() {
        assert!(message(from("[site]\nnmae = \"x\"\n", &[])).contains("nmae"));
        assert!(message(from("", &[("AUSCULT_WEB_LISTN", "127.0.0.1:1")])).contains("listn"));
        assert!(message(from("[web]\nlisten = \"0.0.0.0:80\"\n", &[])).contains("web.tls = true"));
        assert!(message(from("[web]\nlisten = \"[::]:80\"\n", &[])).contains("web.tls = true"));
        assert!(message(from("[site]\nfold_interval_s = 0\n", &[])).contains("fold_interval_s"));
        assert!(message(from("[key]\nfile = \"a\"\ncredential = \"b\"\n", &[])).contains("one home"));
        assert!(message(from("[tls]\nkey = \"a\"\n", &[])).contains("tls.certificate"));
        assert!(message(from("[web]\nidle_timeout_min = 0\n", &[])).contains("idle_timeout_min"));
        assert!(message(from("[site\n", &[])).contains("not TOML"));
        assert!(from("[web]\nlisten = \"[::1]:80\"\n", &[]).is_ok());
    }

    #[test]
    fn the_password_of_a_database_is_never_shown() {
        let config = from("", &[("AUSCULT_STORE_DATABASE", "postgres://auscult:secret@h/d")]).unwrap();
        assert!(!format!("{config:?} {}", toml::to_string(&config).unwrap()).contains("secret"));
        let wrong = message(from("", &[("AUSCULT_STORE_DATABASE", "mysql://root:secret@h/d")]));
        assert!(wrong.contains("store.database") && !wrong.contains("secret"), "{wrong}");
    }

    #[test]
    fn the_address_of_the_database_comes_from_a_file_that_others_cannot_read() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("database");
        std::fs::write(&path, "postgres://auscult:secret@h/d\n").unwrap();
        let settings = from("", &[("AUSCULT_STORE_DATABASE_FILE", path.to_str().unwrap())]).unwrap().store;
        assert!(format!("{:#}", settings.url().unwrap_err()).contains("chmod"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(settings.url().unwrap().unwrap().expose(), "postgres://auscult:secret@h/d");
        std::fs::write(&path, "se:cret").unwrap();
        let message = format!("{:#}", settings.url().unwrap_err());
        assert!(message.contains("database_file") && !message.contains("cret\""), "{message}");
        let both = [
            ("AUSCULT_STORE_DATABASE", "postgres://h/d"),
            ("AUSCULT_STORE_DATABASE_FILE", path.to_str().unwrap()),
        ];
        assert!(super::tests::message(from("", &both)).contains("both set"));
    }
}
