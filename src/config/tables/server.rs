//! `[server]`: listeners, bounds and trust.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use crate::config::address::{Listen, Network};
use crate::config::checker::{Checker, is_variable_name, secret};
use crate::config::secret::Secret;
use crate::config::units::{At, DurationText, OneOrMany, SizeText, Table, Written};
use crate::config::view::Shown;

pub const LISTEN: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8080));
pub const ADMIN: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9090));
/// The environment variable with the admin address's token.
pub const ADMIN_TOKEN_ENV: &str = "STREAMGAUGE_ADMIN_TOKEN";
/// Bytes.
const MAX_BODY: u64 = 32 << 20;
/// Bytes.
const MAX_UPLOAD: u64 = 1 << 30;
/// Bytes.
const MAX_BUFFERED: u64 = 1 << 30;
const MAX_CONNECTIONS: u32 = 10_000;
const MAX_STREAMS: u32 = 10_000;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10 * 60);
const DRAIN_WEBSOCKETS: Duration = Duration::from_secs(30);
/// Whoever may use a port of this machine may use the socket.
const SOCKET_MODE: u32 = 0o666;
const ADDRESS_SHARE: f64 = 0.5;
/// Bytes a second.
const MIN_BODY_RATE: u64 = 128;

/// Listeners, bounds and trust.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerTable {
    /// Where clients connect, HTTP/1.1 and HTTP/2 on one port: `"127.0.0.1:8080"`, `"[::]:8080"`, `"unix:/path"`, or a list.
    #[schemars(extend("default" = "127.0.0.1:8080"))]
    pub listen: Option<At<OneOrMany<String>>>,
    /// Where metrics, health, the live view and the admin API are served.
    #[schemars(extend("default" = "127.0.0.1:9090"))]
    pub admin: Option<At<String>>,
    /// The environment variable with the token that the admin address asks for off loopback.
    #[schemars(extend("default" = "STREAMGAUGE_ADMIN_TOKEN"))]
    pub admin_token_env: Option<At<String>>,
    /// Largest buffered (JSON) request body.
    #[schemars(extend("default" = "32MiB"))]
    pub max_body: Option<At<SizeText>>,
    /// Largest streamed request body.
    #[schemars(extend("default" = "1GiB"))]
    pub max_upload: Option<At<SizeText>>,
    /// All buffered request bodies together.
    #[schemars(extend("default" = "1GiB"))]
    pub max_buffered: Option<At<SizeText>>,
    /// Client connections at one time.
    #[schemars(extend("default" = 10_000))]
    pub max_connections: Option<At<u32>>,
    /// Requests at one time.
    #[schemars(extend("default" = 10_000))]
    pub max_streams: Option<At<u32>>,
    /// Total time for a request's head.
    #[schemars(extend("default" = "10s"))]
    pub header_timeout: Option<At<DurationText>>,
    /// Longest time without a byte of a request's body.
    #[schemars(extend("default" = "60s"))]
    pub body_timeout: Option<At<DurationText>>,
    /// Longest time in which a client takes no byte of an answer.
    #[schemars(extend("default" = "60s"))]
    pub write_timeout: Option<At<DurationText>>,
    /// How long requests may go on after a signal to end.
    #[schemars(extend("default" = "10m"))]
    pub drain_timeout: Option<At<DurationText>>,
    /// How long WebSockets may go on after a signal to end.
    #[schemars(extend("default" = "30s"))]
    pub drain_websockets: Option<At<DurationText>>,
    /// Addresses and networks ("10.0.0.0/8") that may set x-user-id, x-forwarded-*, traceparent and baggage. Not even
    /// loopback by default: a Next.js server passes a browser's headers on.
    #[serde(default)]
    pub trusted_proxies: Vec<At<String>>,
    /// When an incoming traceparent becomes the parent of our trace.
    #[schemars(extend("default" = "trusted"))]
    pub continue_traces: Option<At<ContinueTraces>>,
    /// Serve TLS, HTTP/2 included, in place of clear text.
    pub tls: Option<Table<TlsTable>>,
    /// Where state outlives a restart. Absent: $XDG_STATE_HOME/streamgauge, or ~/.local/state/streamgauge.
    pub state_dir: Option<At<String>>,
    /// Who may connect to the unix sockets of `listen`, as the mode of a file. That of `admin` is always 0600.
    #[schemars(extend("default" = "0666"))]
    pub socket_mode: Option<At<String>>,
    /// The share of `max_connections` and of `max_streams` that one client address may take (IPv6 by /64). Trusted
    /// proxies are not bound; 1 binds nobody.
    #[schemars(extend("default" = 0.5))]
    pub address_share: Option<At<f64>>,
    /// The bytes a second that a request's body must come with, after its first 10 s; 0: no bound.
    #[schemars(extend("default" = "128"))]
    pub min_body_rate: Option<At<SizeText>>,
}

