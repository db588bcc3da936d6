//! `/api/canaries`: how the canaries stand, and what people may do about them.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};

use super::answer::Answer;
use super::limits::decoded;
use crate::policy::canary::{Bounds, Command, Decision, Fact, FactReport};
use crate::proxy::{FleetView, Rollout, Shared, Undone};
use crate::telemetry::metrics::{Metrics, TrafficShare};
use crate::telemetry::timestamp;

/// Puts how all canaries stand into the metrics.
pub(super) fn tell(shared: &Shared, metrics: &Metrics) {
    let generation = shared.generation.load();
    let rollouts = || generation.rollouts.values();
    let shares = rollouts().flat_map(|rollout| {
        let route = &**rollout.route();
        rollout.shares().map(move |(variant, share)| TrafficShare { route, variant, share })
    });
    let evidence = rollouts().flat_map(|rollout| {
        let facts = rollout.report().facts.into_iter();
        facts.map(|fact| (&**rollout.route(), fact.finding.fact, fact.finding.evidence))
    });
    metrics.canaries(shares, evidence);
}

/// `GET /api/canaries`.
pub(super) fn list(shared: &Shared) -> Value {
    let generation = shared.generation.load();
    let mut rollouts: Vec<_> = generation.rollouts.values().collect();
    rollouts.sort_by(|a, b| a.route().cmp(b.route()));
    let canaries: Vec<Value> = rollouts.into_iter().map(|rollout| view(shared, rollout)).collect();
    json!({ "fleet": shared.fleet.view().map(|fleet| fleet_view(shared, &fleet)), "canaries": canaries })
}

/// The replicas that judge together.
fn fleet_view(shared: &Shared, fleet: &FleetView) -> Value {
    let members = fleet.roster.members.iter().map(
        |member| json!({ "replica": member.owner, "version": member.says.as_ref().map(|says| says.version.as_str()) }),
    );
    json!({
        "name": &*fleet.name,
        "replica": &*shared.fleet.owner,
        "members": members.collect::<Vec<_>>(),
        "trouble": fleet.trouble,
    })
}

/// What a path below `/api/canaries/` asks to be done: `{route}/{command}`.
pub(super) fn command(path: &str) -> Option<Command> {
    let (_, word) = path.strip_prefix("/api/canaries/")?.rsplit_once('/')?;
    Command::ALL.into_iter().find(|command| command.as_str() == word)
}

/// `POST /api/canaries/{route}/{command}`; the route's name is percent-encoded.
pub(super) async fn obey(shared: &Shared, command: Command, path: &str) -> Answer {
    let inside = path.strip_prefix("/api/canaries/").and_then(|path| path.rsplit_once('/'));
    let Some(route) = inside.and_then(|(route, _)| decoded(&route.replace('+', "%2B"))) else {
        return Answer::error(400, "the route's name must be percent-encoded UTF-8");
    };
    match shared.command_canary(&route, command).await {
        None => Answer::error(404, &no_canary(shared, &route)),
        Some(Err(undone @ Undone::Refused(_))) => Answer::error(409, &undone.to_string()),
        Some(Err(undone)) => Answer::error(503, &undone.to_string()),
        Some(Ok(followers)) => {
            let generation = shared.generation.load();
            let mut answer = json!(generation.rollouts.get(&*route).map(|rollout| view(shared, rollout)));
            if let (Some(followers), Some(answer)) = (followers, answer.as_object_mut()) {
                let told = json!({ "followed": followers.followed, "missing": followers.missing });
                answer.insert("replicas".to_owned(), told);
            }
            Answer::json(200, &answer)
        }
    }
}

fn no_canary(shared: &Shared, route: &str) -> String {
    let generation = shared.generation.load();
    let mut names: Vec<&str> = generation.rollouts.keys().map(|name| &**name).collect();
    names.sort_unstable();
    if names.is_empty() {
        return "no route has a canary: give one `canary = { target = \"…\" }`".to_owned();
    }
    let shown: String = route.chars().take(128).collect();
    format!("there is no canary on a route \"{shown}\"; those with one are: {}", names.join(", "))
}

fn view(shared: &Shared, rollout: &Rollout) -> Value {
    let (plan, report) = (rollout.plan(), rollout.report());
    let on_hold = shared.generation.load().canary_hold(rollout.route());
    let in_fleet = shared.canary_in_fleet(rollout);
    let waits = in_fleet.as_ref().and_then(|fleet| fleet.waits);
    let next = match (&on_hold, waits) {
        (Some(why), _) => format!("It stays at {} % and nothing is compared: {why}.", report.share),
        (None, Some(waits)) => format!("It stays at {} % {waits}.", report.share),
        (None, None) => report.next,
    };
    json!({
        "route": &**rollout.route(),
        "canary": &*plan.target,
        "state": report.state.as_str(),
        "percent": report.share,
        "on_hold": on_hold,
        "next": next,
        "next_percent": report.next_share,
        "shares": rollout.shares().map(|(variant, share)| json!({ "variant": variant, "share": share })).collect::<Vec<_>>(),
        "steps": plan.steps,
        "step_requests": report.step_requests,
        "min_requests": plan.min_requests,
        "step_baseline_requests": report.step_baseline_requests,
        "min_baseline_requests": report.baseline_requests_min,
        "step_s": report.step_age.as_secs_f64(),
        "step_time_s": plan.step_time.as_secs_f64(),
        "alpha": plan.alpha,
        "facts": report.facts.iter().map(fact_view).collect::<Vec<_>>(),
        "decisions": report.decisions.iter().rev().map(decision_view).collect::<Vec<_>>(),
        "fleet": in_fleet.map(|fleet| json!({
            "reach": fleet.reach,
            "version": fleet.version,
            "judge": fleet.judge,
            "judges": fleet.judges,
            "plans_differ": fleet.plans_differ,
            "requests_untold": fleet.dropped,
            "commits_refused": fleet.refused,
        })),
    })
}

fn fact_view(report: &FactReport) -> Value {
    let finding = &report.finding;
    let bounds = match report.bounds {
        _ if !matches!(finding.fact, Fact::Late | Fact::OddLength) => Value::Null,
        None => json!("learning"),
        Some(Bounds::FirstToken(objective)) => json!({ "first_token_s": objective.as_secs_f64() }),
        Some(Bounds::Length { low, high }) => json!({ "tokens_min": low, "tokens_max": high }),
    };
    json!({
        "fact": finding.fact.as_str(),
        "evidence": finding.evidence,
        "needed": finding.needed,
        "canary": finding.requests.canary,
        "baseline": finding.requests.baseline,
        "step": {
            "canary": report.step.requests.canary,
            "baseline": report.step.requests.baseline,
            "chance": report.step.chance,
        },
        "bounds": bounds,
        "seen": report.seen.map(|seen| json!({ "first": at(seen.first), "last": at(seen.last), "count": seen.count })),
        "worse_since": report.worse_since.map(at),
    })
}

fn at(since_1970: Duration) -> String {
    timestamp(UNIX_EPOCH + since_1970)
}

fn decision_view(decision: &Decision) -> Value {
    json!({
        "at_unix_s": decision.at.as_secs_f64(),
        "decision": decision.kind.as_str(),
        "by": decision.by.as_str(),
        "from_percent": decision.from,
        "to_percent": decision.to,
        "fact": decision.fact().map(Fact::as_str),
        "words": decision.to_string(),
    })
}
