//! Failover, retries and health checks.

use super::super::address::check_path;
use super::super::defaults;
use super::super::file::{FailoverWord, FallbackTable, HealthTable, RetriesTable, RouteTable, TargetTable};
use super::super::glob::PathPattern;
use super::super::read::Readable;
use super::super::settings::{Failover, HealthCheck, Retries, Target};
use super::super::units::{At, Table};
use super::Checker;
use super::upstream::Declared;

/// Most attempts that a request may be given: what ten backends could not answer, an eleventh will not.
const ATTEMPTS_MAX: u32 = 10;

/// Longest model name that can be put in place of another, in bytes.
const MODEL_MAX: usize = 256;

pub(super) fn rule(written: Option<&At<FailoverWord>>) -> Failover {
    match written.map(|at| at.value) {
        None | Some(FailoverWord::Llm) => Failover::Llm,
        Some(FailoverWord::Always) => Failover::Always,
        Some(FailoverWord::Unsent) => Failover::Unsent,
        Some(FailoverWord::Never) => Failover::Never,
    }
}

impl Checker<'_> {
    /// Checked as a target is, but for the weight.
    pub(super) fn fallback(
        &mut self,
        written: &[Table<FallbackTable>],
        pattern: &PathPattern,
        readable: &Readable,
        upstreams: &[Declared],
    ) -> Vec<Target> {
        let as_target = |table: &Table<FallbackTable>| Table {
            value: TargetTable {
                upstream: table.value.upstream.clone(),
                name: table.value.name.clone(),
                weight: None,
                path: table.value.path.clone(),
                model: table.value.model.clone(),
            },
            span: table.span.clone(),
        };
        written.iter().filter_map(|table| self.target(&as_target(table), pattern, readable, upstreams)).collect()
    }

    pub(super) fn model(&mut self, written: Option<&At<String>>) -> Option<String> {
        let at = written?;
        if at.value.is_empty() || at.value.len() > MODEL_MAX || at.value.chars().any(char::is_control) {
            self.problem(&at.span, "`model` is the name put in place of the request's, as \"gpt-4o-mini\"");
        }
        Some(at.value.clone())
    }

    pub(super) fn retries(&mut self, table: Option<&RetriesTable>) -> Retries {
        let nothing = RetriesTable::default();
        let file = table.unwrap_or(&nothing);
        if let Some(at) = file.attempts.as_ref().filter(|at| !(1..=ATTEMPTS_MAX).contains(&at.value)) {
            self.problem(&at.span, format!("`attempts` counts the first one too: 1 to {ATTEMPTS_MAX}"));
        }
        if let Some(at) = file.budget.as_ref().filter(|at| !(0.0..=1.0).contains(&at.value)) {
            self.problem(&at.span, "`budget` is a share of the active requests, from 0.0 to 1.0");
        }
        Retries {
            attempts: file.attempts.as_ref().map_or(defaults::RETRY_ATTEMPTS, |at| at.value),
            budget: file.budget.as_ref().map_or(defaults::RETRY_BUDGET, |at| at.value),
        }
    }

    pub(super) fn hedge_after(&mut self, file: &RouteTable, targets: &[Target]) -> Option<std::time::Duration> {
        let at = file.hedge_after.as_ref()?;
        let forbidden = file.failover.as_ref().map(|at| at.value);
        if at.value.0.is_zero() {
            self.problem(&at.span, "`hedge_after`: zero would ask twice each time; leave it out for no hedging");
        } else if matches!(forbidden, Some(FailoverWord::Unsent | FailoverWord::Never)) {
            self.problem(&at.span, "`hedge_after` asks a second time, and this route's `failover` forbids that");
        } else if let [only] = targets
            && only.upstream.endpoints.len() == 1
            && file.fallback.is_empty()
        {
            self.problem(&at.span, "`hedge_after` needs a second place to ask: a target, a url or a `fallback` more");
        }
        Some(at.value.0)
    }

    pub(super) fn health(&mut self, table: &Table<HealthTable>) -> Option<HealthCheck> {
        let interval = self.positive("interval", table.value.interval.as_ref(), defaults::HEALTH_INTERVAL);
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
