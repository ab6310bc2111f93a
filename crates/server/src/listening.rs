//! Where the server listens, and by which addresses browsers and links name it.

use std::net::SocketAddr;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, UnixListener};

use crate::admin_socket;
use crate::config::Config;

/// Where the server can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// The web app.
    pub web: SocketAddr,
    /// MQTT for devices.
    pub mqtt: SocketAddr,
    /// HTTPS for devices and programs.
    pub devices: SocketAddr,
}

/// What the server listens on, before anything is served.
pub struct Listening {
    /// The web app.
    pub web: TcpListener,
    /// MQTT for devices.
    pub mqtt: TcpListener,
    /// HTTPS for devices and programs.
    pub devices: TcpListener,
    /// Commands on this machine.
    pub admin: UnixListener,
}

impl Listening {
    /// Listens where the settings say. Whoever calls this holds the data directory.
    ///
    /// # Errors
    /// Which address is taken, and what to do.
    pub async fn bind(config: &Config) -> anyhow::Result<Self> {
        Ok(Listening {
            web: bind(config.web.listen, "web.listen").await?,
            mqtt: bind(config.mqtt.listen, "mqtt.listen").await?,
            devices: bind(config.devices.listen, "devices.listen").await?,
            admin: admin_socket::bind(&config.site.data_dir)?,
        })
    }

    /// The addresses, with the ports that were free where port 0 was asked for.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn addresses(&self) -> anyhow::Result<Addresses> {
        Ok(Addresses {
            web: self.web.local_addr()?,
            mqtt: self.mqtt.local_addr()?,
            devices: self.devices.local_addr()?,
        })
    }
}

async fn bind(address: SocketAddr, setting: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address} ({setting}); is another program there? Port 0 takes a free port")
    })
}

/// The address of the web app for a browser on this machine.
pub fn web_url(address: SocketAddr, secure: bool) -> String {
    let scheme = if secure { "https" } else { "http" };
    if address.ip().is_unspecified() {
        // It listens everywhere; this name is in its certificate and works from this machine.
        return format!("{scheme}://localhost:{}", address.port());
    }
    format!("{scheme}://{address}")
}

/// The beginning of links for a person's browser, by a public address or a name.
pub fn link_base(public: &[String], address: SocketAddr, secure: bool) -> String {
    match public.first() {
        Some(public) => public.clone(),
        None if address.ip().is_loopback() => {
            web_url(SocketAddr::new(std::net::Ipv4Addr::UNSPECIFIED.into(), address.port()), secure)
        }
        None => web_url(address, secure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// TRY, 20:49: a reset named another address than the first start.
    #[test]
    fn links_name_the_public_address_or_one_that_works_here() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let public = ["https://ward.example".to_owned()];
        assert_eq!(link_base(&public, at("127.0.0.1:8080"), false), "https://ward.example");
        assert_eq!(link_base(&[], at("127.0.0.1:8080"), false), "http://localhost:8080");
        assert_eq!(link_base(&[], at("[::1]:8080"), true), "https://localhost:8080");
        assert_eq!(link_base(&[], at("0.0.0.0:8443"), true), "https://localhost:8443");
        assert_eq!(link_base(&[], at("10.0.0.7:8443"), true), "https://10.0.0.7:8443");
    }
}