/// PEM files. Paths are relative to the configuration file.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsTable {
    /// The certificate and its chain.
    #[schemars(required)]
    pub cert: Option<At<String>>,
    #[schemars(required)]
    pub key: Option<At<String>>,
}

/// `[server]`: listeners, bounds and trust.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Server {
    /// Never empty.
    pub listen: Vec<Listen>,
    pub admin: Listen,
    /// The token that the admin address asks for off loopback.
    pub admin_token: Option<Secret>,
    /// Largest buffered (JSON) request body, in bytes.
    pub max_body: u64,
    /// Largest streamed request body, in bytes.
    pub max_upload: u64,
    /// All buffered request bodies together, in bytes; room for one at least.
    pub max_buffered: u64,
    pub max_connections: usize,
    pub max_streams: usize,
    /// Total time for a request head.
    #[serde(serialize_with = "Shown::shown")]
    pub header_timeout: Duration,
    /// Longest time without a byte of a request body.
    #[serde(serialize_with = "Shown::shown")]
    pub body_timeout: Duration,
    /// Longest time in which a client takes no byte of an answer.
    #[serde(serialize_with = "Shown::shown")]
    pub write_timeout: Duration,
    #[serde(serialize_with = "Shown::shown")]
    pub drain_timeout: Duration,
    #[serde(serialize_with = "Shown::shown")]
    pub drain_websockets: Duration,
    /// Who may set `x-user-id`, `x-forwarded-*`, `traceparent` and `baggage`.
    pub trusted_proxies: Vec<Network>,
    pub continue_traces: ContinueTraces,
    pub tls: Option<Tls>,
    pub state_dir: PathBuf,
    /// The file mode of the unix sockets that clients connect to.
    #[serde(serialize_with = "file_mode")]
    pub socket_mode: u32,
    /// The share of all connections, and of all requests, that one client address may take; over 0 to 1.
    pub address_share: f64,
    /// Bytes a second of a request's body; 0: no bound.
    pub min_body_rate: u64,
}

impl Server {
    /// How many of `all` places one client address may take; one at least.
    #[must_use]
    pub fn share_of_address(&self, all: usize) -> usize {
        ((all as f64 * self.address_share).ceil() as usize).max(1)
    }
}

/// When an incoming `traceparent` becomes the parent of our trace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum ContinueTraces {
    /// From trusted peers; others are linked.
    #[default]
    Trusted,
    Always,
    /// Never, only linked.
    Link,
}

/// Certificate chain and key, as PEM files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tls {
    pub cert: PathBuf,
    pub key: PathBuf,
}

fn file_mode<S: Serializer>(mode: &u32, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&format_args!("{mode:04o}"))
}

