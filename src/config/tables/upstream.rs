//! `[[upstream]]`: a backend, at one or more equal endpoints.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use super::affinity::{Affinity, AffinityTable};
use super::dialect::{StreamTable, stream_rules};
use crate::config::address::{Endpoint, EndpointAddress, check_path, host_and_port};
use crate::config::checker::Checker;
use crate::config::read::Lost;
use crate::config::secret::Secret;
use crate::config::units::{At, DurationText, Table, Written};
use crate::config::view::{PlainUrl, Shown};
use crate::llm::dialect::shape::Recogniser;
use crate::llm::{Dialect, StreamRules, provider};

const PING_INTERVAL: Duration = Duration::from_secs(15);
const HEALTH_INTERVAL: Duration = Duration::from_secs(5);

/// One backend, at one or more equal endpoints.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpstreamTable {
    /// What routes and telemetry call it. Absent: its first url's host and port.
    pub name: Option<At<String>>,
    /// Where it is: `"http://127.0.0.1:8000"`, `"https://api.example.com/base"`, `"unix:/path"`.
    pub url: Option<At<String>>,
    /// Several equal endpoints, in place of `url`.
    pub urls: Option<At<Vec<At<String>>>>,
    /// The Host header it gets: "keep" (the client's; the default for http), "own" (the url's; the default for https),
    /// or a name.
    pub host: Option<At<String>>,
    /// What its answers speak: "auto" (recognised by path and answer), "openai-chat", "openai-responses", "anthropic",
    /// "gemini", "ollama", "vercel-ui", "vercel-data", "plain-sse", "plain-text", a framework's, as "langgraph" or "ag-ui"
    /// (`streamgauge read --help` lists them), or the name of a [[dialect]].
    #[schemars(extend("default" = "auto"))]
    pub dialect: Option<At<String>>,
    /// Who runs its models, as OpenTelemetry calls him ("groq", "azure.ai.openai", "deepseek"): for telemetry, and for the prices
    /// of the catalogue. Absent: by the host of its url where that is known.
    pub provider: Option<At<String>>,
    /// Whether OpenAI-shaped streams are asked for their usage if the client does not ask. The client does not see it.
    #[schemars(extend("default" = "auto"))]
    pub ask_usage: Option<At<AskUsage>>,
    /// The HTTP version spoken to it. "auto": ALPN decides over TLS, HTTP/1.1 in clear text.
    #[schemars(extend("default" = "auto"))]
    pub protocol: Option<At<UpstreamProtocol>>,
    /// How often an HTTP/2 connection to it is asked whether it lives: one that does not answer within 5 s is closed. "0s":
    /// never, for servers that take offence (some of gRPC do).
    #[schemars(extend("default" = "15s"))]
    pub ping_interval: Option<At<DurationText>>,
    /// A PEM file with the certificates that its own must chain to, or be, in place of the system's.
    pub ca: Option<At<String>>,
    /// The environment variable with the API key that replaces the client's credentials.
    pub api_key_env: Option<At<String>>,
    /// The file with the API key that replaces the client's credentials.
    pub api_key_file: Option<At<String>>,
    /// How to read a stream of an app's own.
    pub stream: Option<Table<StreamTable>>,
    /// Health check of each endpoint. Absent: only results of requests count.
    pub health: Option<Table<HealthTable>>,
    /// Session affinity: which requests belong together. Absent: each goes to any endpoint.
    pub affinity: Option<Table<AffinityTable>>,
}

/// An active health check: a GET that must be answered with 2xx or 3xx.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HealthTable {
    /// As "/health"; joined to the url's own path.
    #[schemars(required)]
    pub path: Option<At<String>>,
    /// Between two checks of an endpoint.
    #[schemars(extend("default" = "5s"))]
    pub interval: Option<At<DurationText>>,
}

/// `[[upstream]]`: one backend, at one or more equal endpoints.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Upstream {
    #[serde(serialize_with = "Shown::shown")]
    pub name: Arc<str>,
    /// Never empty; all of one scheme.
    #[serde(rename = "urls")]
    pub endpoints: Vec<Endpoint>,
    pub host: HostPolicy,
    /// `None`: recognised by path and answer.
    #[serde(serialize_with = "dialect")]
    pub dialect: Option<Dialect>,
    /// Who runs its models, as telemetry and the price catalogue call him; `None`: not known.
    #[serde(serialize_with = "Shown::shown")]
    pub provider: Option<Arc<str>>,
    pub ask_usage: AskUsage,
    pub protocol: UpstreamProtocol,
    /// How often an HTTP/2 connection is asked whether it lives; zero: never.
    #[serde(serialize_with = "Shown::shown")]
    pub ping_interval: Duration,
    /// A PEM file with the certificates that this upstream's own must chain to, in place of the system's.
    pub ca: Option<PathBuf>,
    /// Put in place of the client's credentials.
    pub api_key: Option<Secret>,
    /// How its streams are read.
    #[serde(serialize_with = "stream_rules")]
    pub stream: Arc<StreamRules>,
    /// Absent: only what requests show counts.
    pub health: Option<HealthCheck>,
    /// Absent: sessions are not kept together.
    pub affinity: Option<Affinity>,
}

