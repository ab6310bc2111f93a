//! A throw-away PostgreSQL for tests, from the system's package: one server a test process, one schema a store.
//!
//! The server ends, and its files vanish, when the test process ends, however it ends: a shell waits at the other end
//! of a pipe that only the test process holds.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio_postgres::error::SqlState;
use tokio_postgres::{Config, NoTls};

/// Where packages put the server's programs that are not on the search path; later versions first.
const PROGRAM_FOLDERS: [&str; 2] = ["/usr/lib/postgresql", "/usr/pgsql"];
/// A server that does not answer after so long does not start.
const START_WITHIN: Duration = Duration::from_secs(60);
/// Between two looks whether it answers.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Starts until a free port is not taken by somebody else in between.
const STARTS: u32 = 5;

/// What the shell does. Its standard input ends when the test process does.
const SHELL: &str = r#"
directory=$1; programs=$2; port=$3
mkdir -m 700 "$directory" || exit 1
end() { rm -rf "$directory"; }
trap end EXIT
# A signal to the whole group of the test must not keep us from cleaning up; the pipe ends us.
trap '' TERM INT HUP
"$programs/initdb" -D "$directory/data" -U auscult --auth=trust -E UTF8 --locale=C --no-sync \
    >"$directory/initdb.log" 2>&1 || { cat "$directory/initdb.log" >&2; exit 1; }
serve() {
    "$programs/postgres" -D "$directory/data" -p "$port" -c listen_addresses=127.0.0.1 \
        -c unix_socket_directories="$directory" -c fsync=on -c max_connections=400 -c shared_buffers=64MB \
        >>"$directory/log" 2>&1 </dev/null &
    server=$!
}
stop() { kill -QUIT "$server"; wait "$server"; }
serve
echo started "$server"
while read -r word; do
    case $word in
    stop) stop; echo stopped ;;
    start) serve ;;
    esac
done
stop
"#;

/// A running server.
pub struct Cluster {
    port: u16,
    directory: PathBuf,
    server: u32,
    databases: AtomicU32,
    /// The shell ends the server when this closes.
    input: Mutex<Option<ChildStdin>>,
    /// What the shell says when it has done what it was told.
    said: Mutex<BufReader<ChildStdout>>,
    shell: Child,
}

