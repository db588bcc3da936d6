//! `streamgauge explain`: where a request would go, and why.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use super::admin;
use super::explain_cohort::{self, Live};
use super::explain_conditions;
use super::explain_limits::{self, Asked};
use super::explain_session;
use super::levers;
use crate::config::address::EndpointAddress;
use crate::config::identity::USER_HEADER;
use crate::config::settings::{Route, RouteKind, Settings, Target};
use crate::config::{self, defaults};
use crate::llm::RequestFacts;
use crate::policy::identity::Identity;
use crate::policy::routing::{self, Mismatch, RequestHead};

/// A request to be explained.
#[derive(clap::Args)]
pub(super) struct ExplainOptions {
    /// The config file.
    #[arg(long, env = "STREAMGAUGE_CONFIG", value_name = "FILE")]
    config: PathBuf,
    /// The path as a client sends it, with its query if it has one.
    #[arg(long, value_name = "PATH")]
    path: String,
    /// [default: POST with a body, else GET]
    #[arg(long, value_name = "METHOD")]
    method: Option<String>,
    /// A request header, as `x-tier:gold`; may be given several times.
    #[arg(long, value_name = "NAME:VALUE")]
    header: Vec<Header>,
    /// A JSON body.
    #[arg(long, value_name = "JSON")]
    body: Option<String>,
    /// Who sends it; by default the user that the header of trusted proxies names.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// The sender's team.
    #[arg(long, value_name = "NAME")]
    team: Option<String>,
    /// The proxy's admin address, for the state of the route's canary, what is out of service by hand, and the use of
    /// its limits. Off loopback it asks for the token in STREAMGAUGE_ADMIN_TOKEN.
    #[arg(long, env = "STREAMGAUGE_ADMIN", default_value = "http://127.0.0.1:9090", value_name = "URL")]
    admin: String,
}

/// A header as typed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Header {
    /// In lower case.
    name: String,
    value: String,
}

impl FromStr for Header {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once(':').ok_or("write the name, a colon and the value, as x-tier:gold")?;
        Ok(Self { name: name.trim().to_ascii_lowercase(), value: value.trim().to_owned() })
    }
}

/// What is told of the request; an `Err` says what is wrong with the file or with what was typed.
pub(super) fn explain(options: &ExplainOptions) -> Result<String, String> {
    let settings = config::load(&options.config).map_err(|problems| problems.to_string())?;
    if !options.path.starts_with('/') {
        return Err(format!("--path starts with a slash: \"/{}\"", options.path));
    }
    if let Some(body) = &options.body {
        serde_json::from_str::<serde_json::Value>(body).map_err(|error| format!("--body is not JSON: {error}"))?;
    }
    Ok(tell(&settings, options))
}

fn tell(settings: &Settings, options: &ExplainOptions) -> String {
    let default = if options.body.is_some() { "POST" } else { "GET" };
    let method = options.method.as_deref().unwrap_or(default).to_ascii_uppercase();
    let facts = RequestFacts::read(&options.path, options.body.as_deref().map(str::as_bytes));
    let header =
        |name: &str| options.header.iter().find(|header| header.name == name).map(|header| header.value.as_str());
    let user_header = settings.identity.as_ref().map_or(USER_HEADER, |rules| &rules.user_header);
    let (body, user) = (options.body.as_deref(), options.user.as_deref().or_else(|| header(user_header)));
    let identity = Identity { user: user.map(Arc::from), team: options.team.as_deref().map(Arc::from), key: None };
    let head = RequestHead {
        method: &method,
        path: options.path.split('?').next().unwrap_or_default(),
        header: &header,
        identity: &identity,
        model: facts.model.as_deref(),
        body: explain_conditions::look_into(&facts, body),
    };
    let mut out = String::new();
    // Writing to a text cannot fail.
    let _ = writeln!(out, "{method} {}{}", options.path, kind(&facts));
    for route in &settings.routes {
        match routing::mismatch(route, &head) {
            Some(why) => {
                let _ = writeln!(out, "\nroute \"{}\" does not match: {}", route.name, words(&why, &head));
            }
            None => {
                let live = explain_cohort::ask(&options.admin, route);
                let _ = writeln!(out, "\nroute \"{}\" matches (path \"{}\")", route.name, route.path.0.source);
                explain_conditions::tell(&mut out, route, &head);
                describe(&mut out, settings, route, &options.path, &header, &live);
                let session = explain_session::Request { head: &head, facts: &facts, body };
                let live = |path: &str| admin::asked(&options.admin, "GET", path).ok();
                explain_session::tell(&mut out, route, &session, &live);
                for (at, line) in levers::of_route(&options.admin, route).iter().enumerate() {
                    let _ = writeln!(out, "  {:<9} {line}", if at == 0 { "by hand" } else { "" });
                }
                let asked = Asked { method: &method, facts: &facts, body, user };
                let standing = |holder: &str| explain_limits::ask(&options.admin, holder);
                explain_limits::tell(&mut out, settings, route, &asked, &standing);
                return out;
            }
        }
    }
    let _ = writeln!(out, "\nNo route matches: the client gets 404.");
    out
}

