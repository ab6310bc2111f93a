//! The binary as a child process, and what it says.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longest wait for the line that says "ready": opening, keys and certificates on a busy machine.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// Longest wait for the end of a process that was asked to stop.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// The binary under test: the one that was built with the tests, or the one that `AUSCULT_TORTURE_BINARY` names.
pub fn auscult() -> Command {
    let other = std::env::var_os("AUSCULT_TORTURE_BINARY");
    let mut command = Command::new(other.unwrap_or_else(|| env!("CARGO_BIN_EXE_auscult").into()));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AUSCULT_")) {
        command.env_remove(name);
    }
    command
}

/// Runs it to its end.
pub fn run(arguments: &[&str]) -> Output {
    auscult().args(arguments).output().unwrap()
}

/// Runs it to its end, which must be a success; its standard output.
pub fn succeed(arguments: &[&str]) -> String {
    let output = run(arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?} ended with {}: {errors}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// Runs it to its end, which must be a failure; its standard error.
pub fn refuse(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).unwrap()
}

/// A data directory and its key, elsewhere.
pub struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let place = Place { directory };
        succeed(&["key", "generate", place.key().to_str().unwrap()]);
        place
    }

    /// Another place with the same content.
    pub fn copy_of(other: &Place) -> Self {
        let directory = tempfile::tempdir().unwrap();
        copy(&other.directory.path().join("."), directory.path());
        Place { directory }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn data(&self) -> PathBuf {
        self.path("data")
    }

    pub fn key(&self) -> PathBuf {
        self.path("key")
    }

    /// Runs `auscult pki` with this place's key, which must be a success; its standard output.
    pub fn pki(&self, arguments: &[&str]) -> String {
        let key = self.key();
        let output = auscult().arg("pki").args(arguments).env("AUSCULT_KEY_FILE", key).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "pki {arguments:?} ended with {}: {errors}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    /// Arguments that name both.
    pub fn arguments(&self) -> [String; 4] {
        let shown = |path: PathBuf| path.to_str().unwrap().to_owned();
        ["--data".into(), shown(self.data()), "--key-file".into(), shown(self.key())]
    }
}

/// Copies files and directories with everything that belongs to them.
pub fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(status.success(), "{} could not be copied to {}: {status}", from.display(), to.display());
}

/// Serves on ports that are free, and says in JSON which they are.
pub const ON_FREE_PORTS: [&str; 7] =
    ["--web", "127.0.0.1:0", "--mqtt", "127.0.0.1:0", "--devices", "127.0.0.1:0", "--print-json"];

/// A running child; killed when dropped.
pub struct Server {
    child: Child,
    stdout: BufReader<ChildStdout>,
    log: PathBuf,
    /// What it printed when it was ready.
    pub ready: Value,
}

impl Server {
    /// Serves a place on free ports and waits until it is ready.
    pub fn serve(place: &Place, more: &[&str]) -> Self {
        Self::start(Self::command(place, more), place.path("log.txt"))
    }

    /// The command that serves a place on free ports.
    pub fn command(place: &Place, more: &[&str]) -> Command {
        let mut command = auscult();
        command.arg("serve").args(place.arguments()).args(more);
        command.args(ON_FREE_PORTS);
        command
    }

    /// Starts a command that prints a line of JSON when it is ready.
    pub fn start(command: Command, log: PathBuf) -> Self {
        let shown = log.clone();
        Self::attempt(command, log).unwrap_or_else(|status| {
            panic!("it ended with {status} before it was ready; log: {}", read(&shown))
        })
    }

    /// Starts a command that prints a line of JSON when it is ready, or ends before.
    pub fn attempt(mut command: Command, log: PathBuf) -> Result<Self, ExitStatus> {
        let file = std::fs::File::options().create(true).append(true).open(&log).unwrap();
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (mut stdout, line) = first_line(stdout, &log);
        if line.is_empty() {
            return Err(child.wait().unwrap());
        }
        let ready = serde_json::from_str(&line).unwrap_or_else(|error| {
            let _ = child.kill();
            let mut rest = String::new();
            let _ = stdout.read_to_string(&mut rest);
            panic!("\"{line}{rest}\" is no line of JSON ({error}); log: {}", read(&log));
        });
        Ok(Server { child, stdout, log, ready })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has by now.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    pub fn address(&self, name: &str) -> String {
        self.ready[name].as_str().unwrap_or_else(|| panic!("no {name} in {}", self.ready)).to_owned()
    }

    pub fn log(&self) -> String {
        read(&self.log)
    }

    /// Ends it without any warning, as a crash does.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to stop; how it ended, and what else it printed.
    pub fn stop(mut self) -> (ExitStatus, String) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        self.wait()
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> (ExitStatus, String) {
        let mut rest = String::new();
        let asked = Instant::now();
        // Standard output ends with the process.
        self.stdout.read_to_string(&mut rest).unwrap();
        let status = self.child.wait().unwrap();
        assert!(asked.elapsed() < STOP_LIMIT, "it took {:?} to end; log: {}", asked.elapsed(), self.log());
        (status, rest)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn first_line(mut stdout: BufReader<ChildStdout>, log: &Path) -> (BufReader<ChildStdout>, String) {
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let mut line = String::new();
        let _ = stdout.read_line(&mut line);
        let _ = sender.send((stdout, line));
    });
    receiver
        .recv_timeout(READY_LIMIT)
        .unwrap_or_else(|_| panic!("not ready within {READY_LIMIT:?}; log: {}", read(log)))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
