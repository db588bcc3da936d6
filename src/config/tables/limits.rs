//! `[[limit]]`: what each holder may use; and `[limits]`: where the counts are kept.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use super::prices::Prices;
use crate::config::checker::Checker;
use crate::config::glob::Glob;
use crate::config::problems::hint;
use crate::config::secret::Secret;
use crate::config::units::{At, DurationText, Table, Written};
use crate::config::view::{PlainUrl, Shown, display_as_serialized};
use crate::llm::price::Cost;

/// A store on the same network answers within a millisecond: what takes longer is worse than counting alone.
const DEADLINE: Duration = Duration::from_millis(10);

/// The most tokens that a limit can count: beyond lies a slip, and numbers that overflow in millionths.
const TOKENS_MAX: u64 = 1_000_000_000_000;

/// The most US dollars that a budget can hold.
const DOLLARS_MAX: f64 = 1e9;

const NANO: f64 = 1e9;

/// What a limit can cap.
const CAPS: [&str; 5] = ["tokens_per_minute", "requests_per_minute", "concurrent", "cost_per_day", "cost_per_month"];

/// What each user, team, key, address or route may use. Routes name the limits that they are under.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitTable {
    /// What routes and telemetry call it.
    #[schemars(required)]
    pub name: Option<At<String>>,
    /// Whose requests are counted together. If no user, team or key is known, the client's address is used.
    #[schemars(extend("default" = "user"))]
    pub key: Option<At<LimitKey>>,
    /// Prompt and answer together.
    #[schemars(range(min = 1))]
    pub tokens_per_minute: Option<At<u64>>,
    /// The most tokens that can be used at once. Absent: tokens_per_minute.
    #[schemars(range(min = 1))]
    pub burst: Option<At<u64>>,
    /// How far one request may go beyond the burst. Absent: burst.
    pub debt: Option<At<u64>>,
    /// The most tokens that one request reserves for its answer. Absent: what the request asks for.
    #[schemars(range(min = 1))]
    pub output_cap: Option<At<u64>>,
    #[schemars(range(min = 1))]
    /// Of any kind, up to a whole minute's worth at once.
    pub requests_per_minute: Option<At<u32>>,
    /// Requests at one time.
    #[schemars(range(min = 1))]
    pub concurrent: Option<At<u32>>,
    /// US dollars in a rolling 24 hours, by `[[price]]`.
    pub cost_per_day: Option<At<f64>>,
    /// US dollars in rolling 30 days, by `[[price]]`.
    pub cost_per_month: Option<At<f64>>,
    /// What happens to a stream that uses more than its reservation while the bucket is empty.
    #[schemars(extend("default" = "finish"))]
    pub on_exhausted: Option<At<OnExhausted>>,
}

/// Where the counts of all limits are kept.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitsTable {
    /// A Redis or Valkey that several proxies share, as "redis://127.0.0.1:6379" or "rediss://user:password@host/0".
    /// Absent: each proxy counts in its own memory.
    pub redis: Option<At<String>>,
    /// The environment variable with its password, which so stays out of this file.
    pub redis_password_env: Option<At<String>>,
    /// The longest that a decision waits for it; then it counts as away.
    #[schemars(extend("default" = "10ms"))]
    pub deadline: Option<At<DurationText>>,
    /// What happens while it cannot be reached.
    #[schemars(extend("default" = "local"))]
    pub on_failure: Option<At<OnStoreFailure>>,
}

/// `[[limit]]`: what each holder may use. At least one of the caps is there.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Limit {
    #[serde(serialize_with = "Shown::shown")]
    pub name: Arc<str>,
    pub key: LimitKey,
    #[serde(flatten)]
    pub tokens: Option<TokenLimit>,
    pub requests_per_minute: Option<NonZeroU32>,
    /// Requests at one time.
    pub concurrent: Option<u32>,
    /// In a rolling 24 hours, in nano-dollars.
    #[serde(serialize_with = "dollars")]
    pub cost_per_day: Option<u64>,
    /// In rolling 30 days, in nano-dollars.
    #[serde(serialize_with = "dollars")]
    pub cost_per_month: Option<u64>,
    pub on_exhausted: OnExhausted,
}

