//! What holds where the file says nothing. The schema tells the same values; a test compares the two.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::time::Duration;

use super::otlp::Signal;

pub const LISTEN: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8080));
pub const ADMIN: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9090));
/// The environment variable with the admin address's token.
pub const ADMIN_TOKEN_ENV: &str = "STREAMGAUGE_ADMIN_TOKEN";
/// Bytes.
pub const MAX_BODY: u64 = 32 << 20;
/// Bytes.
pub const MAX_UPLOAD: u64 = 1 << 30;
/// Bytes.
pub const MAX_BUFFERED: u64 = 1 << 30;
pub const MAX_CONNECTIONS: u32 = 10_000;
pub const MAX_STREAMS: u32 = 10_000;
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
pub const BODY_TIMEOUT: Duration = Duration::from_secs(60);
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10 * 60);
pub const DRAIN_WEBSOCKETS: Duration = Duration::from_secs(30);

/// Whoever may use a port of this machine may use the socket.
pub const SOCKET_MODE: u32 = 0o666;
pub const ADDRESS_SHARE: f64 = 0.5;
/// Bytes a second.
pub const MIN_BODY_RATE: u64 = 128;

pub const CORS_MAX_AGE: Duration = Duration::from_secs(3600);

pub const SERVICE_NAME: &str = "streamgauge";
pub const SIGNALS: [Signal; 1] = [Signal::Traces];
pub const SAMPLE_RATIO: f64 = 0.1;
pub const SLOW_FIRST_TOKEN: Duration = Duration::from_secs(5);
pub const SLOW_GAP: Duration = Duration::from_secs(2);

pub const ROUTE_PATH: &str = "*";
pub const WEIGHT: u32 = 1;
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// While another place can be asked.
pub const FIRST_TOKEN_TIMEOUT: Duration = Duration::from_secs(60);
/// Where nobody else could answer: reasoning models think for minutes, some of them in silence.
pub const FIRST_TOKEN_ALONE: Duration = Duration::from_secs(10 * 60);
pub const STALL_TIMEOUT: Duration = Duration::from_secs(10 * 60);
/// Until the head of an answer in one piece, while another place can be asked.
pub const WHOLE_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10 * 60);
pub const TOTAL_TIMEOUT: Duration = Duration::from_secs(60 * 60);
/// Until the answer to a WebSocket's handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(60);
/// Attempts a request may take, the first included.
pub const RETRY_ATTEMPTS: u32 = 3;
pub const RETRY_BUDGET: f64 = 0.2;
pub const HEALTH_INTERVAL: Duration = Duration::from_secs(5);
pub const PING_INTERVAL: Duration = Duration::from_secs(15);
pub const KEEPALIVE: Duration = Duration::from_secs(15);
/// A store on the same network answers within a millisecond: what takes longer is worse than counting alone.
pub const LIMITS_DEADLINE: Duration = Duration::from_millis(10);

pub const CANARY_STEPS: [u8; 5] = [1, 5, 25, 50, 100];
pub const CANARY_STEP_TIME: Duration = Duration::from_secs(10 * 60);
pub const CANARY_MIN_REQUESTS: u64 = 200;
pub const CANARY_ALPHA: f64 = 0.01;

pub const SHADOW_CONCURRENT: u32 = 10;
pub const SHADOW_TOKENS_PER_MINUTE: u64 = 100_000;

/// The user's state directory, by the XDG rules: a relative `XDG_STATE_HOME` is no answer. A process without a home
/// gets the system's place for state.
pub fn state_dir(env: &dyn Fn(&str) -> Option<String>) -> PathBuf {
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
