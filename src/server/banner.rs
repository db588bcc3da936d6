//! What a person, or a program, is told at start: where to point a frontend and where to look.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::SystemTime;

use crate::config::Settings;
use crate::config::address::Listen;
use crate::config::settings::Upstream;
use crate::telemetry::json;

/// For whom the words are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    Human,
    /// One JSON object on one line.
    Json,
}

/// Says on stdout that the listeners of `settings` are open.
pub(super) fn print(style: Style, settings: &Settings) {
    let text = match style {
        Style::Human => human(settings),
        Style::Json => json_line(settings, SystemTime::now()),
    };
    // Nobody may be reading.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

fn human(settings: &Settings) -> String {
    let server = &settings.server;
    let mut text = format!("Streamgauge {} is running.\n", env!("CARGO_PKG_VERSION"));
    let mut say = |what: &str, value: String| text.push_str(&format!("  {what:<25}{value}\n"));
    for listen in &server.listen {
        say("point your frontend at", url(listen, server.tls.is_some()));
    }
    for upstream in &settings.upstreams {
        say("requests go to", format!("{} ({})", upstream_url(upstream), upstream.name));
    }
    let admin = url(&server.admin, false);
    say("live view", format!("{admin}/"));
    say("metrics", format!("{admin}/metrics"));
    text.push_str(&format!("Ctrl-C stops it once its streams have ended, at most {:?} later.\n", server.drain_timeout));
    text
}

fn json_line(settings: &Settings, now: SystemTime) -> String {
    let mut timestamp = String::new();
    json::rfc3339(&mut timestamp, now);
    let server = &settings.server;
    let listen: Vec<String> = server.listen.iter().map(ToString::to_string).collect();
    let line = serde_json::json!({
        "timestamp": timestamp,
        "level": "info",
        "event": "started",
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        // Addresses with the ports that were picked; several are parted by commas.
        "listen": listen.join(","),
        "admin": server.admin.to_string(),
        "frontend_urls": server.listen.iter().map(|listen| url(listen, server.tls.is_some())).collect::<Vec<_>>(),
        "admin_url": url(&server.admin, false),
        "upstream_urls": settings.upstreams.iter().map(|upstream| upstream_url(upstream)).collect::<Vec<_>>(),
    });
    format!("{line}\n")
}

/// What to type to reach `listen` from this machine.
fn url(listen: &Listen, tls: bool) -> String {
    match listen {
        Listen::Unix(_) => listen.to_string(),
        Listen::Tcp(at) => format!("{}://{}", if tls { "https" } else { "http" }, reachable(*at)),
    }
}

/// "Every address" is none that can be typed: loopback is.
fn reachable(at: SocketAddr) -> SocketAddr {
    let ip = match at.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, at.port())
}

fn upstream_url(upstream: &Upstream) -> String {
    upstream.endpoints.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_is_told_as_other_lines_are() {
        let settings = crate::config::for_upstream("http://127.0.0.1:8000").unwrap();
        let line = json_line(&settings, SystemTime::UNIX_EPOCH);
        assert_eq!(line.matches('\n').count(), 1);
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["timestamp"], "1970-01-01T00:00:00.000Z");
        assert_eq!((&line["level"], &line["event"]), (&"info".into(), &"started".into()));
    }

    #[test]
    fn every_address_becomes_one_that_can_be_typed() {
        let cases = [
            ("0.0.0.0:8080", false, "http://127.0.0.1:8080"),
            ("[::]:8443", true, "https://[::1]:8443"),
            ("192.0.2.7:80", false, "http://192.0.2.7:80"),
        ];
        for (listen, tls, typed) in cases {
            assert_eq!(url(&Listen::Tcp(listen.parse().unwrap()), tls), typed);
        }
        assert_eq!(url(&Listen::Unix("/run/a.sock".into()), true), "unix:/run/a.sock");
    }
}