impl Cluster {
    /// The server of this test process, which syncs to the disk as a real one does.
    ///
    /// # Panics
    /// Where the programs are missing (the message says how to install them) or the server does not start.
    pub fn shared() -> &'static Cluster {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(Cluster::start)
    }

    /// Starts one more server, which ends when this is dropped.
    ///
    /// # Panics
    /// As [`Cluster::shared`].
    pub fn start() -> Cluster {
        let programs = programs();
        for _ in 0..STARTS {
            if let Some(cluster) = Cluster::try_start(&programs) {
                return cluster;
            }
        }
        panic!("a PostgreSQL server did not start {STARTS} times; the last message stands above");
    }

    fn try_start(programs: &Path) -> Option<Cluster> {
        // Free now; somebody else may take it before the server does, then another start takes another.
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
        let directory = std::env::temp_dir().join(format!("auscult-postgres-{}-{port}", std::process::id()));
        let mut command = as_plain_user();
        let mut shell = command
            .args(["sh", "-c", SHELL, "sh"])
            .args([&directory, programs])
            .arg(port.to_string())
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        let input = Mutex::new(shell.stdin.take());
        let mut line = String::new();
        let mut said = BufReader::new(shell.stdout.take().expect("a pipe was asked for"));
        let read = said.read_line(&mut line);
        let server = line.strip_prefix("started ").and_then(|number| number.trim().parse().ok());
        let (Ok(_), Some(server)) = (read, server) else {
            drop(input);
            let _ = shell.wait();
            return None;
        };
        let said = Mutex::new(said);
        let cluster = Cluster { port, directory, server, databases: AtomicU32::new(0), input, said, shell };
        // Another server may have taken the port in between, and would answer instead of ours.
        let ours = format!(
            "DO $$ BEGIN ASSERT current_setting('data_directory') = '{}'; END $$",
            cluster.directory.join("data").display()
        );
        let deadline = Instant::now() + START_WITHIN;
        while Instant::now() < deadline {
            match cluster.execute(&ours) {
                Ok(()) => return Some(cluster),
                Err(error) if error.code() == Some(&SqlState::ASSERT_FAILURE) => return None,
                Err(_) => std::thread::sleep(LOOK_EVERY),
            }
        }
        None
    }

    /// The URL of a schema that nobody used before, in this server's one database.
    ///
    /// # Panics
    /// Where the server does not answer.
    pub fn database(&self) -> String {
        let schema = format!("store_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.execute(&format!("CREATE SCHEMA {schema}")).expect("a new schema");
        format!("postgres://auscult@127.0.0.1:{}/postgres?options=-c%20search_path%3D{schema}", self.port)
    }

    /// The directory with its files.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Stops the server at once, as a crash would; returns when its process and so every connection is gone: a server
    /// that refuses new connections may still serve those it has.
    ///
    /// # Panics
    /// Where the shell is gone.
    pub fn stop(&self) {
        self.tell("stop");
        let mut line = String::new();
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.read_line(&mut line).expect("the shell answers");
        assert_eq!(line.trim(), "stopped", "the server's log:\n{}", self.log());
    }

    /// Starts the server again; returns when it answers.
    ///
    /// # Panics
    /// Where it does not.
    pub fn restart(&self) {
        self.tell("start");
        let deadline = Instant::now() + START_WITHIN;
        while self.execute("SELECT 1").is_err() {
            assert!(Instant::now() < deadline, "the server has not started; its log:\n{}", self.log());
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Lets the server speak TLS from now on, beside plain text.
    ///
    /// # Panics
    /// Where it does not take the certificate or the key (PEM texts).
    pub fn encrypt(&self, certificate_pem: &str, key_pem: &str) {
        for (name, pem) in [("server.crt", certificate_pem), ("server.key", key_pem)] {
            let path = self.directory.join("data").join(name);
            // Written by the server itself: it believes only files of its own.
            let copy = format!(
                "COPY (SELECT unnest(string_to_array('{}', E'\\n'))) TO '{}'",
                pem.trim_end(),
                path.display()
            );
            self.execute(&copy).expect("a file of the server");
            let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            std::fs::set_permissions(&path, private).expect("a private file");
        }
        self.execute("ALTER SYSTEM SET ssl = on").expect("a setting of the server");
        self.execute("SELECT pg_reload_conf()").expect("settings read again");
        let deadline = Instant::now() + START_WITHIN;
        while self.execute("DO $$ BEGIN ASSERT current_setting('ssl') = 'on'; END $$").is_err() {
            assert!(Instant::now() < deadline, "the server does not speak TLS; its log:\n{}", self.log());
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn tell(&self, word: &str) {
        use std::io::Write as _;
        let mut input = self.input.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(input.as_mut().expect("open as long as this lives"), "{word}").expect("the shell listens");
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The server's process when it was first started.
    pub fn process(&self) -> u32 {
        self.server
    }

    /// The server's log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// Executes statements on a connection of their own, with the search path of a URL of ours.
    ///
    /// # Panics
    /// Where the URL is not one of ours or the server refuses.
    pub fn execute_in(&self, url: &str, sql: &str) {
        let (_, schema) = url.rsplit_once("%3D").expect("a URL of this cluster");
        self.execute(&format!("SET search_path = {schema}; {sql}")).expect("statements of a test");
    }

    /// Executes statements.
    ///
    /// # Errors
    /// What the server said.
    pub fn execute(&self, sql: &str) -> Result<(), tokio_postgres::Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.port).user("auscult").dbname("postgres");
        runtime.block_on(async {
            let (client, connection) = config.connect(NoTls).await?;
            let driving = tokio::spawn(connection);
            let outcome = client.batch_execute(sql).await;
            drop(client);
            // It ends with its client.
            let _ = driving.await;
            outcome
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.input.lock().unwrap_or_else(PoisonError::into_inner).take());
        let _ = self.shell.wait();
    }
}

/// The folder of `initdb` and `postgres`.
fn programs() -> PathBuf {
    let mut folders: Vec<PathBuf> = Vec::new();
    for parent in PROGRAM_FOLDERS {
        let versions = std::fs::read_dir(parent).into_iter().flatten().flatten();
        folders.extend(versions.map(|version| version.path().join("bin")));
    }
    folders.sort();
    folders.reverse();
    folders.extend(std::env::var_os("PATH").iter().flat_map(std::env::split_paths));
    folders.into_iter().find(|folder| folder.join("initdb").exists() && folder.join("postgres").exists()).expect(
        "these tests need a PostgreSQL server; install it: sudo apt-get install -y --no-install-recommends postgresql",
    )
}

/// The server refuses to run as root: then as the user that its package makes.
fn as_plain_user() -> Command {
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| {
        use std::os::unix::fs::MetadataExt as _;
        own.uid() == 0
    });
    if !is_root {
        return Command::new("env");
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]);
    command
}
