//! `streamgauge drain`, `disable`, `enable`, and `key revoke`, `key restore`: what a person takes out of service at a running
//! proxy, and puts back.

use std::fmt::Write as _;

use serde::Deserialize;

use super::admin;
use super::admin_views::{Lever, Levers};
use crate::config::identity::{KEY_PREFIX, KeyHash};
use crate::config::settings::Route;
use crate::policy::levers::Command;

#[derive(clap::Args)]
pub(super) struct Options {
    /// An upstream, `UPSTREAM/ENDPOINT`, or with --route one of its targets. Without it, list what is out of service by hand.
    #[arg(value_name = "UPSTREAM[/ENDPOINT]")]
    what: Option<String>,
    /// The route of the target or fallback.
    #[arg(long, value_name = "ROUTE", requires = "what")]
    route: Option<String>,
    #[command(flatten)]
    to: To,
}

#[derive(clap::Args)]
pub(super) struct KeyOptions {
    /// The key's public id, or a user or team with only this key, or the key itself, of which only the id is sent.
    #[arg(value_name = "KEY")]
    key: String,
    #[command(flatten)]
    to: To,
}

#[derive(clap::Args)]
struct To {
    /// The reason; it is shown and logged.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// The proxy's admin address: `http://127.0.0.1:9090`, `127.0.0.1:9090` or `unix:/path`. Off loopback it asks for the
    /// token in STREAMGAUGE_ADMIN_TOKEN.
    #[arg(long, env = "STREAMGAUGE_ADMIN", default_value = "http://127.0.0.1:9090", value_name = "URL")]
    admin: String,
}

/// Pulls a lever, or lists those that are set; what there is to say about it.
///
/// # Errors
/// Why it was not done, and what there is to name.
pub(super) fn run(command: Command, options: &Options) -> Result<String, String> {
    match &options.what {
        Some(what) => options.to.pull(command, what, options.route.as_deref()),
        None => list(&options.to.admin),
    }
}

/// Revokes a key, or undoes that.
///
/// # Errors
/// Why it was not done.
pub(super) fn key(command: Command, options: &KeyOptions) -> Result<String, String> {
    // A key that leaked is what people have at hand; its id is all that anybody needs to hear of.
    let id = options.key.starts_with(KEY_PREFIX).then(|| KeyHash::of(options.key.trim()).id());
    options.to.pull(command, id.as_deref().unwrap_or(&options.key), None)
}

impl To {
    fn pull(&self, command: Command, what: &str, route: Option<&str>) -> Result<String, String> {
        #[derive(Deserialize)]
        struct Told {
            words: String,
        }
        let mut path = format!("/api/levers/{}?what={}", command.as_str(), admin::encoded(what));
        for (key, value) in [("route", route), ("reason", self.reason.as_deref())] {
            if let Some(value) = value {
                // A String takes everything.
                let _ = write!(path, "&{key}={}", admin::encoded(value));
            }
        }
        let told: Told = admin::read(&admin::asked(&self.admin, "POST", &path)?)?;
        Ok(format!("{}\n", told.words))
    }
}

/// A sentence without its end.
fn words(lever: &Lever) -> String {
    let reason = lever.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
    format!("{} is {} since {}, by {}{reason}", lever.words, lever.setting, lever.since, lever.by)
}

/// What is out of service by hand at the proxy at `admin`, of what this route names; nothing where no proxy answers.
pub(super) fn of_route(admin: &str, route: &Route) -> Vec<String> {
    let Ok(list) = asked(admin) else { return Vec::new() };
    let places = || route.targets.iter().chain(&route.fallback);
    let is_about = |set: &&Lever| {
        set.route.as_deref() == Some(&*route.name)
            || places().any(|target| set.upstream.as_deref() == Some(&*target.upstream.name))
    };
    let mut lines: Vec<String> = list.levers.iter().filter(is_about).map(words).collect();
    if !lines.is_empty() && list.unserved_routes.iter().any(|name| **name == *route.name) {
        lines.push("NOBODY serves this route: its clients get 503 (out_of_service)".to_owned());
    }
    lines
}

fn asked(admin: &str) -> Result<Levers, String> {
    admin::read(&admin::asked(admin, "GET", "/api/levers")?)
}

fn list(admin: &str) -> Result<String, String> {
    Ok(listed(&asked(admin)?))
}

fn listed(list: &Levers) -> String {
    let mut out = String::new();
    if list.levers.is_empty() {
        out.push_str("Nothing is out of service by hand. Name what should be: UPSTREAM, UPSTREAM/ENDPOINT, or TARGET --route ROUTE\n");
    }
    for lever in &list.levers {
        let _ = writeln!(out, "{}", words(lever));
    }
    for route in &list.unserved_routes {
        let _ = writeln!(out, "NOBODY serves route `{route}`: its clients get 503 (out_of_service)");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_service_is_listed_with_who_and_why() {
        let body = r#"{"levers":[{"lever":"endpoint","what":"vllm/h:1","words":"endpoint `h:1` of upstream `vllm`","setting":"drained",
            "since":"2026-11-27T03:12:44.000Z","by":"127.0.0.1","reason":"slow"},{"lever":"key","what":"0123","words":"key `0123`",
            "setting":"revoked","since":"2026-11-27T03:13:00.000Z","by":"127.0.0.1","reason":null}],"unserved_routes":["chat"]}"#;
        assert_eq!(
            listed(&admin::read::<Levers>(body).unwrap()),
            "endpoint `h:1` of upstream `vllm` is drained since 2026-11-27T03:12:44.000Z, by 127.0.0.1: slow\n\
             key `0123` is revoked since 2026-11-27T03:13:00.000Z, by 127.0.0.1\n\
             NOBODY serves route `chat`: its clients get 503 (out_of_service)\n"
        );
        let nothing = Levers::default();
        assert!(listed(&nothing).starts_with("Nothing is out of service by hand."));
    }
}
