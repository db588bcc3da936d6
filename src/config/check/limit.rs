//! `[[limit]]` and `[limits]`.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use super::super::defaults;
use super::super::file::{LimitKeyWord, LimitTable, LimitsTable, OnExhaustedWord, OnFailureWord};
use super::super::glob::Glob;
use super::super::limits::{Limit, LimitKey, LimitStore, OnExhausted, OnStoreFailure, TokenLimit};
use super::super::prices::Prices;
use super::super::problems::hint;
use super::super::read::Readable;
use super::super::secret::Secret;
use super::super::units::{At, Table};
use super::Checker;

/// The most tokens that a limit can count: beyond lies a slip, and numbers that overflow in millionths.
const TOKENS_MAX: u64 = 1_000_000_000_000;

/// The most US dollars that a budget can hold.
const DOLLARS_MAX: f64 = 1e9;

const NANO: f64 = 1e9;

/// What a limit can cap.
const CAPS: [&str; 5] = ["tokens_per_minute", "requests_per_minute", "concurrent", "cost_per_day", "cost_per_month"];

impl Checker<'_> {
    pub(super) fn limits(&mut self, readable: &Readable) -> Vec<Arc<Limit>> {
        let mut taken = BTreeMap::new();
        let mut limits = Vec::new();
        for table in &readable.file.limit {
            let Some(limit) = self.limit(table, readable) else { continue };
            let span = table.value.name.as_ref().map_or(&table.span, |at| &at.span);
            self.unique("limit", &limit.name, span, &mut taken);
            limits.push(Arc::new(limit));
        }
        limits
    }

    /// The limits that a route names.
    pub(super) fn route_limits(
        &mut self,
        written: Option<&At<Vec<At<String>>>>,
        readable: &Readable,
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
                None if readable.is_table_lost("limit") => {}
                None if may_be_declared(readable, name) => {}
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
    pub(super) fn priced(
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

    pub(super) fn limit_store(&mut self, table: Option<&Table<LimitsTable>>) -> LimitStore {
        let Some(table) = table else { return LimitStore::default() };
        let file = &table.value;
        let redis = file.redis.as_ref().and_then(|at| self.redis(at));
        let password = file.redis_password_env.as_ref().and_then(|at| {
            if file.redis.is_none() {
                self.problem(&at.span, "a password without an address: add `redis`");
            }
            self.secret_from_env(at)
        });
        let on_failure = match file.on_failure.as_ref().map(|at| at.value) {
            None | Some(OnFailureWord::Local) => OnStoreFailure::Local,
            Some(OnFailureWord::Reject) => OnStoreFailure::Reject,
        };
        let deadline = self.positive("deadline", file.deadline.as_ref(), defaults::LIMITS_DEADLINE);
        LimitStore { redis, password, deadline, on_failure }
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

    fn limit(&mut self, table: &Table<LimitTable>, readable: &Readable) -> Option<Limit> {
        let file = &table.value;
        let Some(name) = &file.name else {
            if !readable.is_lost(&table.span, "name") {
                self.problem(&table.span, "this limit has no `name`, so no route could be under it");
            }
            return None;
        };
        let limit = Limit {
            name: self.name(name).into(),
            key: key(file.key.as_ref().map(|at| at.value)),
            tokens: self.tokens(file),
            requests_per_minute: self
                .at_least_one("requests_per_minute", file.requests_per_minute.as_ref())
                .and_then(NonZeroU32::new),
            concurrent: self.at_least_one("concurrent", file.concurrent.as_ref()),
            cost_per_day: self.dollars("cost_per_day", file.cost_per_day.as_ref()),
            cost_per_month: self.dollars("cost_per_month", file.cost_per_month.as_ref()),
            on_exhausted: match file.on_exhausted.as_ref().map(|at| at.value) {
                None | Some(OnExhaustedWord::Finish) => OnExhausted::Finish,
                Some(OnExhaustedWord::Cut) => OnExhausted::Cut,
            },
        };
        let caps_nothing = file.tokens_per_minute.is_none()
            && file.requests_per_minute.is_none()
            && file.concurrent.is_none()
            && file.cost_per_day.is_none()
            && file.cost_per_month.is_none();
        if caps_nothing && !readable.may_have_lost(&table.span, &CAPS) {
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
        let at = written?;
        if at.value == 0 {
            self.problem(&at.span, format!("`{key}`: zero would let nothing pass; leave it out for no limit"));
        }
        Some(at.value.max(1))
    }

    fn dollars(&mut self, key: &str, written: Option<&At<f64>>) -> Option<u64> {
        let at = written?;
        if !(at.value > 0.0 && at.value <= DOLLARS_MAX) {
            self.problem(&at.span, format!("`{key}` is an amount of US dollars above zero, as 5.0"));
            return None;
        }
        Some((at.value * NANO).round() as u64)
    }
}

/// Whether a `[[limit]]` that could not be read in full may be the one of this name.
fn may_be_declared(readable: &Readable, name: &str) -> bool {
    readable.file.limit.iter().any(|table| {
        let written = table.value.name.as_ref().map(|at| at.value.as_str());
        readable.may_be_called(&table.span, written, name)
    })
}

fn key(word: Option<LimitKeyWord>) -> LimitKey {
    match word {
        None | Some(LimitKeyWord::User) => LimitKey::User,
        Some(LimitKeyWord::Team) => LimitKey::Team,
        Some(LimitKeyWord::Key) => LimitKey::Key,
        Some(LimitKeyWord::Ip) => LimitKey::Ip,
        Some(LimitKeyWord::Route) => LimitKey::Route,
        Some(LimitKeyWord::Global) => LimitKey::Global,
    }
}
