//! `[[route]]`: which requests go where, and within which times.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use super::canary::{Canary, CanaryTable, Sticky};
use super::conditions::{self, Conditions, Nameable};
use super::limits::{Limit, LimitTable};
use super::mirror::{Mirror, MirrorTable};
use super::prices::Prices;
use super::target::{FallbackTable, Target, TargetTable, plain_target};
use super::upstream::Declared;
use crate::config::address::check_path;
use crate::config::checker::Checker;
use crate::config::glob::{Glob, PathPattern};
use crate::config::grammar::is_token;
use crate::config::problems::nearest;
use crate::config::secret::MASK;
use crate::config::units::{At, DurationText, Table, Written};
use crate::config::view::{Shown, display_as_serialized};

const PATH: &str = "*";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
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
const RETRY_ATTEMPTS: u32 = 3;
const RETRY_BUDGET: f64 = 0.2;
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Methods that people use; another may be meant, but one that is nearly one of these is a slip.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// What decides which requests a route takes.
const CONDITIONS: [&str; 11] =
    ["path", "methods", "headers", "models", "prompt_tokens", "tools", "images", "audio", "stream", "users", "teams"];

/// Most attempts that a request may be given: what ten backends could not answer, an eleventh will not.
const ATTEMPTS_MAX: u32 = 10;

/// Which requests go where, and within which times.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteTable {
    /// What telemetry calls it. Absent: its path.
    pub name: Option<At<String>>,
    /// The path, in which `*` stands for any run of characters, slashes included.
    #[schemars(extend("default" = "*"))]
    pub path: Option<At<String>>,
    /// Absent: all.
    pub methods: Option<At<Vec<At<String>>>>,
    /// Request headers and the values that they must have.
    #[serde(default)]
    pub headers: BTreeMap<String, At<String>>,
    /// Models, as "gpt-4o*", of JSON bodies. Absent: all.
    pub models: Option<At<Vec<At<String>>>>,
    /// The size of the prompt in tokens, as "<2000" or ">=2000 <8000": counted, or estimated where it is long or has pictures.
    pub prompt_tokens: Option<At<String>>,
    /// Whether the request offers tools to the model.
    pub tools: Option<At<bool>>,
    /// Whether there are pictures in the prompt.
    pub images: Option<At<bool>>,
    /// Whether there is sound in the prompt.
    pub audio: Option<At<bool>>,
    /// Whether a stream is asked for.
    pub stream: Option<At<bool>>,
    /// Users whose requests it takes, as "batch-*". Absent: everybody's.
    pub users: Option<At<Vec<At<String>>>>,
    /// Teams whose requests it takes. Absent: everybody's.
    pub teams: Option<At<Vec<At<String>>>>,
    /// The only target's upstream, in place of `targets`.
    pub upstream: Option<At<String>>,
    /// Where requests go, by weight. Absent: to the only upstream.
    pub targets: Option<At<Vec<Table<TargetTable>>>>,
    /// What keeps a request at the target that the one before it took.
    #[schemars(extend("default" = "user"))]
    pub sticky: Option<At<Sticky>>,
    pub canary: Option<Table<CanaryTable>>,
    pub shadow: Option<Table<MirrorTable>>,
    /// Where a request goes on when no target can answer it, in this order.
    #[serde(default)]
    pub fallback: Vec<Table<FallbackTable>>,
    /// Which failed requests another target or endpoint may answer.
    #[schemars(extend("default" = "llm"))]
    pub failover: Option<At<Failover>>,
    pub retries: Option<Table<RetriesTable>>,
    /// Hedging: after so long without a first token a second attempt is started, and the first token wins. Absent: never.
    pub hedge_after: Option<At<DurationText>>,
    /// What its answers are: an LLM's, or other streams.
    #[schemars(extend("default" = "auto"))]
    pub kind: Option<At<RouteKind>>,
    pub timeouts: Option<Table<TimeoutsTable>>,
    /// After so long a silence of the upstream, an event stream gets a comment; "0s" sends none.
    #[schemars(extend("default" = "15s"))]
    pub keepalive: Option<At<DurationText>>,
    /// Send such comments already before the upstream answered at all.
    #[schemars(extend("default" = false))]
    pub keepalive_before_headers: Option<At<bool>>,
    /// The names of the limits that its requests are under.
    pub limits: Option<At<Vec<At<String>>>>,
}