/// The token bucket of each holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct TokenLimit {
    /// Never zero.
    #[serde(rename = "tokens_per_minute")]
    pub per_minute: u64,
    /// What may be taken at once. Never zero.
    pub burst: u64,
    /// How far one request may go beyond the burst.
    pub debt: u64,
    /// The most that one request holds for its answer.
    pub output_cap: Option<u64>,
}

/// Who shares one bucket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum LimitKey {
    #[default]
    User,
    Team,
    /// The API key.
    Key,
    /// The client's address; of IPv6 its /64.
    Ip,
    Route,
    Global,
}

display_as_serialized!(LimitKey);

/// What happens to a stream that has used up what it held, while its bucket has nothing left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum OnExhausted {
    /// It goes on, into debt.
    #[default]
    Finish,
    /// It ends, with its dialect's own end.
    Cut,
}

/// `[limits]`: where the counts are kept.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LimitStore {
    /// Shared by several proxies; absent: this process's memory.
    #[serde(serialize_with = "plain_url")]
    pub redis: Option<Secret>,
    /// In place of one in the address.
    #[serde(rename = "redis_password")]
    pub password: Option<Secret>,
    /// The longest that a decision waits for it.
    #[serde(serialize_with = "Shown::shown")]
    pub deadline: Duration,
    pub on_failure: OnStoreFailure,
}

impl Default for LimitStore {
    fn default() -> Self {
        Self { redis: None, password: None, deadline: DEADLINE, on_failure: OnStoreFailure::default() }
    }
}

/// What happens while the shared store cannot be reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum OnStoreFailure {
    /// Each proxy keeps its share of the limits in memory.
    #[default]
    Local,
    /// Requests under limits are refused.
    Reject,
}

impl Limit {
    /// Whether it bounds what requests cost.
    pub fn has_budget(&self) -> bool {
        self.cost_per_day.is_some() || self.cost_per_month.is_some()
    }

    /// Its tokens; of a limit of cost alone nothing but the request bounds the answer.
    pub fn token_limit(&self) -> TokenLimit {
        const BOUNDLESS: TokenLimit = TokenLimit { per_minute: 1, burst: u64::MAX, debt: 0, output_cap: None };
        self.tokens.unwrap_or(BOUNDLESS)
    }

    /// Whether the tokens of a request matter to it, as such or for what they cost.
    pub fn counts_tokens(&self) -> bool {
        self.tokens.is_some() || self.has_budget()
    }

    /// The part of this limit that one of `nodes` equal proxies keeps by itself.
    #[must_use]
    pub fn share(&self, nodes: u32) -> Self {
        let nodes = nodes.max(1);
        let part = |whole: u64| (whole / u64::from(nodes)).max(1);
        Self {
            tokens: self.tokens.map(|tokens| TokenLimit {
                per_minute: part(tokens.per_minute),
                burst: part(tokens.burst),
                debt: tokens.debt / u64::from(nodes),
                output_cap: tokens.output_cap,
            }),
            requests_per_minute: self
                .requests_per_minute
                .map(|requests| NonZeroU32::new(requests.get() / nodes).unwrap_or(NonZeroU32::MIN)),
            concurrent: self.concurrent.map(|most| (most / nodes).max(1)),
            cost_per_day: self.cost_per_day.map(part),
            cost_per_month: self.cost_per_month.map(part),
            ..self.clone()
        }
    }
}

fn dollars<S: Serializer>(nano: &Option<u64>, to: S) -> Result<S::Ok, S::Error> {
    nano.map(|nano| Cost(nano).dollars()).serialize(to)
}

