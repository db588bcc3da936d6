//! The part of `streamgauge explain` about limits: which a request meets, what it would hold of each, and why.

use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::Value;

use super::admin;
use super::admin_views::{Holder, Limits, Refused, TokensLeft};
use crate::config::limits::{Limit, LimitKey, OnExhausted};
use crate::config::settings::{Route, Settings};
use crate::llm::RequestFacts;
use crate::llm::token_count::count_prompt;
use crate::policy::limits::{Estimate, Learned, OutputBasis, PromptBasis, Request, is_unforeseen};

/// What is told of a request that is [`is_unforeseen`].
const UNFORESEEN: &str = "holds what such requests of this caller took before (as 95 of 100 of the last 32 did, in an hour; at first nothing): \
     should its answer be an LLM's, it is charged; while the limit is in debt, such requests are refused with 429";

/// The request as it was typed.
pub(super) struct Asked<'a> {
    pub(super) method: &'a str,
    pub(super) facts: &'a RequestFacts,
    pub(super) body: Option<&'a str>,
    /// Who is named by the header that names users.
    pub(super) user: Option<&'a str>,
}

/// What the proxy at `admin` says of a holder of limits, as `user:alice`.
pub(super) fn ask(admin: &str, holder: &str) -> Option<Value> {
    let answer = admin::asked(admin, "GET", &format!("/api/limits?holder={}", admin::encoded(holder))).ok()?;
    serde_json::from_str(&answer).ok()
}

/// Tells of each limit of `route`, and where the holder stands, as far as `standing`, the answer to [`ask`], says. Nothing is
/// learned yet in this process, so a running proxy may hold less.
pub(super) fn tell(
    out: &mut String,
    settings: &Settings,
    route: &Route,
    asked: &Asked<'_>,
    standing: &dyn Fn(&str) -> Option<Value>,
) {
    let &Asked { method, facts, body, user } = asked;
    if route.limits.is_empty() {
        let _ = writeln!(out, "  limits    none");
    }
    for limit in &route.limits {
        let _ = writeln!(out, "  limit     \"{}\", {}: {}", limit.name, who(limit), caps(limit).join(", "));
        let holder = holder(limit, route, user);
        if let Some(now) = holder.and_then(|holder| now(limit, &holder, &standing(&holder)?)) {
            let _ = writeln!(out, "            now: {now}");
        }
        if !limit.counts_tokens() {
            continue;
        }
        if facts.unseen.is_some() && method == "POST" {
            let _ = writeln!(out, "            is refused with 403: no answer here tells what it takes");
            continue;
        }
        if !facts.is_llm() {
            let is_unforeseen = is_unforeseen(facts, route.kind, method, body.is_some());
            let words = if is_unforeseen { UNFORESEEN } else { "holds no tokens: this is not an LLM request" };
            let _ = writeln!(out, "            {words}");
            continue;
        }
        if body.is_none() && is_unforeseen(&RequestFacts::default(), route.kind, method, false) {
            let _ = writeln!(out, "            with a body that shows nothing of an LLM (give --body) it {UNFORESEEN}");
            let _ = writeln!(out, "            with one of an LLM's, as its path says,");
        }
        let estimate = estimate(limit, facts, body);
        let _ = writeln!(out, "            holds {}", words(&estimate));
        let _ = writeln!(out, "            {}", fits(limit, &estimate));
        cost(out, settings, limit, route, facts, &estimate);
    }
}

/// Whose count it would be, where the request tells.
fn holder(limit: &Limit, route: &Route, user: Option<&str>) -> Option<String> {
    match limit.key {
        LimitKey::User => user.map(|user| format!("user:{user}")),
        LimitKey::Route => Some(format!("route:{}", route.name)),
        LimitKey::Global => Some("global".to_owned()),
        LimitKey::Team | LimitKey::Key | LimitKey::Ip => None,
    }
}

