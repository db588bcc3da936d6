//! Addresses as people write them: listeners, endpoints, networks. Error texts never repeat the text that they refuse,
//! since a URL may hold a password.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use super::view::serialize_as_displayed;

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// An address range in CIDR notation. IPv4-mapped IPv6 addresses match their IPv4 form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    pub address: IpAddr,
    /// Leading bits that must be equal.
    pub prefix: u8,
}

/// Where an upstream is reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    pub tls: bool,
    pub address: EndpointAddress,
    /// Joined in front of every request path: empty, or with a leading and no trailing slash.
    pub base_path: String,
    /// `host[:port]` as the `Host` header of this endpoint has it.
    pub authority: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum EndpointAddress {
    /// Resolved in the background when `host` is a name.
    Tcp {
        host: String,
        port: u16,
    },
    Unix(PathBuf),
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            EndpointAddress::Unix(path) => write!(f, "unix:{}{}", path.display(), self.base_path),
            EndpointAddress::Tcp { .. } => write!(f, "{}://{}{}", self.scheme(), self.authority, self.base_path),
        }
    }
}

serialize_as_displayed!(Listen, Network, Endpoint);

impl Endpoint {
    pub fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }

    /// What it is called: `host[:port]`, or `unix:` and the socket's path.
    pub fn name(&self) -> String {
        match &self.address {
            EndpointAddress::Tcp { .. } => self.authority.clone(),
            EndpointAddress::Unix(path) => format!("unix:{}", path.display()),
        }
    }
}

impl FromStr for Listen {
    /// The words that say how to write it.
    type Err = String;

    /// Reads `127.0.0.1:8080`, `[::]:8080` or `unix:/path`.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return unix_path(path).map(Self::Unix);
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Tcp(address));
        }
        let example = "write an IP address and a port, as \"127.0.0.1:8080\", or \"unix:/path\"";
        Err(match text.rsplit_once(':') {
            _ if text.contains("://") => format!("no scheme belongs here: {example}"),
            _ if text.parse::<IpAddr>().is_ok() => format!("the port is missing: {example} (IPv6: \"[::]:8080\")"),
            Some(("", port)) if port.parse::<u16>().is_ok() => {
                format!("the address is missing: \"0.0.0.0:{port}\" for every IPv4 address, \"[::]:{port}\" for IPv6")
            }
            Some(("localhost", port)) if port.parse::<u16>().is_ok() => {
                format!("names are not looked up here: write \"127.0.0.1:{port}\"")
            }
            _ => format!("not an address to listen on: {example}"),
        })
    }
}

impl FromStr for Network {
    /// The words that say how to write it.
    type Err = String;

    /// Reads `10.0.0.0/8`, `fd00::/8` or a single address. IPv4-mapped IPv6 networks become their IPv4 form.
    fn from_str(text: &str) -> Result<Self, String> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let written: IpAddr = address
            .parse()
            .map_err(|_| "not an address or network: write \"10.0.0.7\", \"10.0.0.0/8\" or \"fd00::/8\"".to_owned())?;
        let bits = if written.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => bits,
            Some(prefix) => prefix.parse::<u8>().ok().filter(|prefix| *prefix <= bits).ok_or_else(|| {
                format!("the number after the slash must be 0 to {bits}: how many leading bits are the network")
            })?,
        };
        let network = match (written, written.to_canonical()) {
            (IpAddr::V6(_), mapped @ IpAddr::V4(_)) if prefix >= 96 => Self { address: mapped, prefix: prefix - 96 },
            _ => Self { address: written, prefix },
        };
        let first = network.first_address();
        if first == network.address {
            return Ok(network);
        }
        Err(format!("the address has bits set past the first {}: write \"{first}/{}\"", network.prefix, network.prefix))
    }
}

impl Network {
    /// Whether an address lies in this network; an IPv4-mapped IPv6 address counts as its IPv4 form.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && Self { address, ..*self }.first_address() == self.address
    }

    /// The address with all bits past the prefix cleared.
    fn first_address(&self) -> IpAddr {
        let prefix = u32::from(self.prefix);
        match self.address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32_u32.saturating_sub(prefix)).unwrap_or(0);
                IpAddr::V4((v4.to_bits() & mask).into())
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(128_u32.saturating_sub(prefix)).unwrap_or(0);
                IpAddr::V6((v6.to_bits() & mask).into())
            }
        }
    }
}