impl Checker<'_> {
    pub fn server(&mut self, table: Option<&Table<ServerTable>>) -> Server {
        let nothing = ServerTable::default();
        let file = table.map_or(&nothing, |table| &table.value);
        let listen = self.listeners(file.listen.as_ref());
        let admin = self.admin(file.admin.as_ref(), &listen);
        let trusted_proxies = file.trusted_proxies.iter().filter_map(|at| self.checked(&at.span, at.value.parse()));
        let trusted_proxies = trusted_proxies.collect();
        let server = Server {
            listen,
            admin,
            admin_token: self.admin_token(file.admin_token_env.as_ref()),
            max_body: self.size("max_body", file.max_body.as_ref(), MAX_BODY),
            max_upload: self.size("max_upload", file.max_upload.as_ref(), MAX_UPLOAD),
            max_buffered: self.max_buffered(file),
            max_connections: self.count("max_connections", file.max_connections.as_ref(), MAX_CONNECTIONS),
            max_streams: self.count("max_streams", file.max_streams.as_ref(), MAX_STREAMS),
            header_timeout: self.positive("header_timeout", file.header_timeout.as_ref(), HEADER_TIMEOUT),
            body_timeout: self.positive("body_timeout", file.body_timeout.as_ref(), BODY_TIMEOUT),
            write_timeout: self.positive("write_timeout", file.write_timeout.as_ref(), WRITE_TIMEOUT),
            drain_timeout: self.duration(file.drain_timeout.as_ref(), DRAIN_TIMEOUT),
            drain_websockets: self.duration(file.drain_websockets.as_ref(), DRAIN_WEBSOCKETS),
            trusted_proxies,
            continue_traces: file.continue_traces.value_or_default(),
            tls: file.tls.as_ref().and_then(|tls| self.tls(tls)),
            state_dir: match &file.state_dir {
                Some(at) => self.path(&at.value),
                None => state_dir(self.env),
            },
            socket_mode: file.socket_mode.as_ref().map_or(SOCKET_MODE, |at| self.socket_mode(at)),
            address_share: self.address_share(file.address_share.as_ref()),
            min_body_rate: file.min_body_rate.as_ref().map_or(MIN_BODY_RATE, |at| at.value.0),
        };
        self.admin_guarded(file, &server);
        server
    }

    fn listeners(&mut self, written: Option<&At<OneOrMany<String>>>) -> Vec<Listen> {
        let Some(at) = written else {
            return vec![Listen::Tcp(LISTEN)];
        };
        let single;
        let texts = match &at.value {
            OneOrMany::Many(texts) => texts.as_slice(),
            OneOrMany::One(text) => {
                single = [At { value: text.clone(), span: at.span.clone() }];
                single.as_slice()
            }
        };
        if texts.is_empty() {
            self.problem(&at.span, format!("`listen` is empty: leave it out for {}", LISTEN));
        }
        let mut listeners: Vec<Listen> = Vec::new();
        for text in texts {
            let Some(listen) = self.checked(&text.span, text.value.parse()) else { continue };
            if takes_same_place(&listeners, &listen) {
                self.problem(&text.span, format!("{listen} is listed twice"));
            }
            listeners.push(listen);
        }
        listeners
    }

    fn admin(&mut self, written: Option<&At<String>>, listeners: &[Listen]) -> Listen {
        let default = Listen::Tcp(ADMIN);
        let Some(at) = written else { return default };
        let Some(admin) = self.checked(&at.span, at.value.parse()) else { return default };
        if takes_same_place(listeners, &admin) {
            self.problem(&at.span, format!("`admin` cannot share {admin} with `listen`: take another port"));
        }
        admin
    }

    fn admin_token(&mut self, variable: Option<&At<String>>) -> Option<Secret> {
        let name = variable.map_or(ADMIN_TOKEN_ENV, |at| at.value.as_str());
        let span = variable.map_or(0..0, |at| at.span.clone());
        if !is_variable_name(name) {
            self.problem(&span, "this must be the name of an environment variable, as \"STREAMGAUGE_ADMIN_TOKEN\"");
            return None;
        }
        let token = (self.env)(name)?;
        self.checked(&span, secret(&token).map_err(|wrong| format!("the admin token's environment variable {wrong}")))
    }

    /// Off loopback the admin address needs a token; where the variable itself was refused, that was said already.
    fn admin_guarded(&mut self, file: &ServerTable, server: &Server) {
        let span = file.admin.as_ref().map_or(0..0, |at| at.span.clone());
        let Some(message) = admin_problem(server) else { return };
        match &file.admin_token_env {
            _ if server.admin_token.is_some() => self.problem(&span, message),
            None => self.problem(&span, message),
            Some(at) if is_variable_name(&at.value) && (self.env)(&at.value).is_none() => {
                let message = "this environment variable is not set, and the admin address can be reached from other \
                               machines: set it, or listen on loopback";
                self.problem(&at.span, message);
            }
            Some(_) => {}
        }
    }

    fn socket_mode(&mut self, at: &At<String>) -> u32 {
        let digits = at.value.len() == 4 && at.value.starts_with('0');
        match u32::from_str_radix(&at.value, 8) {
            Ok(mode) if digits && mode & 0o600 == 0o600 && mode & !0o666 == 0 => mode,
            _ => {
                self.problem(&at.span, "`socket_mode`: write who may connect as \"0600\", \"0660\" or \"0666\"");
                SOCKET_MODE
            }
        }
    }

    fn address_share(&mut self, written: Option<&At<f64>>) -> f64 {
        let message = "`address_share`: a share is more than 0 and at most 1, which binds nobody";
        self.fitting(written, |share| share > 0.0 && share <= 1.0, message).unwrap_or(ADDRESS_SHARE)
    }

    fn tls(&mut self, table: &Table<TlsTable>) -> Option<Tls> {
        let (Some(cert), Some(key)) = (&table.value.cert, &table.value.key) else {
            self.problem(&table.span, "`tls` needs both: { cert = \"cert.pem\", key = \"key.pem\" }");
            return None;
        };
        Some(Tls { cert: self.pem(cert, "CERTIFICATE"), key: self.pem(key, "PRIVATE KEY") })
    }

    /// Where it is not written it grows with `max_body`.
    fn max_buffered(&mut self, file: &ServerTable) -> u64 {
        let body = file.max_body.as_ref().map_or(MAX_BODY, |at| at.value.0);
        let all = self.size("max_buffered", file.max_buffered.as_ref(), MAX_BUFFERED.max(body));
        if let Some(at) = file.max_buffered.as_ref().filter(|_| (1..body).contains(&all)) {
            self.problem(&at.span, "`max_buffered` is smaller than `max_body`: no body of that size could come in");
        }
        all
    }

    fn size(&mut self, key: &str, written: Option<&At<SizeText>>, default: u64) -> u64 {
        let message = format!("`{key}`: zero would let no body pass");
        self.fitting(written, |size| size.0 > 0, message).map_or(default, |size| size.0)
    }

    fn count(&mut self, key: &str, written: Option<&At<u32>>, default: u32) -> usize {
        let message = format!("`{key}`: zero would let nobody in");
        let count = self.fitting(written, |count| count > 0, message).unwrap_or(default);
        usize::try_from(count).unwrap_or(usize::MAX)
    }
}

