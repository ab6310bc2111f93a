//! Real clients: the programs `mosquitto_pub` and `mosquitto_sub`, which others have written.
//!
//! What needs the inside of the endpoint: revocation and commands. What clients publish is tested against the whole
//! server, with several clients, in `clients/programs/`. These programs are not part of a Rust installation, so these
//! tests run when asked for: `cargo test -p connectors -- --ignored`.

use std::path::PathBuf;
use std::process::{Output, Stdio};

use tokio::process::Command;

use crate::house::{House, Registered, until, within};

const NEEDED: &str = "mosquitto_pub and mosquitto_sub must be installed (Debian and Ubuntu: apt-get install mosquitto-clients)";

/// One of the programs, with the files of a device.
struct Program {
    directory: tempfile::TempDir,
    port: u16,
    device: String,
}

impl Program {
    fn of(house: &House, device: &Registered) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
        write("authority.pem", house.authority_pem());
        write("certificate.pem", &device.certificate.certificate_pem);
        write("key.pem", device.certificate.key_pem.expose());
        Self { directory, port: house.address.port(), device: device.id.to_string() }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, program: &str, version: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(["-h", "localhost", "-p", &self.port.to_string(), "-V", version, "-i", &self.device])
            .arg("--cafile")
            .arg(self.file("authority.pem"))
            .arg("--cert")
            .arg(self.file("certificate.pem"))
            .arg("--key")
            .arg(self.file("key.pem"))
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    async fn publish(&self, version: &str, qos: &str, topic: &str, message: &str) -> Output {
        let mut command = self.command("mosquitto_pub", version, &["-q", qos, "-t", topic, "-m", message]);
        within(command.output()).await.expect(NEEDED)
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the program mosquitto_pub"]
async fn mosquitto_pub_says_why_it_was_refused() {
    let mut house = House::open().await;
    let (device, other) = (house.device(), house.device());
    let program = Program::of(&house, &device);
    let output = program.publish("mqttv5", "1", &other.envelope(), "{}").await;
    let said = String::from_utf8_lossy(&output.stderr).to_lowercase();
    assert!(said.contains("not authorized"), "{output:?}");
    house.site.admission().set_revoked([device.certificate.serial_hex.clone()]);
    for version in ["mqttv311", "mqttv5"] {
        let output = program.publish(version, "1", &device.envelope(), "{}").await;
        assert!(!output.status.success(), "{version}: {output:?}");
    }
    assert!(house.committed().is_empty());
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the program mosquitto_sub"]
async fn mosquitto_sub_receives_its_commands() {
    let mut house = House::open().await;
    for version in ["mqttv311", "mqttv5"] {
        let device = house.device();
        let program = Program::of(&house, &device);
        let topic = format!("auscult/v1/{}/command", device.id);
        let mut command = program.command("mosquitto_sub", version, &["-q", "1", "-C", "1", "-t", &topic]);
        let listening = command.stdout(Stdio::piped()).spawn().expect(NEEDED);
        until("it listens", || house.site.live().command(device.id, b"measure now".to_vec())).await;
        let output = within(listening.wait_with_output()).await.unwrap();
        assert_eq!(output.stdout, b"measure now\n", "{version}");
    }
    house.stop().await;
}
