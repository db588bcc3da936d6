//! `/api/levers`: what is out of service by hand, and the commands that take it out and put it back.

use std::time::UNIX_EPOCH;

use serde_json::{Value, json};

use super::answer::Answer;
use super::limits::decoded;
use crate::policy::identity;
use crate::policy::levers::{Command, Lever, Pull, REASON_MAX, Refusal, is_reason};
use crate::proxy::{Done, Order, Shared};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::timestamp;

/// When to ask again where a new process takes over.
const RETRY_AFTER_S: &str = "3";

/// Puts how many levers are set into the metrics.
pub(super) fn tell(shared: &Shared, metrics: &Metrics) {
    let pulled = shared.levers.pulled();
    for kind in Lever::KINDS {
        metrics.levers_set(kind, pulled.iter().filter(|(lever, _)| lever.kind() == kind).count());
    }
}

/// `GET /api/levers`.
pub(super) fn list(shared: &Shared) -> Value {
    let pulled = shared.levers.pulled();
    json!({
        "levers": pulled.iter().map(|(lever, pull)| view(lever, pull)).collect::<Vec<_>>(),
        "unserved_routes": shared.unserved_routes(),
    })
}

/// One lever that is set.
pub(super) fn view(lever: &Lever, pull: &Pull) -> Value {
    let [upstream, endpoint, route, target, key] = lever.names();
    json!({
        "lever": lever.kind(),
        "upstream": upstream,
        "endpoint": endpoint,
        "route": route,
        "target": target,
        "key": key,
        "typed": lever.typed(),
        "words": lever.to_string(),
        "setting": pull.setting.as_str(),
        "since": timestamp(UNIX_EPOCH + pull.since),
        "by": pull.by,
        "reason": pull.reason,
    })
}

/// What a path below `/api/levers/` asks to be done.
pub(super) fn command(path: &str) -> Option<Command> {
    let word = path.strip_prefix("/api/levers/")?;
    Command::ALL.into_iter().find(|command| command.as_str() == word)
}

/// `POST /api/levers/{drain|disable|enable|revoke|restore}?what=…[&route=…][&reason=…]`; `by` is who asks.
pub(super) fn obey(shared: &Shared, command: Command, query: &str, by: String) -> Answer {
    let (what, route, reason) = match read(query) {
        Ok(read) => read,
        Err(message) => return Answer::error(400, &message),
    };
    let order = Order { command, what: &what, route: route.as_deref(), by, reason };
    match shared.operate(&order) {
        Ok(done) => Answer::json(200, &told(command, &done)),
        Err(refusal @ Refusal::Unknown(_)) => Answer::error(404, &refusal.to_string()),
        Err(refusal @ Refusal::HandingOver) => {
            Answer::error(503, &refusal.to_string()).with("retry-after", RETRY_AFTER_S)
        }
        Err(refusal) => Answer::error(409, &refusal.to_string()),
    }
}

type Named = (String, Option<String>, Option<String>);

/// What is named, of which route, and why.
fn read(query: &str) -> Result<Named, String> {
    let mut named: [Option<String>; 3] = Default::default();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let slot = ["what", "route", "reason"].iter().position(|known| *known == key);
        let slot = slot.and_then(|at| named.get_mut(at)).ok_or("ask with ?what=, &route= and &reason= alone")?;
        *slot = Some(decoded(value).ok_or_else(|| format!("`{key}` is not percent-encoded UTF-8"))?);
    }
    let [what, route, reason] = named;
    let what = what.filter(|what| !what.is_empty()).ok_or("say what is meant, as ?what=UPSTREAM/ENDPOINT")?;
    if identity::is_key(what.as_bytes()) {
        return Err(
            "this is an API key itself: name it by its public id, or by its user. It is not repeated here".to_owned()
        );
    }
    let reason = reason.filter(|reason| !reason.trim().is_empty());
    if reason.as_deref().is_some_and(|reason| !is_reason(reason)) {
        return Err(format!("a reason has at most {REASON_MAX} bytes, and no control characters"));
    }
    Ok((what, route, reason))
}