fn plain_url<S: Serializer>(url: &Option<Secret>, to: S) -> Result<S::Ok, S::Error> {
    url.as_ref().map(|url| PlainUrl(url.expose())).serialize(to)
}

impl Checker<'_> {
    pub fn limits(&mut self, tables: &[Table<LimitTable>]) -> Vec<Arc<Limit>> {
        let mut taken = BTreeMap::new();
        let mut limits = Vec::new();
        for table in tables {
            let Some(limit) = self.limit(table) else { continue };
            let span = table.value.name.as_ref().map_or(&table.span, |at| &at.span);
            self.unique("limit", &limit.name, span, &mut taken);
            limits.push(Arc::new(limit));
        }
        limits
    }

    /// The limits that a route names.
    pub fn route_limits(
        &mut self,
        written: Option<&At<Vec<At<String>>>>,
        tables: &[Table<LimitTable>],
        limits: &[Arc<Limit>],
    ) -> Vec<Arc<Limit>> {
        let mut found: Vec<Arc<Limit>> = Vec::new();
        for at in written.iter().flat_map(|list| &list.value) {
            let name = at.value.trim();
            match limits.iter().find(|limit| *limit.name == *name) {
                Some(limit) if found.contains(limit) => {
                    self.problem(&at.span, format!("the limit \"{name}\" is named twice"));
                }
                Some(limit) => found.push(Arc::clone(limit)),
                None if self.lost.is_table_lost("limit") => {}
                None if tables.iter().any(|table| self.lost.may_be_called(&table.span, written_name(table), name)) => {}
                None if limits.is_empty() => {
                    let message = format!("there is no [[limit]]: add one with name = \"{name}\"");
                    self.problem(&at.span, message);
                }
                None => {
                    let names = limits.iter().map(|limit| &*limit.name);
                    self.problem(&at.span, format!("unknown limit \"{name}\": {}", hint(name, names)));
                }
            }
        }
        found
    }

    /// A budget needs the price of every model that its route takes.
    pub fn priced(
        &mut self,
        written: Option<&At<Vec<At<String>>>>,
        limits: &[Arc<Limit>],
        models: &[Glob],
        providers: &[Option<Arc<str>>],
        prices: &Prices,
    ) {
        let (Some(at), Some(budget)) = (written, limits.iter().find(|limit| limit.has_budget())) else { return };
        let every = [Glob::new("*")];
        let taken = if models.is_empty() { every.as_slice() } else { models };
        let lacks_price =
            |model: &&Glob| providers.iter().any(|provider| !prices.serves_budgets(provider.as_deref(), model));
        if let Some(model) = taken.iter().find(lacks_price) {
            let message = format!(
                "limit \"{}\" counts what requests cost, and no [[price]] covers the model \"{}\" of this route, nor does \
                 the catalogue for the `provider` of its upstreams: add a price, or name the route's `models`",
                budget.name, model.source
            );
            self.problem(&at.span, message);
        }
    }

    pub fn limit_store(&mut self, table: Option<&Table<LimitsTable>>) -> LimitStore {
        let Some(table) = table else { return LimitStore::default() };
        let file = &table.value;
        let redis = file.redis.as_ref().and_then(|at| self.redis(at));
        let password = file.redis_password_env.as_ref().and_then(|at| {
            if file.redis.is_none() {
                self.problem(&at.span, "a password without an address: add `redis`");
            }
            self.secret_from_env(at)
        });
        let deadline = self.positive("deadline", file.deadline.as_ref(), DEADLINE);
        LimitStore { redis, password, deadline, on_failure: file.on_failure.value_or_default() }
    }

    /// The address may hold a password, so it is never repeated.
    fn redis(&mut self, at: &At<String>) -> Option<Secret> {
        let text = at.value.as_str();
        let rest = ["redis://", "rediss://"].iter().find_map(|scheme| text.strip_prefix(scheme));
        let host = rest.map(|rest| rest.rsplit_once('@').map_or(rest, |(_, host)| host));
        let names_a_host = host.is_some_and(|host| !host.starts_with(['/', '?', ':']) && !host.is_empty());
        if !names_a_host && !text.starts_with("redis+unix:///") {
            let message = "this must be the address of a Redis or Valkey: \"redis://127.0.0.1:6379\", or with TLS and \
                           a password \"rediss://user:password@host:6379/0\"";
            self.problem(&at.span, message);
            return None;
        }
        Some(Secret::new(at.value.clone()))
    }

    fn limit(&mut self, table: &Table<LimitTable>) -> Option<Limit> {
        let file = &table.value;
        let missing = "this limit has no `name`, so no route could be under it";
        let name = self.needed(table, "name", file.name.as_ref(), missing)?;
        let limit = Limit {
            name: self.name(name).into(),
            key: file.key.value_or_default(),
            tokens: self.tokens(file),
            requests_per_minute: self
                .at_least_one("requests_per_minute", file.requests_per_minute.as_ref())
                .and_then(NonZeroU32::new),
            concurrent: self.at_least_one("concurrent", file.concurrent.as_ref()),
            cost_per_day: self.dollars("cost_per_day", file.cost_per_day.as_ref()),
            cost_per_month: self.dollars("cost_per_month", file.cost_per_month.as_ref()),
            on_exhausted: file.on_exhausted.value_or_default(),
        };
        let caps_nothing = file.tokens_per_minute.is_none()
            && file.requests_per_minute.is_none()
            && file.concurrent.is_none()
            && file.cost_per_day.is_none()
            && file.cost_per_month.is_none();
        if caps_nothing && !self.lost.may_have_lost(&table.span, &CAPS) {
            self.problem(&table.span, "this limit limits nothing: give it tokens_per_minute, for example");
        }
        Some(limit)
    }

    fn tokens(&mut self, file: &LimitTable) -> Option<TokenLimit> {
        let Some(per_minute) = &file.tokens_per_minute else {
            for (key, at) in [("burst", &file.burst), ("debt", &file.debt), ("output_cap", &file.output_cap)] {
                if let Some(at) = at {
                    self.problem(&at.span, format!("`{key}` belongs to tokens_per_minute, which is missing"));
                }
            }
            return None;
        };
        let per_minute_value = self.token_count("tokens_per_minute", per_minute);
        let burst = file.burst.as_ref().map_or(per_minute_value, |at| self.token_count("burst", at));
        let debt = file.debt.as_ref().map_or(burst, |at| at.value.min(TOKENS_MAX));
        let output_cap = file.output_cap.as_ref().map(|at| self.token_count("output_cap", at));
        Some(TokenLimit { per_minute: per_minute_value, burst, debt, output_cap })
    }

    fn token_count(&mut self, key: &str, at: &At<u64>) -> u64 {
        if at.value == 0 {
            self.problem(&at.span, format!("`{key}`: zero would let nothing pass"));
        } else if at.value > TOKENS_MAX {
            self.problem(
                &at.span,
                format!("`{key}`: more than {TOKENS_MAX} cannot be counted; leave it out for no limit"),
            );
        }
        at.value.clamp(1, TOKENS_MAX)
    }

    fn at_least_one(&mut self, key: &str, written: Option<&At<u32>>) -> Option<u32> {
        let message = format!("`{key}`: zero would let nothing pass; leave it out for no limit");
        self.fitting(written, |most| most > 0, message).map(|most| most.max(1))
    }

    fn dollars(&mut self, key: &str, written: Option<&At<f64>>) -> Option<u64> {
        let message = format!("`{key}` is an amount of US dollars above zero, as 5.0");
        let dollars = self.fitting(written, |dollars| dollars > 0.0 && dollars <= DOLLARS_MAX, message);
        dollars.map(|dollars| (dollars * NANO).round() as u64)
    }
}

fn written_name(table: &Table<LimitTable>) -> Option<&str> {
    table.value.name.as_ref().map(|at| at.value.as_str())
}
