//! The PROXY protocol, version 1: the one line by which a TCP balancer says from whom a connection comes.
//!
//! Source: "The PROXY protocol", `HAProxy`, section 2.1. It is believed from the balancers that are configured and from
//! nobody else: whoever else sends it is taken for a client that speaks another protocol.

use std::net::{IpAddr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Longest line with its end, in bytes (section 2.1).
const LINE_LIMIT_BYTES: usize = 107;

/// The balancers whose word about a connection's origin is believed: addresses and networks. None by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Balancers(Vec<(IpAddr, u8)>);

/// A text that is neither an address nor a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no address or network of a balancer (such as 10.0.0.5 or 10.0.0.0/28)")]
pub struct BalancersError {
    /// The text.
    pub text: String,
}

impl Balancers {
    /// From addresses (`10.0.0.5`) and networks (`10.0.0.0/28`, `2001:db8::/64`).
    ///
    /// # Errors
    /// [`BalancersError`] with the first text that is neither. A network of everybody is refused, too: then anybody
    /// could claim any address.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, BalancersError> {
        let one = |text: &str| {
            let (address, prefix) = match text.split_once('/') {
                Some((address, prefix)) => (address, Some(prefix.parse::<u8>().ok()?)),
                None => (text, None),
            };
            let address: IpAddr = address.trim().parse().ok()?;
            let most = if address.is_ipv4() { 32 } else { 128 };
            let prefix = prefix.unwrap_or(most);
            (1..=most).contains(&prefix).then_some((address, prefix))
        };
        let all = texts
            .into_iter()
            .map(|text| one(text).ok_or_else(|| BalancersError { text: text.chars().take(80).collect() }));
        Ok(Balancers(all.collect::<Result<_, _>>()?))
    }

    /// Whether a connection from there begins with the line.
    pub fn contains(&self, from: IpAddr) -> bool {
        let from = from.to_canonical();
        self.0.iter().any(|(address, prefix)| match (address.to_canonical(), from) {
            (IpAddr::V4(network), IpAddr::V4(from)) => {
                (u32::from(network) ^ u32::from(from)).checked_shr(32 - u32::from(*prefix)).unwrap_or(0) == 0
            }
            (IpAddr::V6(network), IpAddr::V6(from)) => {
                (u128::from(network) ^ u128::from(from)).checked_shr(128 - u32::from(*prefix)).unwrap_or(0)
                    == 0
            }
            _ => false,
        })
    }
}

/// Why no client can be told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProxiedError {
    /// The connection broke.
    #[error("the connection broke before the line was whole")]
    Broken(#[source] std::io::Error),
    /// It is no such line.
    #[error("the connection does not begin with a line of the PROXY protocol, version 1")]
    NoLine,
}

/// Reads the line, and nothing behind it. `None`: the balancer speaks for itself (its health checks) or does not know.
pub(crate) async fn client_of(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<Option<SocketAddr>, ProxiedError> {
    let mut line = Vec::with_capacity(LINE_LIMIT_BYTES);
    while !line.ends_with(b"\r\n") {
        if line.len() == LINE_LIMIT_BYTES {
            return Err(ProxiedError::NoLine);
        }
        line.push(stream.read_u8().await.map_err(ProxiedError::Broken)?);
    }
    let text = std::str::from_utf8(&line[..line.len() - 2]).map_err(|_| ProxiedError::NoLine)?;
    read(text).ok_or(ProxiedError::NoLine)
}

fn read(line: &str) -> Option<Option<SocketAddr>> {
    let mut words = line.split(' ');
    let family = words.next().filter(|word| *word == "PROXY").and_then(|_| words.next())?;
    if family == "UNKNOWN" {
        return Some(None);
    }
    let client: IpAddr = words.next()?.parse().ok()?;
    let _balancer: IpAddr = words.next()?.parse().ok()?;
    let port: u16 = words.next()?.parse().ok()?;
    let _its_port: u16 = words.next()?.parse().ok()?;
    let fits = matches!((family, client), ("TCP4", IpAddr::V4(_)) | ("TCP6", IpAddr::V6(_)));
    (fits && words.next().is_none()).then(|| Some(SocketAddr::new(client, port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn of(bytes: &str) -> (Option<Option<String>>, String) {
        let mut stream = bytes.as_bytes();
        let client = client_of(&mut stream).await.ok().map(|client| client.map(|client| client.to_string()));
        (client, String::from_utf8(stream.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn the_line_is_read_and_nothing_behind_it() {
        let (client, rest) = of("PROXY TCP4 192.0.2.7 10.0.0.1 56324 443\r\nGET / HTTP/1.1\r\n").await;
        assert_eq!(client, Some(Some("192.0.2.7:56324".into())));
        assert_eq!(rest, "GET / HTTP/1.1\r\n");
        let (client, _) = of("PROXY TCP6 2001:db8::1 2001:db8::2 4000 443\r\n").await;
        assert_eq!(client, Some(Some("[2001:db8::1]:4000".into())));
        assert_eq!(of("PROXY UNKNOWN\r\n").await.0, Some(None));
        assert_eq!(of("PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n").await.0, Some(None));
    }

    #[test]
    fn only_configured_balancers_are_believed() {
        let balancers = Balancers::parse(["10.0.0.5", "192.0.2.0/28", "2001:db8::/64"]).unwrap();
        let is = |text: &str| balancers.contains(text.parse().unwrap());
        assert!(is("10.0.0.5") && is("192.0.2.15") && is("2001:db8::7") && is("::ffff:10.0.0.5"));
        assert!(!is("10.0.0.6") && !is("192.0.2.16") && !is("2001:db8:0:1::7") && !is("::1"));
        assert!(!Balancers::default().contains("127.0.0.1".parse().unwrap()), "nobody by default");
        for text in ["", "x", "10.0.0.0/33", "10.0.0.0/0", "::/0", "10.0.0.0/x"] {
            assert!(Balancers::parse([text]).is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn anything_else_is_refused() {
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(200));
        for line in [
            "GET / HTTP/1.1\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 56324\r\n",
            "PROXY TCP4 2001:db8::1 10.0.0.1 1 2\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 99999 443\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 1 2 3\r\n",
            "PROXY\r\n",
            "PROXY TCP4 192.0.2.7",
            &long,
        ] {
            assert_eq!(of(line).await.0, None, "{line}");
        }
    }
}