fn kind(facts: &RequestFacts) -> String {
    let model = facts.model.as_ref().map_or_else(|| "no model".to_owned(), |model| format!("model \"{model}\""));
    match facts.dialect {
        Some(dialect) => format!("  (an LLM request: {}, {model})", dialect.as_str()),
        None => "  (not an LLM request)".to_owned(),
    }
}

fn words(why: &Mismatch<'_>, head: &RequestHead<'_>) -> String {
    match why {
        Mismatch::Path(pattern) => format!("its path is \"{pattern}\""),
        Mismatch::Method(methods) => format!("it takes {} only", methods.join(", ")),
        Mismatch::Header { name, wanted } => match (head.header)(name) {
            Some(value) => format!("its header {name} is \"{wanted}\", and the request says \"{value}\""),
            None => format!("its header {name} is \"{wanted}\", and the request has none"),
        },
        Mismatch::Model(globs) => {
            let wanted: Vec<&str> = globs.iter().map(|glob| glob.source.as_str()).collect();
            match head.model {
                Some(model) => format!("its models are {}, and the request asks for \"{model}\"", wanted.join(", ")),
                None => format!("its models are {}, and the request names none (give --body)", wanted.join(", ")),
            }
        }
        Mismatch::PromptTokens(_) | Mismatch::Contents { .. } | Mismatch::Stream { .. } => {
            explain_conditions::of_body(why, head)
        }
        Mismatch::User(globs) => explain_conditions::of_sender("users", globs, head.identity.user.as_deref()),
        Mismatch::Team(globs) => explain_conditions::of_sender("teams", globs, head.identity.team.as_deref()),
    }
}

fn describe<'h>(
    out: &mut String,
    settings: &Settings,
    route: &Route,
    path: &str,
    header: &dyn Fn(&str) -> Option<&'h str>,
    live: &Live,
) {
    for (target, share) in explain_cohort::shares(route, live) {
        let share = share * 100.0;
        let _ =
            writeln!(out, "  target    \"{}\", {share:.1} % of requests: {}", target.name, place(route, target, path));
    }
    explain_cohort::tell(out, settings, route, header, time, live);
    for (at, target) in route.fallback.iter().enumerate() {
        let _ = writeln!(out, "  fallback  {}. \"{}\": {}", at + 1, target.name, place(route, target, path));
    }
    let retries = &route.retries;
    let _ = writeln!(
        out,
        "  failover  {}, at most {} attempts, budget {:.0} % of active requests",
        route.failover,
        retries.attempts,
        retries.budget * 100.0
    );
    if let Some(shadow) = &route.shadow {
        let _ = writeln!(
            out,
            "  shadow    \"{}\", copies of {} % of its LLM requests, at most {} at one time and {} tokens a minute: {}",
            shadow.target.name,
            shadow.share * 100.0,
            shadow.concurrent,
            shadow.tokens_per_minute,
            place(route, &shadow.target, path)
        );
    }
    if let Some(after) = route.hedge_after {
        let _ = writeln!(out, "  hedging   after {}", time(after));
    }
    let times = &route.timeouts;
    let _ = writeln!(
        out,
        "  timeouts  connect {}, first token {}, stall {}, total {}",
        time(times.connect),
        times.first_token.map_or_else(|| "60s (10m where no other place is left)".to_owned(), time),
        time(times.stall.unwrap_or(defaults::STALL_TIMEOUT)),
        time(times.total.unwrap_or(defaults::TOTAL_TIMEOUT))
    );
    if route.kind != RouteKind::Auto {
        let _ = writeln!(out, "  kind      {}", route.kind);
    }
    if !route.keepalive.is_zero() {
        let before = if route.keepalive_before_headers { ", also before the upstream answered" } else { "" };
        let _ = writeln!(out, "  comments  after {} of silence{before}", time(route.keepalive));
    }
}