/// Where `holder` stands by what a running proxy told: what is spent, what is only held, and since when it is refused.
fn now(limit: &Limit, holder: &str, told: &Value) -> Option<String> {
    let told = Limits::deserialize(told).ok()?;
    if !told.limits.iter().any(|name| **name == *limit.name) {
        return None;
    }
    let of_limit = |rows: &[Holder]| rows.iter().find(|row| *row.limit == *limit.name).cloned();
    let here = of_limit(&told.holders);
    let Some(row) = of_limit(&told.in_store.unwrap_or_default()).or_else(|| here.clone()) else {
        return Some(format!("{holder} has taken nothing"));
    };
    let mut parts = Vec::new();
    if let Some(TokensLeft { remaining, .. }) = row.tokens {
        parts.push(format!("{} tokens spent and {} held, {remaining} left", row.tokens_spent, row.tokens_held));
    }
    let windows =
        [(limit.cost_per_day, row.cost_usd_24h, "24 hours"), (limit.cost_per_month, row.cost_usd_30d, "30 days")];
    for (most, spent, window) in windows.into_iter().filter_map(|(most, spent, window)| Some((most?, spent, window))) {
        let (held, most) = (row.cost_usd_held, most as f64 / 1e9);
        parts.push(format!("${spent:.4} spent and ${held:.4} held of ${most:.4} in {window}"));
    }
    if let Some(Refused { reason, first, last, count }) = here.and_then(|here| here.refused) {
        // The admin address may be anybody's: nothing of it steers this terminal.
        let [reason, first, last] =
            [reason, first, last].map(|word| word.chars().filter(char::is_ascii_graphic).collect::<String>());
        parts.push(format!("refused {count} times since {first}, last {last} ({reason})"));
    }
    (!parts.is_empty()).then(|| format!("{holder}: {}", parts.join("; ")))
}

fn estimate(limit: &Limit, facts: &RequestFacts, body: Option<&str>) -> Estimate {
    let model = facts.model.as_deref();
    let body = body.unwrap_or_default();
    let counted = facts.dialect.and_then(|dialect| count_prompt(dialect, model, body.as_bytes()));
    let request = Request {
        model,
        holder: "",
        body_bytes: body.len() as u64,
        counted: counted.map(|count| count.tokens),
        max_tokens: facts.max_tokens,
        answers: facts.answers,
    };
    Learned::default().estimate(&request, &limit.token_limit())
}

fn words(estimate: &Estimate) -> String {
    let prompt = match estimate.prompt_basis {
        PromptBasis::Counted => "counted",
        PromptBasis::Learned | PromptBasis::Usual => "from the body's size, too large to count",
    };
    let output = match estimate.output_basis {
        OutputBasis::MaxTokens => "as the request's max_tokens says",
        OutputBasis::OutputCap => "the limit's output_cap",
        OutputBasis::Learned => "as this user's last answers took",
        OutputBasis::ColdStart => "a guess: without max_tokens, until this user's answers from this model are known",
    };
    let (total, of_prompt, of_output) = (estimate.total(), estimate.prompt, estimate.output);
    format!("{total} tokens: {of_prompt} for the prompt ({prompt}) and {of_output} for the answer ({output})")
}

fn fits(limit: &Limit, estimate: &Estimate) -> String {
    let Some(tokens) = &limit.tokens else { return "and counts what it costs".to_owned() };
    let most = tokens.burst.saturating_add(tokens.debt);
    match estimate.total() {
        asked if asked > most => format!("which can never fit: 413, for burst and debt are {most} together"),
        asked if asked > tokens.burst => {
            format!(
                "which is more than the burst of {}: it passes when nothing else is taken, and goes into debt",
                tokens.burst
            )
        }
        _ => format!("which fits while so much of the burst of {} is free", tokens.burst),
    }
}

fn cost(
    out: &mut String,
    settings: &Settings,
    limit: &Limit,
    route: &Route,
    facts: &RequestFacts,
    estimate: &Estimate,
) {
    if !limit.has_budget() {
        return;
    }
    let usage = crate::llm::Usage {
        input: Some(estimate.prompt),
        output: Some(estimate.output),
        ..crate::llm::Usage::default()
    };
    let target = route.targets.first();
    let provider = target.and_then(|target| target.upstream.provider.as_deref());
    let models = [target.and_then(|target| target.model.as_deref()), facts.model.as_deref()];
    let _ = match settings.prices.bill(provider, models, &usage).cost() {
        Some(cost) => writeln!(out, "            may cost {:.6} US dollars", cost.dollars()),
        None => writeln!(
            out,
            "            is refused with 403: no price of its model is known, and the limit counts dollars"
        ),
    };
}

