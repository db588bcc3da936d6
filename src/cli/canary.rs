//! `streamgauge canary`: how canaries stand, in words, and the four things that people can do about them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::ValueEnum;
use clap::builder::PossibleValue;
use serde::Deserialize;

use super::admin::{self, encoded, read};
use super::admin_views::{Canary, CanaryFact, Failures, Tally};

/// Decisions that are shown of each canary.
const DECISIONS_SHOWN: usize = 5;

#[derive(clap::Args)]
pub(super) struct Options {
    /// What to do; without it, list.
    #[arg(value_enum, default_value = "list")]
    action: Action,
    /// The route of the canary; required if there are several canaries.
    route: Option<String>,
    /// The proxy's admin address: `http://127.0.0.1:9090`, `127.0.0.1:9090` or `unix:/path`. Off loopback it asks for the
    /// token in STREAMGAUGE_ADMIN_TOKEN.
    #[arg(long, env = "STREAMGAUGE_ADMIN", default_value = "http://127.0.0.1:9090", value_name = "URL")]
    admin: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Action {
    /// List canaries with their state, its reason and the next step.
    List,
    /// Send all requests to the canary, now.
    Promote,
    /// Send none to the canary, now.
    Rollback,
    /// Take no further step. A worse canary is still rolled back.
    Pause,
    /// Continue; a canary that was rolled back starts anew at its first step.
    Resume,
}

#[derive(Deserialize)]
struct List {
    canaries: Vec<View>,
}

#[derive(Deserialize)]
pub(super) struct View {
    #[serde(flatten)]
    pub(super) now: Canary,
    pub(super) steps: Vec<u8>,
    step_requests: u64,
    min_requests: u64,
    /// `None` from an older proxy.
    step_baseline_requests: Option<u64>,
    min_baseline_requests: Option<u64>,
    step_s: f64,
    step_time_s: f64,
    /// The latest first.
    decisions: Vec<DecisionView>,
    /// After a command to a fleet: who follows.
    replicas: Option<Replicas>,
}

#[derive(Deserialize)]
struct Replicas {
    followed: Vec<String>,
    missing: Vec<String>,
}

/// What there is to say, and whether all replicas of a fleet do what was asked for.
pub(super) struct Said {
    pub(super) words: String,
    pub(super) is_followed: bool,
}

#[derive(Deserialize)]
struct DecisionView {
    at_unix_s: f64,
    by: String,
    words: String,
}

/// Does what was typed; what there is to say about it.
///
/// # Errors
/// Why it was not done, and what to type instead.
pub(super) fn run(options: &Options) -> Result<Said, String> {
    let all = list(&options.admin)?;
    let views: Vec<&View> =
        all.iter().filter(|view| options.route.as_ref().is_none_or(|route| *route == view.now.route)).collect();
    let word = options.action.to_possible_value().filter(|_| options.action != Action::List);
    let Some(word) = word.as_ref().map(PossibleValue::get_name) else {
        return Ok(Said { words: shown(&views, options.route.as_deref()), is_followed: true });
    };
    let route = match (&options.route, all.as_slice()) {
        (Some(route), _) => route,
        (None, [only]) => &only.now.route,
        (None, []) => return Err(NO_CANARY.to_owned()),
        (None, several) => {
            let names: Vec<&str> = several.iter().map(|view| view.now.route.as_str()).collect();
            return Err(format!("which one? Name its route: {}", names.join(", ")));
        }
    };
    let path = format!("/api/canaries/{}/{word}", encoded(route));
    let view = read::<View>(&admin::asked(&options.admin, "POST", &path)?)?;
    let mut words = view.words();
    let Some(Replicas { followed, missing }) = &view.replicas else { return Ok(Said { words, is_followed: true }) };
    words.push_str(&format!("  replicas  {} follow", followed.len()));
    if !missing.is_empty() {
        words.push_str(&format!(", not yet: {}", missing.join(", ")));
    }
    words.push('\n');
    Ok(Said { words, is_followed: missing.is_empty() })
}

/// How all canaries of the proxy at `admin` stand.
///
/// # Errors
/// As of [`admin::asked`].
pub(super) fn list(admin: &str) -> Result<Vec<View>, String> {
    Ok(read::<List>(&admin::asked(admin, "GET", "/api/canaries")?)?.canaries)
}

const NO_CANARY: &str = "no route has a canary: give one `canary = { target = \"…\" }`";

fn shown(views: &[&View], route: Option<&str>) -> String {
    match (views, route) {
        ([], None) => format!("{NO_CANARY}\n"),
        ([], Some(route)) => format!("no canary on a route \"{route}\"\n"),
        _ => views.iter().map(|view| view.words()).collect::<Vec<_>>().join("\n"),
    }
}

/// Since when, and how often.
fn since(fact: &CanaryFact, Failures { first, last, count }: &Failures) -> String {
    let worse = fact.worse_since.as_ref().map_or_else(String::new, |since| format!(" worse since {},", clock(since)));
    let times = match count {
        1 => format!("once, at {}", clock(first)),
        count => format!("{count} times from {} to {}", clock(first), clock(last)),
    };
    format!("{}:{worse} {times}", fact.fact.replace('_', " "))
}

fn tally(tally: &Tally) -> String {
    format!("{} of {}", tally.yes, tally.of)
}

/// Date and time of a timestamp, without fractions.
fn clock(timestamp: &str) -> String {
    timestamp.get(..19).unwrap_or(timestamp).replace('T', " ")
}

impl View {
    fn words(&self) -> String {
        let Canary { route, canary, state, percent, next, facts, .. } = &self.now;
        let mut out = format!("{route}: canary `{canary}` at {percent} %, {state}\n");
        let steps: Vec<String> = self.steps.iter().map(|step| self.step(*step)).collect();
        let mut line = |text: String| {
            out.push_str("  ");
            out.push_str(text.trim_end());
            out.push('\n');
        };
        line(format!("steps     {} %", steps.join(" → ")));
        if ["running", "paused", "watching"].contains(&state.as_str()) {
            let baseline = self.step_baseline_requests.zip(self.min_baseline_requests);
            let baseline = baseline.map_or_else(String::new, |(had, min)| format!(" {had} of {min} of the baseline,"));
            line(format!(
                "this step {} of {} canary requests,{baseline} {} of {}",
                self.step_requests,
                self.min_requests,
                time(self.step_s),
                time(self.step_time_s)
            ));
        }
        line(format!("next      {next}"));
        let needed = facts.first().map_or(0.0, |fact| fact.needed);
        line(format!("{:<11}{:<16}{:<16}evidence of harm (rolls back at {needed:.0})", "", "canary", "baseline"));
        for fact in facts {
            let name = fact.fact.replace('_', " ");
            line(format!("{name:<11}{:<16}{:<16}{:.2}", tally(&fact.canary), tally(&fact.baseline), fact.evidence));
        }
        for fact in facts {
            if let Some(seen) = &fact.seen {
                line(since(fact, seen));
            }
            if let Some(step) = fact.step.as_ref().filter(|step| step.canary.yes > 0) {
                let (canary, baseline, chance) = (tally(&step.canary), tally(&step.baseline), step.chance);
                line(format!(
                    "{}: in this step {canary}, of the baseline's {baseline} (by chance {chance:.3})",
                    fact.fact.replace('_', " ")
                ));
            }
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        for decision in self.decisions.iter().take(DECISIONS_SHOWN) {
            let ago = time((now - decision.at_unix_s).max(0.0));
            line(format!("{ago} ago, by the {}: {}", decision.by, decision.words));
        }
        out
    }

    fn step(&self, step: u8) -> String {
        if step == self.now.percent { format!("[{step}]") } else { step.to_string() }
    }
}

/// Whole seconds, minutes or hours.
fn time(seconds: f64) -> String {
    let whole = Duration::try_from_secs_f64(seconds).unwrap_or_default().as_secs();
    match whole {
        0..120 => format!("{whole} s"),
        120..7200 => format!("{} min", whole / 60),
        _ => format!("{} h", whole / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_canary_is_told_in_words() {
        let body = r#"{"route":"chat","canary":"next","state":"running","percent":5,"next":"25 % in 9 s.","steps":[1,5,25],
            "step_requests":7,"min_requests":20,"step_baseline_requests":31,"min_baseline_requests":20,"step_s":61.2,"step_time_s":600.0,
            "facts":[{"fact":"odd_length","evidence":0.5,"needed":526.3,"canary":{"yes":0,"of":7},"baseline":{"yes":2,"of":120},
            "step":{"canary":{"yes":3,"of":7},"baseline":{"yes":0,"of":31},"chance":0.0041},
            "seen":{"first":"2026-11-27T03:10:00.120Z","last":"2026-11-27T03:14:09.000Z","count":12},"worse_since":"2026-11-27T03:12:44.000Z"}],
            "decisions":[{"at_unix_s":0,"by":"judge","words":"raised from 1 % to 5 %: 20 of its requests showed no harm"}]}"#;
        let words = read::<View>(body).unwrap().words();
        let lines: Vec<&str> = words.lines().collect();
        assert_eq!(
            lines[..8],
            [
                "chat: canary `next` at 5 %, running",
                "  steps     1 → [5] → 25 %",
                "  this step 7 of 20 canary requests, 31 of 20 of the baseline, 61 s of 10 min",
                "  next      25 % in 9 s.",
                "             canary          baseline        evidence of harm (rolls back at 526)",
                "  odd length 0 of 7          2 of 120        0.50",
                "  odd length: worse since 2026-11-27 03:12:44, 12 times from 2026-11-27 03:10:00 to 2026-11-27 03:14:09",
                "  odd length: in this step 3 of 7, of the baseline's 0 of 31 (by chance 0.004)",
            ]
        );
        assert!(lines[8].ends_with("ago, by the judge: raised from 1 % to 5 %: 20 of its requests showed no harm"));
    }
}