fn told(command: Command, done: &Done) -> Value {
    json!({
        "done": command.as_str(),
        "what": done.levers.iter().map(Lever::typed).collect::<Vec<_>>(),
        "in_flight": done.in_flight,
        "others": done.siblings,
        "routes": done.routes.iter().map(|(route, serving)| json!({ "route": route, "served_by": serving })).collect::<Vec<_>>(),
        "words": words(command, done),
    })
}

/// The answer for people.
fn words(command: Command, done: &Done) -> String {
    let what = done.levers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let what = what.as_str();
    let mut lines = vec![match command {
        Command::Drain => format!("{what} is drained: no new request goes there{}.", running(done)),
        Command::Disable => {
            format!("{what} is disabled: no new request and no health check goes there{}.", running(done))
        }
        Command::Enable => format!("{what}: in service again. What failed there before is forgotten."),
        Command::Revoke => {
            format!("{what} is revoked: its next request gets 401, and what runs with it ends within two seconds.")
        }
        Command::Restore => format!("{what} lets its holder in again."),
    }];
    if !done.siblings.is_empty() && command.setting().is_some() {
        lines.push(format!("The upstream's other endpoints take over: {}.", done.siblings.join(", ")));
    }
    for (route, serving) in &done.routes {
        lines.push(match serving.is_empty() {
            true => format!("NOBODY serves route `{route}` now: its clients get 503 (out_of_service)."),
            false => format!("Route `{route}` is served by {}.", serving.join(", ")),
        });
    }
    if command.setting().is_some()
        && let Some(lever) = done.levers.first()
    {
        let undo = if command.is_about_keys() { "key restore" } else { "enable" };
        lines.push(format!("To undo it: streamgauge {undo} {}", lever.typed()));
    }
    lines.join("\n")
}

fn running(done: &Done) -> String {
    match done.in_flight {
        None | Some(0) => String::new(),
        Some(1) => ", and the one that runs there goes on to its end".to_owned(),
        Some(many) => format!(", and the {many} that run there go on to their ends"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_read_and_nothing_else() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            read("what=vllm%2Fh%3A8000&reason=slow+again"),
            Ok(("vllm/h:8000".to_owned(), None, some("slow again")))
        );
        assert_eq!(read("route=chat&what=next&reason="), Ok(("next".to_owned(), some("chat"), None)));
        for (query, words) in [
            ("", "?what="),
            ("what=", "?what="),
            ("what=a&why=b", "alone"),
            ("what=%zz", "percent-encoded"),
            ("what=a&reason=a%0Ab", "no control characters"),
            (&*format!("what=a&reason={}", "x".repeat(257)), "256 bytes"),
        ] {
            let told = read(query).unwrap_err();
            assert!(told.contains(words), "{query}: {told}");
        }
        let told = read(&format!("what=sg-{}", "0123".repeat(11))).unwrap_err();
        assert!(told.contains("API key itself") && !told.contains("0123"), "{told}");
    }

    #[test]
    fn the_answer_says_who_serves_now_and_how_to_undo_it() {
        let lever = Lever::Endpoint { upstream: "vllm".to_owned(), endpoint: "h:1".to_owned() };
        let mut done = Done {
            levers: vec![lever],
            in_flight: Some(2),
            siblings: vec!["h:2".to_owned()],
            routes: vec![("chat".to_owned(), vec!["vllm".to_owned()])],
        };
        assert_eq!(
            words(Command::Drain, &done),
            "endpoint `h:1` of upstream `vllm` is drained: no new request goes there, and the 2 that run there go on to their ends.\n\
             The upstream's other endpoints take over: h:2.\nRoute `chat` is served by vllm.\nTo undo it: streamgauge enable vllm/h:1"
        );
        done.siblings.clear();
        done.routes = vec![("chat".to_owned(), vec![])];
        let words = words(Command::Disable, &done);
        assert!(words.contains("NOBODY serves route `chat` now: its clients get 503"), "{words}");
    }
}