/// How often a request may be sent again.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RetriesTable {
    /// Attempts a request may take, the first included.
    #[schemars(range(min = 1, max = 10), extend("default" = 3))]
    pub attempts: Option<At<u32>>,
    /// The retry budget: the share of the route's active requests that may be retried or hedged at one time, at least 10.
    #[schemars(range(min = 0.0, max = 1.0), extend("default" = 0.2))]
    pub budget: Option<At<f64>>,
}

/// How long a request may take.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TimeoutsTable {
    /// Until a connection is established.
    #[schemars(extend("default" = "2s"))]
    pub connect: Option<At<DurationText>>,
    /// Until the first token of an LLM's stream. Absent: "60s" while another place can be asked, else "10m".
    pub first_token: Option<At<DurationText>>,
    /// The longest silence of an LLM's stream: nothing that tells of work. Absent: "10m".
    pub stall: Option<At<DurationText>>,
    /// For the whole of an LLM's answer, or of one in one piece. Absent: "1h".
    pub total: Option<At<DurationText>>,
}

/// `[[route]]`: which requests go where, and within which times.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Route {
    #[serde(serialize_with = "Shown::shown")]
    pub name: Arc<str>,
    pub path: PathPattern,
    /// Upper case; empty means all.
    pub methods: Vec<String>,
    /// Header name (lower case) and the value it must have, which may be the secret by which the route is chosen.
    #[serde(serialize_with = "names_alone")]
    pub headers: Vec<(String, String)>,
    /// Model globs; empty means all, and that the body need not be read to route.
    pub models: Vec<Glob>,
    /// What else it asks of a request. Absent: nothing.
    #[serde(flatten)]
    pub conditions: Option<Box<Conditions>>,
    /// Never empty.
    pub targets: Vec<Target>,
    pub sticky: Sticky,
    pub canary: Option<Canary>,
    pub shadow: Option<Mirror>,
    /// Asked in this order when no target can answer. Their weights mean nothing.
    pub fallback: Vec<Target>,
    pub failover: Failover,
    pub retries: Retries,
    /// Absent: no hedging.
    #[serde(serialize_with = "Shown::shown")]
    pub hedge_after: Option<Duration>,
    pub kind: RouteKind,
    pub timeouts: Timeouts,
    /// Zero: no keep-alive comments.
    #[serde(serialize_with = "Shown::shown")]
    pub keepalive: Duration,
    pub keepalive_before_headers: bool,
    /// All that its requests are under.
    #[serde(serialize_with = "limit_names")]
    pub limits: Vec<Arc<Limit>>,
}

/// `failover` of a route: which failed attempts may be replaced by another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Failover {
    /// LLM requests until their first token, any other only while nothing was sent.
    #[default]
    Llm,
    /// Any request whose body is buffered. Only if a repetition does no harm.
    Always,
    /// Only while nothing was sent.
    Unsent,
    Never,
}

/// `retries` of a route.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Retries {
    /// Attempts a request may take, the first included. Never zero.
    pub attempts: u32,
    /// Share of the route's active requests that may be sent again at one time, 0 to 1.
    pub budget: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Timeouts {
    #[serde(serialize_with = "Shown::shown")]
    pub connect: Duration,
    /// Until the first token of a stream. `None`, here and below: the file says nothing, and what holds depends on the
    /// answer's kind and on whether another place can be asked.
    #[serde(serialize_with = "Shown::shown")]
    pub first_token: Option<Duration>,
    /// The longest silence of a stream after its first token.
    #[serde(serialize_with = "stall")]
    pub stall: Option<Duration>,
    #[serde(serialize_with = "total")]
    pub total: Option<Duration>,
}

/// `kind` of a route: whose the answers are that it brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum RouteKind {
    /// As request and answer show.
    #[default]
    Auto,
    /// LLM answers, whatever they look like.
    Llm,
    /// None are an LLM's: they are measured as streams, and bound by the times that are written below.
    Stream,
}

display_as_serialized!(Failover, RouteKind);

