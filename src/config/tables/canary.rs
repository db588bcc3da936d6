//! `canary` and `sticky` of a route: how one of its targets takes over, and how its requests are told apart.

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::target::{Target, TargetTable};
use crate::config::checker::Checker;
use crate::config::problems::hint;
use crate::config::units::{At, DurationText, Table, Written};
use crate::config::view::Shown;

const STEPS: [u8; 5] = [1, 5, 25, 50, 100];
const STEP_TIME: Duration = Duration::from_secs(10 * 60);
const MIN_REQUESTS: u64 = 200;
const ALPHA: f64 = 0.01;

/// Steps of one rollout.
const STEPS_MAX: usize = 100;

/// More would take any rollout months.
const MIN_REQUESTS_MAX: u64 = 10_000_000;

/// Smaller levels are beyond what the arithmetic of the test is good for.
const ALPHA_MIN: f64 = 1e-9;

/// A canary: a target whose share grows in steps, and that is rolled back when it is worse than the others.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CanaryTable {
    /// The name of one of the route's targets. The others are the baseline; among them their weights count.
    #[schemars(required)]
    pub target: Option<At<String>>,
    /// Its share of requests in percent, step by step. Overrides its weight.
    #[schemars(extend("default" = [1, 5, 25, 50, 100]))]
    pub steps: Option<At<Vec<At<u32>>>>,
    /// How long a step lasts at the least.
    #[schemars(extend("default" = "10m"))]
    pub step_time: Option<At<DurationText>>,
    /// How many requests a step sends to it at the least.
    #[schemars(range(min = 1), extend("default" = 200))]
    pub min_requests: Option<At<u64>>,
    /// The probability that a good version is rolled back, over the whole rollout.
    #[schemars(range(min = 0.0, max = 0.5), extend("default" = 0.01))]
    pub alpha: Option<At<f64>>,
    /// A first token later than this is late. Absent: later than 95 of 100 of the baseline's.
    pub first_token_objective: Option<At<DurationText>>,
}

/// `sticky`: what keeps a request in its cohort.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Sticky {
    /// By the authenticated user; where none is known, by address.
    #[default]
    User,
    Address,
    /// Each request for itself.
    None,
}

/// `canary`: how one target of a route takes over from the others.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Canary {
    /// The name of one of the route's targets; the others are the baseline.
    #[serde(serialize_with = "Shown::shown")]
    pub target: Arc<str>,
    /// Shares of requests in percent, ascending, each from 1 to 100. Never empty.
    pub steps: Vec<u8>,
    /// How long each step lasts at the least.
    #[serde(serialize_with = "Shown::shown")]
    pub step_time: Duration,
    /// How many requests each step sends to the canary at the least. Never zero.
    pub min_requests: u64,
    /// The probability with which a canary that is no worse than the baseline may be rolled back; above 0, at most 0.5.
    pub alpha: f64,
    /// A first token later than this is late. `None`: later than the baseline's own 95th percentile.
    #[serde(serialize_with = "Shown::shown")]
    pub first_token_objective: Option<Duration>,
}

impl Canary {
    /// The share of step number `step`, in percent; past the last one, the last one's.
    pub fn share(&self, step: usize) -> u8 {
        self.steps.get(step).or(self.steps.last()).copied().unwrap_or(0)
    }
}

