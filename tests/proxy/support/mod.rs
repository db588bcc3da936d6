//! What the tests are made of: the proxy as a process, fake upstreams on raw sockets, and raw clients.

pub mod backend;
mod client;
mod process;
mod redis;
mod relay;
mod upstream;
pub mod websocket;

pub use client::{Answer, Client};
pub use process::{Proxy, config};
pub use redis::Redis;
pub use relay::{Relay, Way};
pub use upstream::{Conn, Seen, Upstream};

use std::time::Duration;

/// Nothing here takes longer, unless it hangs.
pub const WATCHDOG: Duration = Duration::from_secs(20);

/// Waits for what should come; says what did not.
pub async fn soon<T>(what: &str, wait: impl Future<Output = T>) -> T {
    match tokio::time::timeout(WATCHDOG, wait).await {
        Ok(value) => value,
        Err(_) => panic!("waited {WATCHDOG:?} in vain for: {what}"),
    }
}

/// The values of a header in a head as it came, in order.
fn values<'h>(head: &'h str, name: &str) -> Vec<&'h str> {
    head.lines()
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .filter(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
        .collect()
}