/// `health` of an upstream: a GET that must be answered with 2xx or 3xx.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HealthCheck {
    /// Joined to the endpoint's base path. What stands after `?` is not shown.
    #[serde(serialize_with = "plain_path")]
    pub path: String,
    #[serde(serialize_with = "Shown::shown")]
    pub interval: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HostPolicy {
    /// The client's own `Host`.
    Keep,
    /// The endpoint's authority.
    Own,
    #[serde(untagged)]
    Name(String),
}

/// Whether streams are asked for their usage on the client's behalf.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum AskUsage {
    /// Unless the backend rejects the option.
    #[default]
    Auto,
    Always,
    Never,
}

/// HTTP version towards an upstream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum UpstreamProtocol {
    /// ALPN decides over TLS, HTTP/1.1 in clear text.
    #[default]
    Auto,
    Http1,
    /// In clear text with prior knowledge.
    Http2,
}

fn dialect<S: Serializer>(dialect: &Option<Dialect>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(dialect.map_or("auto", Dialect::as_str))
}

fn plain_path<S: Serializer>(path: &str, to: S) -> Result<S::Ok, S::Error> {
    PlainUrl(path).serialize(to)
}

/// An upstream, and what the checks of routes ask about it.
pub struct Declared {
    pub upstream: Arc<Upstream>,
    pub called: Called,
}

/// What an upstream is called.
pub enum Called {
    /// By its name.
    Name,
    /// Its name could not be read: it stands in one of these texts.
    Within(Vec<String>),
    /// Its name could not be read, and may be any.
    Anything,
}

impl Declared {
    pub fn is_named(&self, name: &str) -> bool {
        matches!(self.called, Called::Name) && *self.upstream.name == *name
    }

    /// Whether a route may mean it by this name.
    pub fn may_be(&self, name: &str) -> bool {
        match &self.called {
            Called::Name => false,
            Called::Within(texts) => texts.iter().any(|text| text.contains(name)),
            Called::Anything => true,
        }
    }
}

