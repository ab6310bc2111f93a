//! Where a request comes from: the address and the kind of browser, to which a session is bound.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use axum::http::{Extensions, HeaderMap, header};
use pipeline::audited::Agent;
use serde::{Deserialize, Serialize};

/// Bits of an IPv6 address that name a network: browsers change the rest by themselves from day to day.
const IPV6_NETWORK_BITS: u32 = 64;

/// The address a request came from; put into the request's extensions by the listener.
#[derive(Clone, Copy, Debug)]
pub struct RemoteAddress(pub IpAddr);

/// How firmly a session is bound to where it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Binding {
    /// To the address (IPv6: its network) and the kind of browser.
    #[default]
    Address,
    /// To the kind of browser only: for sites whose people work behind changing addresses.
    Browser,
}

/// Where a request comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
pub(crate) struct Caller {
    /// The address, where the listener knows it; a network of IPv6; this machine is one address.
    pub address: Option<IpAddr>,
    /// The kind of browser: `Firefox on Linux`.
    pub browser: String,
    /// The address, whole, where it is a request's: for the audit log.
    #[serde(skip)]
    pub whole_address: Option<IpAddr>,
}

impl Caller {
    /// Of a request.
    pub(crate) fn of(headers: &HeaderMap, extensions: &Extensions) -> Self {
        let agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
        let remote = extensions.get::<RemoteAddress>().map(|RemoteAddress(address)| address.to_canonical());
        Caller {
            address: remote.map(bound),
            browser: browser(agent.unwrap_or_default()),
            whole_address: remote,
        }
    }

    /// Whether a request from here belongs to a session that began at `self`.
    pub(crate) fn fits(&self, now: &Caller, binding: Binding) -> bool {
        let is_same_place = match (self.address, now.address) {
            (Some(then), Some(now)) => then == now,
            // Sessions of earlier releases, and requests that came over no listener.
            _ => true,
        };
        let is_same_browser = self.browser.is_empty() || self.browser == now.browser;
        is_same_browser && (is_same_place || binding == Binding::Browser)
    }

    /// Somebody who acts from here, for the audit log.
    pub(crate) fn by<A>(&self, who: A) -> Agent<A> {
        Agent { address: self.whole_address.map(|address| address.to_string()), ..Agent::from(who) }
    }

    /// For the audit log.
    pub(crate) fn words(&self) -> String {
        match self.address {
            Some(address) => format!(" from {address}, {}", self.browser),
            None => String::new(),
        }
    }
}

/// The part of an address that a session is bound to.
pub(crate) fn bound(address: IpAddr) -> IpAddr {
    let address = address.to_canonical();
    match address {
        loopback if loopback.is_loopback() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => {
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << (128 - IPV6_NETWORK_BITS))))
        }
    }
}

/// The kind of browser that an agent's words stand for, without its version, which changes under a running session.
fn browser(agent: &str) -> String {
    let has = |word: &str| agent.contains(word);
    let family = [
        ("Edg", "Edge"),
        ("OPR/", "Opera"),
        ("SamsungBrowser", "Samsung Internet"),
        ("Firefox/", "Firefox"),
        ("FxiOS", "Firefox"),
        ("CriOS", "Chrome"),
        ("Chrome/", "Chrome"),
        ("Safari/", "Safari"),
    ];
    let system = [
        ("Windows", "Windows"),
        ("Android", "Android"),
        ("iPhone", "iPhone"),
        ("iPad", "iPad"),
        ("Mac OS X", "macOS"),
        ("CrOS", "ChromeOS"),
        ("Linux", "Linux"),
    ];
    let find =
        |table: &[(&str, &'static str)]| table.iter().find(|(word, _)| has(word)).map(|(_, name)| *name);
    match (find(&family), find(&system)) {
        (Some(family), Some(system)) => format!("{family} on {system}"),
        (Some(family), None) => family.to_owned(),
        _ => "another program".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> Caller {
        let address = Some(bound(address.parse().unwrap()));
        Caller { address, browser: "Firefox on Linux".into(), whole_address: None }
    }

    #[test]
    fn a_session_is_bound_to_address_and_browser() {
        assert!(at("192.0.2.7").fits(&at("192.0.2.7"), Binding::Address));
        assert!(!at("192.0.2.7").fits(&at("192.0.2.8"), Binding::Address));
        assert!(at("192.0.2.7").fits(&at("192.0.2.8"), Binding::Browser));
        assert!(at("192.0.2.7").fits(&at("::ffff:192.0.2.7"), Binding::Address));
        assert!(at("2001:db8::1").fits(&at("2001:db8::2"), Binding::Address), "one network");
        assert!(!at("2001:db8::1").fits(&at("2001:db8:0:1::1"), Binding::Address));
        assert!(at("::1").fits(&at("127.0.0.1"), Binding::Address), "this machine");
        let other = Caller { browser: "Chrome on Windows".into(), ..at("192.0.2.7") };
        assert!(!at("192.0.2.7").fits(&other, Binding::Browser));
        assert!(Caller::default().fits(&other, Binding::Address), "of an earlier release");
    }

    #[test]
    fn browsers_are_named_without_their_version() {
        for (agent, name) in [
            ("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "Firefox on Linux"),
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) \
                 Chrome/140.0.0.0 Safari/537.36 Edg/140.0",
                "Edge on Windows",
            ),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like \
                 Gecko) Version/18.0 Mobile/15E148 Safari/604.1",
                "Safari on iPhone",
            ),
            ("curl/8.5", "another program"),
            ("", "another program"),
        ] {
            assert_eq!(browser(agent), name);
        }
    }
}