fn names_alone<S: Serializer>(headers: &[(String, String)], to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(headers.iter().map(|(name, _)| (name, MASK)))
}

fn limit_names<S: Serializer>(limits: &[Arc<Limit>], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(limits.iter().map(|limit| &*limit.name))
}

fn stall<S: Serializer>(written: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    written.unwrap_or(STALL_TIMEOUT).shown(to)
}

fn total<S: Serializer>(written: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    written.unwrap_or(TOTAL_TIMEOUT).shown(to)
}

/// What routes refer to.
pub struct Declarations<'a> {
    pub upstreams: &'a [Declared],
    pub limit_tables: &'a [Table<LimitTable>],
    pub limits: &'a [Arc<Limit>],
    pub prices: &'a Prices,
    pub nameable: Nameable,
}

impl Checker<'_> {
    pub fn routes(&mut self, tables: &[Table<RouteTable>], declared: &Declarations<'_>) -> Vec<Arc<Route>> {
        if tables.is_empty() {
            return self.only_route(declared);
        }
        let mut taken = BTreeMap::new();
        let mut routes: Vec<Arc<Route>> = Vec::new();
        let mut intact: Vec<Arc<Route>> = Vec::new();
        for table in tables {
            let route = Arc::new(self.route(table, declared));
            let span = table.value.name.as_ref().map_or(&table.span, |at| &at.span);
            let has_name = table.value.name.is_some() || !self.lost.may_have_lost(&table.span, &["name", "path"]);
            if has_name && !route.name.is_empty() {
                self.unique("route", &route.name, span, &mut taken);
            }
            if !self.lost.may_have_lost(&table.span, &["name", "path"]) {
                self.reachable(table, &route, &intact);
            }
            if !self.lost.may_have_lost(&table.span, &CONDITIONS) {
                intact.push(Arc::clone(&route));
            }
            routes.push(route);
        }
        routes
    }

    /// Without any `[[route]]`, everything goes to the only upstream.
    fn only_route(&mut self, declared: &Declarations<'_>) -> Vec<Arc<Route>> {
        match declared.upstreams {
            _ if self.lost.is_table_lost("route") || self.lost.is_table_lost("upstream") => Vec::new(),
            [] => Vec::new(),
            [_] => vec![Arc::new(self.route(&Table::default(), declared))],
            _ => {
                let message = "there are several upstreams and no [[route]] that says which requests go where: add \
                               [[route]] with path = \"*\" and upstream = \"…\"";
                self.problem(&(0..0), message);
                Vec::new()
            }
        }
    }

    fn route(&mut self, table: &Table<RouteTable>, declared: &Declarations<'_>) -> Route {
        let (file, upstreams) = (&table.value, declared.upstreams);
        let path = self.pattern(file.path.as_ref());
        let name = match &file.name {
            Some(at) => self.name(at),
            None => path.0.source.clone(),
        };
        let targets = self.targets(table, &path, upstreams);
        let models = self.models(file.models.as_ref());
        let limits = self.route_limits(file.limits.as_ref(), declared.limit_tables, declared.limits);
        let fallback: Vec<Target> =
            file.fallback.iter().filter_map(|table| self.fallback(table, &path, upstreams)).collect();
        if !self.lost.is_table_lost("price") {
            let all = targets.iter().chain(&fallback);
            let providers: Vec<_> = all.map(|target| target.upstream.provider.clone()).collect();
            self.priced(file.limits.as_ref(), &limits, &models, &providers, declared.prices);
        }
        let canary = self.canary(
            file.canary.as_ref(),
            &targets,
            file.targets.as_ref(),
            self.lost.is_lost(&table.span, "targets"),
        );
        let shadow = self.shadow(file.shadow.as_ref(), &path, upstreams);
        Route {
            name: name.into(),
            methods: self.methods(file.methods.as_ref()),
            headers: self.header_conditions(&file.headers),
            models,
            conditions: self.conditions(file, declared.nameable),
            fallback,
            failover: file.failover.value_or_default(),
            retries: self.retries(file.retries.as_ref().map(|table| &table.value)),
            hedge_after: self.hedge_after(file, &targets),
            targets,
            sticky: file.sticky.value_or_default(),
            canary,
            shadow,
            kind: file.kind.value_or_default(),
            timeouts: self.timeouts(file.timeouts.as_ref().map(|table| &table.value)),
            keepalive: self.duration(file.keepalive.as_ref(), KEEPALIVE),
            keepalive_before_headers: file.keepalive_before_headers.value_or_default(),
            limits,
            path,
        }
    }

    fn pattern(&mut self, written: Option<&At<String>>) -> PathPattern {
        let Some(at) = written else { return PathPattern(Glob::new(PATH)) };
        if !at.value.starts_with(['/', '*']) {
            self.problem(&at.span, "`path` starts with / or *, as \"/v1/*\"");
        } else if at.value.contains(['?', '#']) {
            self.problem(&at.span, "`path` is matched without the query: no ? or #; any text is written *");
        } else {
            let checked = check_path(&at.value).map_err(|wrong| format!("`path`: {wrong}"));
            self.checked(&at.span, checked);
        }
        PathPattern(Glob::new(&at.value))
    }

    fn methods(&mut self, written: Option<&At<Vec<At<String>>>>) -> Vec<String> {
        let Some(list) = written else { return Vec::new() };
        if list.value.is_empty() {
            self.problem(&list.span, "`methods` is empty, so nothing would match: leave it out for all");
        }
        let mut methods = Vec::new();
        for at in &list.value {
            let method = at.value.to_ascii_uppercase();
            let near = nearest(&method, METHODS).filter(|near| *near != method);
            match near {
                _ if !is_token(method.as_bytes()) => self.problem(&at.span, "not a method, as \"POST\""),
                _ if method == "TRACE" || method == "CONNECT" => {
                    self.problem(&at.span, format!("{method} is always refused, so this would never match"));
                }
                Some(near) if !METHODS.contains(&method.as_str()) => {
                    self.problem(&at.span, format!("unknown method \"{method}\": did you mean \"{near}\"?"));
                }
                _ => {}
            }
            methods.push(method);
        }
        methods
    }

    fn header_conditions(&mut self, written: &BTreeMap<String, At<String>>) -> Vec<(String, String)> {
        let mut conditions: Vec<(String, String)> = Vec::new();
        for (name, at) in written {
            let lower = name.to_ascii_lowercase();
            if !is_token(name.as_bytes()) {
                self.problem(&at.span, "`headers`: not the name of a header, as \"x-tier\"");
            } else if name.contains('_') {
                let hyphens = lower.replace('_', "-");
                let message =
                    format!("headers with an underscore are dropped, so this would never match: \"{hyphens}\"?");
                self.problem(&at.span, message);
            } else if conditions.iter().any(|(known, _)| *known == lower) {
                self.problem(&at.span, format!("the header \"{lower}\" is asked for twice"));
            }
            if at.value.chars().any(char::is_control) || at.value.trim() != at.value {
                self.problem(&at.span, "a header's value has no line breaks, and no space around it");
            }
            conditions.push((lower, at.value.clone()));
        }
        conditions
    }

    /// What a route asks beside head and model; `None`: nothing.
    fn conditions(&mut self, file: &RouteTable, nameable: Nameable) -> Option<Box<Conditions>> {
        let said = |at: &Option<At<bool>>| at.as_ref().map(|at| at.value);
        let conditions = Conditions {
            prompt_tokens: self.prompt_tokens(file.prompt_tokens.as_ref()),
            tools: said(&file.tools),
            images: said(&file.images),
            audio: said(&file.audio),
            stream: said(&file.stream),
            users: self.names("users", file.users.as_ref(), nameable.users),
            teams: self.names("teams", file.teams.as_ref(), nameable.teams),
        };
        (conditions != Conditions::default()).then(|| Box::new(conditions))
    }

    fn models(&mut self, written: Option<&At<Vec<At<String>>>>) -> Vec<Glob> {
        let Some(list) = written else { return Vec::new() };
        if list.value.is_empty() {
            self.problem(&list.span, "`models` is empty, so nothing would match: leave it out for all");
        }
        for at in list.value.iter().filter(|at| at.value.is_empty()) {
            self.problem(&at.span, "a model's name is missing here, as \"gpt-4o*\"");
        }
        list.value.iter().map(|at| Glob::new(&at.value)).collect()
    }

    fn targets(&mut self, table: &Table<RouteTable>, path: &PathPattern, upstreams: &[Declared]) -> Vec<Target> {
        let file = &table.value;
        let are_lost = self.lost.is_lost(&table.span, "targets");
        match (&file.upstream, &file.targets) {
            (Some(_), Some(at)) => {
                self.problem(&at.span, "either `upstream` or `targets`, not both");
                Vec::new()
            }
            (Some(at), None) => self.find(at, upstreams).into_iter().map(plain_target).collect(),
            (None, Some(list)) => {
                let targets: Vec<Target> =
                    list.value.iter().filter_map(|target| self.target(target, path, upstreams)).collect();
                self.together(list, &targets, are_lost);
                targets
            }
            (None, None) => match upstreams {
                [only] => vec![plain_target(Arc::clone(&only.upstream))],
                [] => Vec::new(),
                _ if self.lost.is_lost(&table.span, "upstream") || are_lost => Vec::new(),
                _ => {
                    let message = "this route has no target: say where requests go, as upstream = \"…\"";
                    self.problem(&table.span, message);
                    Vec::new()
                }
            },
        }
    }

    fn timeouts(&mut self, table: Option<&TimeoutsTable>) -> Timeouts {
        let nothing = TimeoutsTable::default();
        let file = table.unwrap_or(&nothing);
        Timeouts {
            connect: self.positive("connect", file.connect.as_ref(), CONNECT_TIMEOUT),
            first_token: self.written("first_token", file.first_token.as_ref()),
            stall: self.written("stall", file.stall.as_ref()),
            total: self.written("total", file.total.as_ref()),
        }
    }

    /// A time that has no one default.
    fn written(&mut self, key: &str, at: Option<&At<DurationText>>) -> Option<Duration> {
        at.map(|at| self.positive(key, Some(at), Duration::MAX))
    }

    /// Says so where an earlier route with no narrower conditions takes everything that this one would.
    fn reachable(&mut self, table: &Table<RouteTable>, route: &Route, earlier: &[Arc<Route>]) {
        let takes_all = |other: &&Arc<Route>| {
            let has_no_condition = other.methods.is_empty() && other.headers.is_empty() && other.models.is_empty();
            let is_wider = conditions::cover(other.conditions.as_deref(), route.conditions.as_deref());
            // Of two routes with one name the name is the problem.
            has_no_condition && is_wider && other.path.0.covers(&route.path.0) && other.name != route.name
        };
        if let Some(other) = earlier.iter().find(takes_all) {
            let message =
                format!("this route is never reached: \"{}\" above it takes everything that it matches", other.name);
            self.problem(&table.span, message);
        }
    }

    fn retries(&mut self, table: Option<&RetriesTable>) -> Retries {
        let nothing = RetriesTable::default();
        let file = table.unwrap_or(&nothing);
        if let Some(at) = file.attempts.as_ref().filter(|at| !(1..=ATTEMPTS_MAX).contains(&at.value)) {
            self.problem(&at.span, format!("`attempts` counts the first one too: 1 to {ATTEMPTS_MAX}"));
        }
        if let Some(at) = file.budget.as_ref().filter(|at| !(0.0..=1.0).contains(&at.value)) {
            self.problem(&at.span, "`budget` is a share of the active requests, from 0.0 to 1.0");
        }
        Retries { attempts: file.attempts.value_or(RETRY_ATTEMPTS), budget: file.budget.value_or(RETRY_BUDGET) }
    }

    fn hedge_after(&mut self, file: &RouteTable, targets: &[Target]) -> Option<Duration> {
        let at = file.hedge_after.as_ref()?;
        if at.value.0.is_zero() {
            self.problem(&at.span, "`hedge_after`: zero would ask twice each time; leave it out for no hedging");
        } else if matches!(file.failover.value_or_default(), Failover::Unsent | Failover::Never) {
            self.problem(&at.span, "`hedge_after` asks a second time, and this route's `failover` forbids that");
        } else if let [only] = targets
            && only.upstream.endpoints.len() == 1
            && file.fallback.is_empty()
        {
            self.problem(&at.span, "`hedge_after` needs a second place to ask: a target, a url or a `fallback` more");
        }
        Some(at.value.0)
    }
}
