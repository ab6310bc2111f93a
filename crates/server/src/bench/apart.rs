//! Processes of their own: the server that is measured, and its peers, with what they cost the machine.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// Clock ticks a second in `/proc/PID/stat`: what Linux shows to programs on every machine (`USER_HZ`).
const TICKS_PER_S: f64 = 100.0;
/// Time that a process has to end after it was asked to; then it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(40);
/// Time that a process has to begin to serve.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How often it is looked at meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A process that ends with this value.
pub struct Apart {
    name: &'static str,
    child: Child,
}

impl Apart {
    /// Starts it; its standard output is dropped, its errors are shown.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(name: &'static str, command: &mut Command) -> anyhow::Result<Self> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        Ok(Apart { name, child: child.with_context(|| format!("{name} cannot be started"))? })
    }

    /// Starts it and waits for its first line on standard output.
    ///
    /// # Errors
    /// When it cannot be started, or ends before it said anything.
    pub fn start_and_hear(name: &'static str, command: &mut Command) -> anyhow::Result<(Self, String)> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut apart = Apart { name, child: child.with_context(|| format!("{name} cannot be started"))? };
        let out = apart.child.stdout.take().context("its standard output is piped")?;
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line).with_context(|| format!("{name} cannot be heard"))?;
        ensure!(!line.is_empty(), "{name} ended before it was ready");
        Ok((apart, line))
    }

    /// Waits until something listens at `address`.
    ///
    /// # Errors
    /// When the process ends before, or nothing listens in time.
    pub fn wait_for(&mut self, address: &str) -> anyhow::Result<()> {
        let began = Instant::now();
        while std::net::TcpStream::connect(address).is_err() {
            if let Some(status) = self.child.try_wait()? {
                anyhow::bail!("{} ended at once ({status})", self.name);
            }
            ensure!(began.elapsed() < START_LIMIT, "{} does not listen at {address}", self.name);
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// Memory that it holds, in bytes.
    ///
    /// # Errors
    /// When it has ended.
    pub fn resident_bytes(&self) -> anyhow::Result<f64> {
        let status = self.proc_file("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok());
        Ok(kib.with_context(|| format!("{} has ended", self.name))? * 1_024.0)
    }

    /// Processor time that it has taken, in seconds of one core.
    ///
    /// # Errors
    /// When it has ended.
    pub fn processor_s(&self) -> anyhow::Result<f64> {
        let stat = self.proc_file("stat")?;
        // The name in parentheses may hold blanks; user and system time are fields 14 and 15 (proc(5)).
        let fields: Vec<&str> =
            stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok());
        let taken = ticks(11).zip(ticks(12)).map(|(user, system)| user + system);
        Ok(taken.with_context(|| format!("{} has ended", self.name))? / TICKS_PER_S)
    }

    fn proc_file(&self, file: &str) -> anyhow::Result<String> {
        let path = format!("/proc/{}/{file}", self.child.id());
        std::fs::read_to_string(&path).with_context(|| format!("{path} cannot be read"))
    }

    /// Asks it to end and waits until it has.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn stop(mut self) -> anyhow::Result<()> {
        self.ask_to_end();
        let began = Instant::now();
        while self.child.try_wait()?.is_none() {
            ensure!(began.elapsed() < STOP_LIMIT, "{} does not end", self.name);
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    fn ask_to_end(&self) {
        // It may have ended already.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port of this machine that nobody listens on.
///
/// # Errors
/// When there is none.
pub fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("there is no free port")?;
    Ok(listener.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_heard_weighed_and_ended() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo ready; while :; do sleep 1; done"]);
        let (apart, line) = Apart::start_and_hear("the shell", &mut command).unwrap();
        assert_eq!(line, "ready\n");
        let (resident, taken) = (apart.resident_bytes().unwrap(), apart.processor_s().unwrap());
        assert!((100_000.0..100e6).contains(&resident), "{resident}");
        assert!((0.0..5.0).contains(&taken), "{taken}");
        apart.stop().unwrap();
    }
}