impl Checker<'_> {
    pub fn upstreams(&mut self, tables: &[Table<UpstreamTable>], dialects: &[Table<StreamTable>]) -> Vec<Declared> {
        if tables.is_empty() && !self.lost.is_table_lost("upstream") {
            let message = "there is no [[upstream]]: say where the backend is, as [[upstream]] with \
                           url = \"http://127.0.0.1:8000\"";
            self.problem(&(0..0), message);
        }
        let mut taken = BTreeMap::new();
        let own = self.dialects(dialects);
        tables.iter().map(|table| self.upstream(table, &mut taken, &own)).collect()
    }

    fn upstream(
        &mut self,
        table: &Table<UpstreamTable>,
        taken: &mut BTreeMap<String, ()>,
        own: &Arc<Recogniser>,
    ) -> Declared {
        let file = &table.value;
        let is_lost = |key: &str| self.lost.is_lost(&table.span, key);
        let (is_url_lost, is_name_lost) = (is_lost("url") || is_lost("urls"), is_lost("name"));
        let endpoints = self.endpoints(table, is_url_lost);
        let name = match (&file.name, endpoints.first()) {
            (Some(at), _) => self.name(at),
            (None, Some(first)) => first.name(),
            (None, None) => String::new(),
        };
        let is_nameless = name.is_empty() || is_name_lost;
        let called = if is_nameless { called(table, &self.lost) } else { Called::Name };
        if !is_nameless {
            let span = file.name.as_ref().map_or(&table.span, |at| &at.span);
            self.unique("upstream", &name, span, taken);
        }
        let stream = self.stream_rules(file.dialect.as_ref(), file.stream.as_ref(), own);
        let is_tls = endpoints.first().is_some_and(|endpoint| endpoint.tls);
        let upstream = Upstream {
            name: name.into(),
            host: self.host(file.host.as_ref(), is_tls),
            dialect: stream.dialect,
            provider: self.provider(file.provider.as_ref(), &endpoints),
            ask_usage: file.ask_usage.value_or_default(),
            protocol: file.protocol.value_or_default(),
            ping_interval: self.duration(file.ping_interval.as_ref(), PING_INTERVAL),
            ca: file.ca.as_ref().and_then(|at| self.ca(at, &endpoints)),
            api_key: self.api_key(file),
            stream: Arc::new(stream),
            health: file.health.as_ref().and_then(|health| self.health(health)),
            affinity: file.affinity.as_ref().map(|affinity| self.affinity(affinity)),
            endpoints,
        };
        Declared { upstream: Arc::new(upstream), called }
    }

    fn endpoints(&mut self, table: &Table<UpstreamTable>, is_url_lost: bool) -> Vec<Endpoint> {
        let file = &table.value;
        let urls: Vec<&At<String>> = match (&file.url, &file.urls) {
            (Some(url), None) => vec![url],
            (None, Some(urls)) => urls.value.iter().collect(),
            (Some(_), Some(urls)) => {
                self.problem(&urls.span, "either `url` or `urls`, not both");
                return Vec::new();
            }
            (None, None) => Vec::new(),
        };
        if urls.is_empty() && !is_url_lost {
            let span = file.urls.as_ref().map_or(&table.span, |at| &at.span).clone();
            self.problem(&span, "this upstream has no `url`: say where it is, as url = \"http://127.0.0.1:8000\"");
        }
        let mut endpoints: Vec<Endpoint> = Vec::new();
        for at in urls {
            let parsed = at.value.parse().map_err(|wrong| format!("`url`: {wrong}"));
            let Some(endpoint) = self.checked::<Endpoint>(&at.span, parsed) else { continue };
            self.fits(&at.span, &endpoint, &endpoints);
            endpoints.push(endpoint);
        }
        endpoints
    }

    /// Endpoints of one upstream stand in for each other.
    fn fits(&mut self, span: &Range<usize>, endpoint: &Endpoint, others: &[Endpoint]) {
        if others.contains(endpoint) {
            self.problem(span, "this url is listed twice");
        }
        if others.first().is_some_and(|first| first.tls != endpoint.tls) {
            self.problem(span, "the urls of one upstream are all http or all https: write two [[upstream]]");
        }
    }

    fn host(&mut self, written: Option<&At<String>>, is_tls: bool) -> HostPolicy {
        let Some(at) = written else {
            return if is_tls { HostPolicy::Own } else { HostPolicy::Keep };
        };
        match at.value.to_ascii_lowercase().as_str() {
            "keep" => HostPolicy::Keep,
            "own" => HostPolicy::Own,
            name => {
                let checked = host_and_port(name);
                self.checked(
                    &at.span,
                    checked.map_err(|wrong| format!("`host` is \"keep\", \"own\" or a name: {wrong}")),
                );
                HostPolicy::Name(name.to_owned())
            }
        }
    }

    /// Endpoints of different providers have none in common.
    fn provider(&mut self, written: Option<&At<String>>, endpoints: &[Endpoint]) -> Option<Arc<str>> {
        let Some(at) = written else {
            let mut known = endpoints.iter().map(|endpoint| match &endpoint.address {
                EndpointAddress::Tcp { host, .. } => provider::at_host(host),
                EndpointAddress::Unix(_) => None,
            });
            let first = known.next().flatten()?;
            return known.all(|other| other == Some(first)).then(|| first.into());
        };
        if !provider::is_name(&at.value) {
            let message = "`provider` is a name of lower-case letters, digits, dots, dashes and underscores, as \"groq\" or \
                           \"azure.ai.openai\"";
            self.problem(&at.span, message);
        }
        Some(at.value.as_str().into())
    }

    fn ca(&mut self, at: &At<String>, endpoints: &[Endpoint]) -> Option<PathBuf> {
        if endpoints.first().is_some_and(|first| !first.tls) {
            self.problem(&at.span, "`ca` says whom to trust over https, and this upstream's url is not https");
            return None;
        }
        Some(self.pem(at, "CERTIFICATE"))
    }

    fn api_key(&mut self, file: &UpstreamTable) -> Option<Secret> {
        match (&file.api_key_env, &file.api_key_file) {
            (Some(_), Some(at)) => {
                self.problem(&at.span, "either `api_key_env` or `api_key_file`, not both");
                None
            }
            (Some(at), None) => self.secret_from_env(at),
            (None, Some(at)) => self.secret_from_file(at),
            (None, None) => None,
        }
    }

    fn health(&mut self, table: &Table<HealthTable>) -> Option<HealthCheck> {
        let interval = self.positive("interval", table.value.interval.as_ref(), HEALTH_INTERVAL);
        let Some(at) = &table.value.path else {
            self.problem(&table.span, "`health` needs the path to ask, as { path = \"/health\" }");
            return None;
        };
        let path = at.value.split('?').next().unwrap_or_default();
        if !at.value.starts_with('/') || at.value.contains('#') {
            self.problem(&at.span, "`path` of a health check starts with /, as \"/health\"");
        } else {
            let checked = check_path(path).map_err(|wrong| format!("`path`: {wrong}"));
            self.checked(&at.span, checked);
        }
        Some(HealthCheck { path: at.value.clone(), interval })
    }
}

/// What an upstream may be called whose name could not be read: what its name or its urls say.
fn called(table: &Table<UpstreamTable>, lost: &Lost) -> Called {
    let file = &table.value;
    let urls = file.url.iter().chain(file.urls.iter().flat_map(|list| &list.value)).map(|at| at.value.clone());
    match lost.lost_texts(&table.span, &["name", "url", "urls"]) {
        Some(lost) => Called::Within(urls.chain(lost.into_iter().map(str::to_owned)).collect()),
        None => Called::Anything,
    }
}