/// Where a target's requests go.
fn place(route: &Route, target: &Target, path: &str) -> String {
    let urls: Vec<String> = target
        .upstream
        .endpoints
        .iter()
        .map(|endpoint| {
            let path = routing::upstream_path(route, target, &endpoint.base_path, path);
            match endpoint.address {
                EndpointAddress::Tcp { .. } => format!("{}://{}{path}", endpoint.scheme(), endpoint.authority),
                EndpointAddress::Unix(_) => format!("{} {path}", endpoint.name()),
            }
        })
        .collect();
    let model = target.model.as_ref().map_or_else(String::new, |model| format!(", as model \"{model}\""));
    format!("{}{model}", urls.join(" or "))
}

fn time(duration: Duration) -> String {
    match duration.as_secs() {
        seconds if duration.subsec_nanos() == 0 && seconds % 60 == 0 && seconds > 60 => format!("{}m", seconds / 60),
        _ => format!("{duration:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"
[[upstream]]
name = "big"
urls = ["http://h1:8000", "http://h2:8000/base"]
[[upstream]]
name = "small"
url = "https://api.example.com"
[[route]]
name = "gold"
path = "/v1/*"
headers = { x-tier = "gold" }
upstream = "big"
[[route]]
name = "models"
path = "/v1/*"
models = ["gpt-4o*"]
methods = ["POST"]
targets = [{ upstream = "big", weight = 3 }, { name = "next", upstream = "big", weight = 1, path = "/v2", model = "m2" }]
fallback = [{ upstream = "small", model = "mini" }]
hedge_after = "250ms"
shadow = { upstream = "small", percent = 0.5, model = "m3" }
[[route]]
name = "rest"
path = "/v1/*"
upstream = "small"
"#;

    fn told(options: &[&str]) -> Result<String, String> {
        told_of(CONFIG, options)
    }

    fn told_of(config: &str, options: &[&str]) -> Result<String, String> {
        #[derive(clap::Parser)]
        struct Typed {
            #[command(flatten)]
            options: ExplainOptions,
        }
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("c.toml");
        std::fs::write(&file, config).unwrap();
        let typed = ["explain", "--config", file.to_str().unwrap()].into_iter().chain(options.iter().copied());
        let typed = <Typed as clap::Parser>::try_parse_from(typed).map_err(|error| error.to_string())?;
        explain(&typed.options)
    }

    #[test]
    fn it_tells_where_a_request_goes_and_why() {
        let body = r#"{"model":"gpt-4o-mini","messages":[]}"#;
        let text = told(&["--path", "/v1/chat/completions?x=1", "--body", body]).unwrap();
        assert_eq!(
            text,
            r#"POST /v1/chat/completions?x=1  (an LLM request: openai-chat, model "gpt-4o-mini")

route "gold" does not match: its header x-tier is "gold", and the request has none

route "models" matches (path "/v1/*")
  target    "big", 75.0 % of requests: http://h1:8000/v1/chat/completions?x=1 or http://h2:8000/base/v1/chat/completions?x=1
  target    "next", 25.0 % of requests: http://h1:8000/v2/chat/completions?x=1 or http://h2:8000/base/v2/chat/completions?x=1, as model "m2"
  cohort    a user (else an address) stays with its target
  fallback  1. "small": https://api.example.com/v1/chat/completions?x=1, as model "mini"
  failover  llm, at most 3 attempts, budget 20 % of active requests
  shadow    "small", copies of 0.5 % of its LLM requests, at most 10 at one time and 100000 tokens a minute: https://api.example.com/v1/chat/completions?x=1, as model "m3"
  hedging   after 250ms
  timeouts  connect 2s, first token 60s (10m where no other place is left), stall 10m, total 60m
  comments  after 15s of silence
  limits    none
"#
        );
    }

    #[test]
    fn it_tells_why_routes_do_not_match() {
        let text = told(&["--path", "/v1/x", "--header", "X-Tier: silver"]).unwrap();
        assert!(text.contains("its header x-tier is \"gold\", and the request says \"silver\""), "{text}");
        assert!(text.contains("route \"models\" does not match: it takes POST only"), "{text}");
        assert!(text.contains("route \"rest\" matches"), "{text}");
        let text = told(&["--path", "/v1/x", "--method", "post"]).unwrap();
        assert!(text.contains("its models are gpt-4o*, and the request names none (give --body)"), "{text}");
        let text = told(&["--path", "/v2"]).unwrap();
        assert!(
            text.contains("its path is \"/v1/*\"") && text.ends_with("No route matches: the client gets 404.\n"),
            "{text}"
        );
        let gold = told(&["--path", "/v1/x", "--header", "x-tier:gold"]).unwrap();
        assert!(gold.contains("route \"gold\" matches"), "{gold}");
    }

    #[test]
    fn it_tells_which_condition_holds_and_which_failed_and_why() {
        const CONDITIONS: &str = r#"
[server]
trusted_proxies = ["127.0.0.1"]
[[upstream]]
url = "http://h"
[[identity.key]]
team = "t"
hash = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
[[route]]
name = "batch"
users = ["batch-*"]
teams = ["t"]
[[route]]
name = "small"
prompt_tokens = "<20"
tools = false
stream = true
[[route]]
name = "pictures"
images = true
[[route]]
name = "rest"
"#;
        let told = |options: &[&str]| {
            let all: Vec<&str> =
                ["--path", "/v1/chat/completions"].into_iter().chain(options.iter().copied()).collect();
            told_of(CONDITIONS, &all).unwrap()
        };
        let hello = r#"{"model":"gpt-4o","stream":true,"messages":[{"role":"user","content":"hello"}]}"#;
        let text = told(&["--body", hello]);
        for words in [
            "route \"batch\" does not match: its users are batch-*, and it is not known from whom the request is (give --user)",
            "route \"small\" matches (path \"*\")\n  because   prompt_tokens <20: the prompt has 7 tokens (counted)\n            tools = false: \
             the request has no tools\n            stream = true: the request asks for a stream\n",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
        let text = told(&["--body", hello, "--user", "batch-1", "--team", "other"]);
        assert!(text.contains("its teams are t, and the request is from \"other\""), "{text}");
        let text = told(&["--body", hello, "--header", "x-user-id: batch-1", "--team", "t"]);
        assert!(
            text.contains("because   users batch-*: it is \"batch-1\"\n            teams t: it is \"t\"\n"),
            "{text}"
        );
        let text = told(&["--body", &hello.replace("\"hello\"", r#"[{"type":"image_url","image_url":{"url":"x"}}]"#)]);
        let size = "its prompt_tokens are <20, and the prompt has 771 tokens (estimated: too long to count, of an unknown format, or with media)";
        assert!(text.contains(size) && text.contains("images = true: the request has images"), "{text}");
        let text = told(&["--body", &hello.replace("\"stream\":true", "\"tools\":[{\"type\":\"function\"}]")]);
        assert!(text.contains("it has tools = false, and the request has tools"), "{text}");
        assert!(text.contains("it has images = true, and the request has no images"), "{text}");
        let text = told(&["--body", &hello.replace("true", "false")]);
        assert!(text.contains("it has stream = true, and the request asks for no stream"), "{text}");
        assert!(told(&[]).contains("its prompt_tokens are <20, and the request has no prompt (give --body)"));
    }

    #[test]
    fn slips_are_told() {
        assert!(told(&["--path", "v1"]).unwrap_err().contains("--path starts with a slash"));
        assert!(told(&["--path", "/v1", "--body", "{"]).unwrap_err().contains("--body is not JSON"));
        assert!(told(&["--path", "/v1", "--header", "x"]).unwrap_err().contains("as x-tier:gold"));
    }
}