impl FromStr for Endpoint {
    /// The words that say how to write it.
    type Err = String;

    /// Reads `http://host:port/base`, `https://host` or `unix:/path`.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let address = EndpointAddress::Unix(unix_path(path)?);
            return Ok(Self { tls: false, address, base_path: String::new(), authority: "localhost".to_owned() });
        }
        let (tls, rest) = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (false, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (true, rest),
            Some(_) => return Err("unknown scheme: write http://, https:// or unix:/path".to_owned()),
            None => return Err("the scheme is missing: write http:// or https:// in front".to_owned()),
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (host, port) = host_and_port(authority)?;
        let base_path = base_path(path)?;
        let authority = authority.to_ascii_lowercase();
        let port = port.unwrap_or(if tls { 443 } else { 80 });
        Ok(Self { tls, address: EndpointAddress::Tcp { host, port }, base_path, authority })
    }
}

/// Splits `host[:port]`. The host comes in lower case, an IPv6 address without its brackets.
///
/// # Errors
/// The words that say what is wrong.
pub fn host_and_port(authority: &str) -> Result<(String, Option<u16>), String> {
    if authority.contains('@') {
        return Err("a name and password have no place in a url: use api_key_env or api_key_file".to_owned());
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(bracketed) => {
            let (host, after) = bracketed.split_once(']').ok_or("the closing ] of the IPv6 address is missing")?;
            host.parse::<Ipv6Addr>().map_err(|_| "not an IPv6 address between [ and ]".to_owned())?;
            match after.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if after.is_empty() => (host, None),
                None => return Err("only a port may follow the IPv6 address".to_owned()),
            }
        }
        None => {
            let (host, port) = authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
            check_host_name(host)?;
            (host, port)
        }
    };
    let port = match port {
        None => None,
        Some(port) => match port.parse::<u16>() {
            Ok(number) if number > 0 && port.bytes().all(|b| b.is_ascii_digit()) => Some(number),
            _ if port.contains(':') => return Err("an IPv6 address stands in brackets: \"[::1]:8000\"".to_owned()),
            _ => return Err("the port must be a number from 1 to 65535".to_owned()),
        },
    };
    Ok((host.to_ascii_lowercase(), port))
}

fn check_host_name(host: &str) -> Result<(), String> {
    if host.is_empty() {
        return Err("the host is missing".to_owned());
    }
    if !host.is_ascii() {
        return Err("a host outside ASCII is written in its xn-- form".to_owned());
    }
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if host.len() > 253 || !host.bytes().all(legal) {
        return Err("the host may hold letters, digits, dots, hyphens and underscores alone".to_owned());
    }
    Ok(())
}

/// Checks a path that is put in front of every request's own, and takes off its last slash.
fn base_path(path: &str) -> Result<String, String> {
    if path.contains(['?', '#']) {
        return Err("a url here ends with its path: no ? or # (a request's query goes on by itself)".to_owned());
    }
    check_path(path)?;
    Ok(path.trim_end_matches('/').to_owned())
}

/// Whether a text may stand in a request's path as it is.
///
/// # Errors
/// The words that say what is wrong.
pub(super) fn check_path(path: &str) -> Result<(), String> {
    match path.chars().find(|c| !c.is_ascii_graphic()) {
        Some(' ') => Err("a path holds no space: write %20".to_owned()),
        Some(c) if c.is_control() => Err("a path holds no control characters".to_owned()),
        Some(c) => Err(format!("a path is written in ASCII: percent-encode \"{c}\"")),
        None => Ok(()),
    }
}

fn unix_path(path: &str) -> Result<PathBuf, String> {
    // `unix:///run/x` is how some write it; the path is the same.
    let path = path.strip_prefix("//").filter(|rest| rest.starts_with('/')).unwrap_or(path);
    // sockaddr_un has 108 bytes, the last of which is a NUL.
    match path.len() {
        0 => Err("the path is missing: write \"unix:/run/app.sock\"".to_owned()),
        108.. => Err("a socket's path is at most 107 bytes long".to_owned()),
        _ if path.contains('\0') => Err("a path holds no NUL".to_owned()),
        _ => Ok(PathBuf::from(path)),
    }
}

impl Listen {
    /// Whether only this machine can reach it.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(SocketAddr::V4(v4)) => v4.ip().is_loopback(),
            Self::Tcp(SocketAddr::V6(v6)) => v6.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

#[cfg(test)]
#[path = "address_tests.rs"]
mod tests;
