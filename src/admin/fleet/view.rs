//! `/api/fleet`: who is of the fleet, who answers, who judges each canary, and where replicas differ.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::peers::{self, Absences, NO_SECRET};
use crate::admin::answer::Answer;
use crate::proxy::{Rollout, Roster, Shared};

/// What this replica says of itself to another one.
pub(in crate::admin) fn itself(shared: &Shared) -> Value {
    let generation = shared.generation.load();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "generation": generation.number,
        "draining": shared.drain.is_draining(),
        "running": shared.telemetry.live().running(),
    })
}

/// `GET /api/fleet`.
pub(in crate::admin) async fn answer(shared: &Shared, absences: &Absences) -> Answer {
    let Some(fleet) = shared.fleet.configured() else {
        return Answer::json(
            200,
            &json!({ "name": null, "replica": &*shared.fleet.owner, "replicas": [], "absent": [], "canaries": [] }),
        );
    };
    let told = match &fleet.secret {
        Some(_) => absences.ask_all(shared, &fleet, "/api/fleet").await,
        None => Vec::new(),
    };
    let mut report = peers::report(shared, &fleet, &told);
    if let Some(Value::Array(rows)) = report.get_mut("replicas") {
        let said = std::iter::once(itself(shared))
            .chain(told.into_iter().map(|told| told.answer.map_or(Value::Null, |reply| reply.body)));
        for (row, said) in rows.iter_mut().zip(said) {
            for key in ["version", "generation", "draining", "running"] {
                if let (Some(value), Some(row)) = (said.get(key), row.as_object_mut()) {
                    row.insert(key.to_owned(), value.clone());
                }
            }
        }
        if fleet.secret.is_none() {
            rows.extend(unasked(shared));
        }
    }
    let view = shared.fleet.view();
    if let Some(report) = report.as_object_mut() {
        report.insert("trouble".to_owned(), json!(view.as_ref().and_then(|view| view.trouble.clone())));
        report.insert("hint".to_owned(), json!(fleet.secret.is_none().then_some(NO_SECRET)));
        let canaries = view.map_or_else(Vec::new, |view| canaries(shared, &view.roster));
        report.insert("canaries".to_owned(), json!(canaries));
    }
    Answer::json(200, &report)
}

/// Who is known without being asked, where nothing can be asked.
fn unasked(shared: &Shared) -> Vec<Value> {
    let Some(view) = shared.fleet.view() else { return Vec::new() };
    let others = view.roster.members.iter().filter(|member| *member.owner != *shared.fleet.owner);
    let others = others.map(|member| {
        let says = member.says.as_ref();
        json!({
            "replica": member.owner,
            "admin": says.map(|says| says.admin.as_str()),
            "version": says.map(|says| says.version.as_str()),
            "self": false,
            "answered": null,
            "last_word": peers::at(member.heard),
        })
    });
    others.collect()
}

/// All canaries that a replica takes part in.
fn canaries(shared: &Shared, roster: &Roster) -> Vec<Value> {
    let generation = shared.generation.load();
    let mut known: BTreeMap<String, Option<&Rollout>> = BTreeMap::new();
    for says in roster.members.iter().filter_map(|member| member.says.as_ref()) {
        known.extend(says.canaries.keys().map(|key| (key.clone(), None)));
    }
    for rollout in generation.rollouts.values() {
        if let Some(fleet) = shared.canary_in_fleet(rollout) {
            known.insert(fleet.key, Some(rollout));
        }
    }
    known.into_iter().map(|(key, rollout)| canary(shared, roster, &key, rollout)).collect()
}

fn canary(shared: &Shared, roster: &Roster, key: &str, rollout: Option<&Rollout>) -> Value {
    let follows = roster.members.iter().filter_map(|member| {
        let follows = member.says.as_ref()?.canaries.get(key)?;
        Some((member, follows))
    });
    let mut plans: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut replicas = Vec::new();
    for (member, follows) in follows {
        plans.entry(&follows.plan).or_default().push(&member.owner);
        replicas.push(json!({ "replica": member.owner, "plan": follows.plan, "version": follows.version, "epoch": follows.epoch }));
    }
    let here = rollout.and_then(|rollout| shared.canary_in_fleet(rollout));
    json!({
        "canary": key,
        "route": rollout.map(|rollout| &**rollout.route()),
        "target": rollout.map(|rollout| &*rollout.plan().target),
        "percent": rollout.map(|rollout| rollout.report().share),
        "judge": here.as_ref().and_then(|here| here.judge.as_deref()),
        "version": here.as_ref().map(|here| here.version),
        "plans_differ": plans.len() > 1,
        "plans": plans,
        "replicas": replicas,
    })
}