/// Whether a listener is there already. Port 0 is a new port each time.
fn takes_same_place(listeners: &[Listen], new: &Listen) -> bool {
    let is_any_port = matches!(new, Listen::Tcp(address) if address.port() == 0);
    !is_any_port && listeners.contains(new)
}

/// What is wrong with the admin address and its token; `None`: nothing. To be asked again where the command line
/// overrides the address.
pub fn admin_problem(server: &Server) -> Option<String> {
    /// What nobody guesses over the network: 16 characters of `openssl rand -hex 16` are 64 bits.
    const TOKEN_MIN: usize = 16;
    if server.admin.is_local() {
        return None;
    }
    if let Some(token) = &server.admin_token {
        let length = token.expose().len();
        return (length < TOKEN_MIN).then(|| {
            format!(
                "the admin address {} can be reached from other machines, and its token has {length} characters: take at \
                 least {TOKEN_MIN}, as `openssl rand -hex 16` makes them",
                server.admin,
            )
        });
    }
    let port = match &server.admin {
        Listen::Tcp(address) => address.port(),
        Listen::Unix(_) => 0,
    };
    Some(format!(
        "the admin address {} can be reached from other machines, so it needs a token: set the environment variable \
         {}, or listen on 127.0.0.1:{port}",
        server.admin, ADMIN_TOKEN_ENV,
    ))
}

/// The user's state directory, by the XDG rules: a relative `XDG_STATE_HOME` is no answer. A process without a home
/// gets the system's place for state.
fn state_dir(env: &dyn Fn(&str) -> Option<String>) -> PathBuf {
    let absolute = |name: &str| env(name).map(PathBuf::from).filter(|path| path.is_absolute());
    if let Some(state_home) = absolute("XDG_STATE_HOME") {
        return state_home.join("streamgauge");
    }
    match absolute("HOME") {
        Some(home) => home.join(".local/state/streamgauge"),
        None => PathBuf::from("/var/lib/streamgauge"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_follows_the_xdg_rules() {
        let dir = |xdg: Option<&str>, home: Option<&str>| {
            let env = |name: &str| if name == "HOME" { home } else { xdg }.map(str::to_owned);
            state_dir(&env).display().to_string()
        };
        assert_eq!(dir(Some("/state"), Some("/home/a")), "/state/streamgauge");
        assert_eq!(dir(None, Some("/home/a")), "/home/a/.local/state/streamgauge");
        assert_eq!(dir(Some("relative"), Some("/home/a")), "/home/a/.local/state/streamgauge");
        assert_eq!(dir(Some(""), None), "/var/lib/streamgauge");
    }
}