fn who(limit: &Limit) -> String {
    match limit.key {
        LimitKey::User => "for each user (else each address)".to_owned(),
        LimitKey::Team => "for each team (else each address)".to_owned(),
        LimitKey::Key => "for each API key (else each address)".to_owned(),
        LimitKey::Ip => "for each address".to_owned(),
        LimitKey::Route => "for the whole route".to_owned(),
        LimitKey::Global => "for everybody together".to_owned(),
    }
}

fn caps(limit: &Limit) -> Vec<String> {
    let mut caps = Vec::new();
    if let Some(tokens) = &limit.tokens {
        let after = match limit.on_exhausted {
            OnExhausted::Finish => "",
            OnExhausted::Cut => " (streams are cut)",
        };
        caps.push(format!("{} tokens a minute{after}", tokens.per_minute));
    }
    caps.extend(limit.requests_per_minute.map(|most| format!("{most} requests a minute")));
    caps.extend(limit.concurrent.map(|most| format!("{most} at one time")));
    let dollars = |nano: u64| nano as f64 / 1e9;
    caps.extend(limit.cost_per_day.map(|most| format!("{} US dollars in 24 hours", dollars(most))));
    caps.extend(limit.cost_per_month.map(|most| format!("{} US dollars in 30 days", dollars(most))));
    caps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn told(limit: &str, body: &str) -> String {
        let text = format!(
            "[[upstream]]\nurl = \"http://h\"\n[[price]]\nmodel = \"*\"\ninput = 1.0\noutput = 2.0\n[[limit]]\nname = \"l\"\n{limit}\n[[route]]\nlimits = [\"l\"]"
        );
        let settings =
            config::parse(&text, "t.toml", &|_| None, &|_| Err(std::io::ErrorKind::NotFound.into())).unwrap();
        told_of(&settings, "POST", "/v1/chat/completions", Some(body))
    }

    fn told_of(settings: &Settings, method: &str, path: &str, body: Option<&str>) -> String {
        let facts = RequestFacts::read(path, body.map(str::as_bytes));
        let mut out = String::new();
        let asked = Asked { method, facts: &facts, body, user: Some("alice") };
        tell(&mut out, settings, &settings.routes[0], &asked, &|_| None);
        out
    }

    #[test]
    fn a_running_proxy_tells_what_is_spent_and_what_is_only_held() {
        let text = "[[upstream]]\nurl = \"http://h\"\n[[price]]\nmodel = \"*\"\ninput = 1.0\noutput = 1.0\n[[limit]]\nname = \"l\"\n\
                    tokens_per_minute = 500\ncost_per_day = 5.0\n[[limit]]\nname = \"all\"\nkey = \"global\"\nconcurrent = 1\n[[route]]\nlimits = [\"l\", \"all\"]";
        let settings = config::parse(text, "t.toml", &|_| None, &|_| Err(std::io::ErrorKind::NotFound.into())).unwrap();
        let told = |holders: Value, in_store: Value| {
            let (mut out, asked) = (String::new(), std::cell::RefCell::new(Vec::new()));
            let facts = RequestFacts::read("/v1/chat/completions", None);
            let asked_of = Asked { method: "POST", facts: &facts, body: None, user: Some("alice") };
            tell(&mut out, &settings, &settings.routes[0], &asked_of, &|holder| {
                asked.borrow_mut().push(holder.to_owned());
                Some(serde_json::json!({ "limits": ["l"], "holders": holders, "in_store": in_store }))
            });
            assert_eq!(asked.into_inner(), ["user:alice", "global"]);
            out
        };
        let holder = serde_json::json!({ "limit": "l", "tokens": { "remaining": 340 }, "tokens_spent": 120, "tokens_held": 40,
            "cost_usd_24h": 1.2, "cost_usd_held": 0.3,
            "refused": { "reason": "cost_held", "first": "2026-01-31T03:12:07.000Z", "last": "2026-01-31T03:15:00.000Z", "count": 1204 } });
        let text = told(serde_json::json!([holder]), Value::Null);
        let line = "now: user:alice: 120 tokens spent and 40 held, 340 left; $1.2000 spent and $0.3000 held of $5.0000 in 24 hours; \
                    refused 1204 times since 2026-01-31T03:12:07.000Z, last 2026-01-31T03:15:00.000Z (cost_held)";
        assert!(text.contains(line), "{text}");
        assert!(!text.contains("global"), "a proxy that has another file says nothing of this limit: {text}");
        let store =
            serde_json::json!([{ "limit": "l", "tokens": { "remaining": 7 }, "tokens_spent": 400, "tokens_held": 93 }]);
        let text = told(serde_json::json!([holder]), store);
        assert!(text.contains("400 tokens spent and 93 held, 7 left") && text.contains("refused 1204 times"), "{text}");
        assert!(told(serde_json::json!([]), Value::Null).contains("now: user:alice has taken nothing"));
    }

    #[test]
    fn what_may_turn_out_to_be_an_llms_is_told_what_becomes_of_it() {
        let text = "[[upstream]]\nurl = \"http://h\"\n[[limit]]\nname = \"l\"\ntokens_per_minute = 60\n[[route]]\nlimits = [\"l\"]";
        let settings = config::parse(text, "t.toml", &|_| None, &|_| Err(std::io::ErrorKind::NotFound.into())).unwrap();
        let charged = |method, body| told_of(&settings, method, "/app", body).contains(UNFORESEEN);
        assert!(charged("POST", Some(r#"{"message":"hi"}"#)) && charged("POST", None));
        let chat = |body| told_of(&settings, "POST", "/api/chat", body);
        assert!(chat(Some(r#"{"message":"hi"}"#)).contains(UNFORESEEN));
        let without = chat(None);
        assert!(without.contains(UNFORESEEN) && without.contains("for the answer"), "either may be: {without}");
        let asked = chat(Some(r#"{"model":"m","messages":[]}"#));
        assert!(!asked.contains(UNFORESEEN) && asked.contains("for the answer"), "{asked}");
        assert!(!charged("GET", None));
        assert!(
            told_of(&settings, "POST", "/v1/messages/batches", Some("{}"))
                .contains("is refused with 403: no answer here tells what it takes")
        );
    }

    #[test]
    fn a_limit_tells_what_it_would_hold_and_why() {
        let hello = r#"{"model":"gpt-4o","messages":[{"role":"user","content":"hello"}],"max_tokens":50,"n":2}"#;
        let text = told("tokens_per_minute = 1000\ncost_per_day = 1.5", hello);
        for words in [
            "for each user (else each address): 1000 tokens a minute, 1.5 US dollars in 24 hours",
            "for the prompt (counted) and 100 for the answer (as the request's max_tokens says)",
            "which fits while so much of the burst of 1000 is free",
            "may cost 0.0002",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
        assert!(told("tokens_per_minute = 60", hello).contains("goes into debt"));
        assert!(told("tokens_per_minute = 40", hello).contains("can never fit: 413"));
        assert!(
            told("tokens_per_minute = 1000\noutput_cap = 7", hello)
                .contains("14 for the answer (the limit's output_cap)")
        );
        let open = r#"{"model":"gpt-4o","messages":[{"role":"user","content":"hello"}]}"#;
        assert!(told("tokens_per_minute = 1000", open).contains("250 for the answer (a guess"));
        assert!(told("tokens_per_minute = 1000", "{}").contains("holds"));
    }

    #[test]
    fn a_budget_tells_what_it_refuses() {
        let text = "[[upstream]]\nurl = \"http://h\"\nprovider = \"openai\"\n[[limit]]\nname = \"l\"\ncost_per_day = 1.0\n\
                    [[route]]\nlimits = [\"l\"]";
        let settings = config::parse(text, "t.toml", &|_| None, &|_| Err(std::io::ErrorKind::NotFound.into())).unwrap();
        for (model, words) in [("gpt-4o-mini", "may cost 0.000"), ("mine", "is refused with 403")] {
            let body = format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"hello"}}]}}"#);
            let out = told_of(&settings, "POST", "/v1/chat/completions", Some(&body));
            assert!(out.contains(words), "{model}: {out}");
        }
    }
}