impl Checker<'_> {
    /// The canary of a route whose other targets are the baseline. `written`: all of its targets, also those that could not be
    /// read.
    pub fn canary(
        &mut self,
        table: Option<&Table<CanaryTable>>,
        targets: &[Target],
        written: Option<&At<Vec<Table<TargetTable>>>>,
        are_targets_lost: bool,
    ) -> Option<Canary> {
        let table = table?;
        let file = &table.value;
        let written = written.map(|list| list.value.as_slice()).filter(|_| !are_targets_lost);
        let all_read = targets.len() == written.map_or(1, <[_]>::len) && !are_targets_lost;
        let target = self.canary_target(table, targets, written, all_read);
        let plan = Canary {
            target: target.unwrap_or_default().into(),
            steps: self.steps(file.steps.as_ref()),
            step_time: self.duration(file.step_time.as_ref(), STEP_TIME),
            min_requests: file.min_requests.value_or(MIN_REQUESTS),
            alpha: file.alpha.value_or(ALPHA),
            first_token_objective: file.first_token_objective.as_ref().map(|at| at.value.0),
        };
        let message = format!("`min_requests` is at least 1 and at most {MIN_REQUESTS_MAX}");
        self.fitting(file.min_requests.as_ref(), |least| (1..=MIN_REQUESTS_MAX).contains(&least), message);
        let message = "`alpha` is how likely a good canary may be rolled back: above 0, at most 0.5, as 0.01";
        self.fitting(file.alpha.as_ref(), |alpha| (ALPHA_MIN..=0.5).contains(&alpha), message);
        let message = "`first_token_objective`: every first token would be late";
        self.fitting(file.first_token_objective.as_ref(), |objective| !objective.0.is_zero(), message);
        Some(plan)
    }

    fn canary_target(
        &mut self,
        table: &Table<CanaryTable>,
        targets: &[Target],
        written: Option<&[Table<TargetTable>]>,
        all_read: bool,
    ) -> Option<String> {
        let names = || targets.iter().map(|target| &*target.name);
        let missing = "this canary names no `target`: say which one of the route's is new";
        let at = self.needed(table, "target", table.value.target.as_ref(), missing)?;
        let name = at.value.trim();
        if !all_read {
            self.written_target(at, written);
            return Some(name.to_owned());
        }
        if !names().any(|known| known == name) {
            let message = format!("the route has no target \"{name}\": {}", hint(name, names()));
            self.problem(&at.span, message);
        } else if targets.len() == 1 {
            let message = "the canary is the route's only target, so there is nothing to compare it with: keep the one \
                           that it shall replace";
            self.problem(&at.span, message);
        } else if targets.iter().all(|target| *target.name == *name || target.weight == 0) {
            let message = "the targets beside the canary all have weight 0, so there is nothing to compare it with";
            self.problem(&at.span, message);
        }
        Some(name.to_owned())
    }

    /// Where not all of the route's targets could be read: whether one of them may be meant.
    fn written_target(&mut self, at: &At<String>, written: Option<&[Table<TargetTable>]>) {
        let Some(list) = written else { return };
        let name = at.value.trim();
        let called = |table: &Table<TargetTable>| {
            table.value.name.as_ref().or(table.value.upstream.as_ref()).map(|at| at.value.clone())
        };
        let may_be = |table: &Table<TargetTable>| self.lost.may_be_called(&table.span, called(table).as_deref(), name);
        if list.iter().any(may_be) {
            return;
        }
        let names: Vec<String> = list.iter().filter_map(called).collect();
        let hint = hint(name, names.iter().map(String::as_str));
        self.problem(&at.span, format!("the route has no target \"{name}\": {hint}"));
    }

    fn steps(&mut self, written: Option<&At<Vec<At<u32>>>>) -> Vec<u8> {
        let Some(list) = written else { return STEPS.to_vec() };
        if list.value.is_empty() {
            self.problem(&list.span, "`steps` is empty: write shares in percent, as [1, 5, 25, 50, 100]");
        } else if list.value.len() > STEPS_MAX {
            self.problem(&list.span, format!("more than {STEPS_MAX} `steps`"));
        }
        let mut steps: Vec<u8> = Vec::new();
        for at in &list.value {
            match u8::try_from(at.value) {
                Ok(step @ 1..=100) => {
                    if steps.last().is_some_and(|last| step <= *last) {
                        self.problem(&at.span, "each of the `steps` is larger than the one before, as [1, 5, 25]");
                    }
                    steps.push(step);
                }
                _ => self.problem(&at.span, "a step is a share in percent, from 1 to 100"),
            }
        }
        steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::tests::parsed;

    fn route(more: &str) -> String {
        format!("[[upstream]]\nname = \"a\"\nurl = \"http://a\"\n[[route]]\n{more}\n")
    }

    const TARGETS: &str = "targets = [{ upstream = \"a\" }, { name = \"next\", upstream = \"a\", weight = 0 }]";

    #[test]
    fn a_canary_needs_little() {
        let settings = parsed(&route(&format!("{TARGETS}\ncanary = {{ target = \"next\" }}"))).unwrap();
        let plan = settings.routes[0].canary.clone().unwrap();
        let expected = Canary {
            target: "next".into(),
            steps: vec![1, 5, 25, 50, 100],
            step_time: Duration::from_secs(600),
            min_requests: 200,
            alpha: 0.01,
            first_token_objective: None,
        };
        assert_eq!(plan, expected);
        assert_eq!(settings.routes[0].sticky, Sticky::User);
    }

    #[test]
    fn a_canary_says_all_it_wants() {
        let canary = "sticky = \"none\"\ncanary = { target = \"a\", steps = [10, 100], step_time = \"0s\", \
                      min_requests = 5, alpha = 0.5, first_token_objective = \"2s\" }";
        // The other target has weight 0.
        let problems = parsed(&route(&format!("{TARGETS}\n{canary}"))).unwrap_err().to_string();
        assert!(problems.contains("7:21: the targets beside the canary all have weight 0"), "{problems}");
        let settings = parsed(&route(&format!("{}\n{canary}", TARGETS.replace(", weight = 0", "")))).unwrap();
        let plan = settings.routes[0].canary.clone().unwrap();
        assert_eq!((plan.steps, plan.step_time, plan.min_requests), (vec![10, 100], Duration::ZERO, 5));
        assert_eq!((plan.alpha, plan.first_token_objective), (0.5, Some(Duration::from_secs(2))));
        assert_eq!(settings.routes[0].sticky, Sticky::None);
    }

    #[test]
    fn each_mistake_is_told_with_its_place() {
        let cases = [
            ("{ }", "6:10: this canary names no `target`: say which one of the route's is new"),
            ("{ target = \"nxt\" }", "6:21: the route has no target \"nxt\": did you mean \"next\"?"),
            (
                "{ target = \"next\", steps = [] }",
                "6:37: `steps` is empty: write shares in percent, as [1, 5, 25, 50, 100]",
            ),
            ("{ target = \"next\", steps = [0] }", "6:38: a step is a share in percent, from 1 to 100"),
            ("{ target = \"next\", steps = [101] }", "6:38: a step is a share in percent, from 1 to 100"),
            (
                "{ target = \"next\", steps = [5, 5] }",
                "6:41: each of the `steps` is larger than the one before, as [1, 5, 25]",
            ),
            (
                "{ target = \"next\", alpha = 0.0 }",
                "6:37: `alpha` is how likely a good canary may be rolled back: above 0, at most 0.5, as 0.01",
            ),
            ("{ target = \"next\", min_requests = 0 }", "6:44: `min_requests` is at least 1 and at most 10000000"),
            (
                "{ target = \"next\", first_token_objective = \"0s\" }",
                "6:53: `first_token_objective`: every first token would be late",
            ),
            ("{ target = \"next\", step = [1] }", "6:29: unknown key `step`: did you mean `steps`?"),
        ];
        for (canary, expected) in cases {
            let problems = parsed(&route(&format!("{TARGETS}\ncanary = {canary}"))).unwrap_err().to_string();
            assert!(problems.ends_with(expected), "{canary}\n{problems}\n{expected}");
            assert_eq!(problems.lines().count(), 1, "{problems}");
        }
        let alone = parsed(&route("upstream = \"a\"\ncanary = { target = \"a\" }")).unwrap_err().to_string();
        assert!(alone.contains("6:21: the canary is the route's only target"), "{alone}");
        let word = parsed(&route("upstream = \"a\"\nsticky = \"usr\"")).unwrap_err().to_string();
        assert!(word.contains("6:10: `sticky`: unknown word \"usr\": did you mean \"user\"?"), "{word}");
    }
}
