//! The part of `streamgauge explain` about what a request is: which condition of a route holds, which does not, and by what.

use std::fmt::Write as _;

use crate::config::conditions::ContentCondition;
use crate::config::glob::Glob;
use crate::config::settings::Route;
use crate::llm::RequestFacts;
use crate::llm::request::contents::Contents;
use crate::llm::token_count::PromptSize;
use crate::policy::routing::{BodyFacts, Mismatch, RequestHead};

/// What routing would find in the body.
pub(super) fn look_into(facts: &RequestFacts, body: Option<&str>) -> BodyFacts {
    let Some(body) = body.map(str::as_bytes) else { return BodyFacts::default() };
    BodyFacts {
        streams: facts.asks_for_stream(),
        contents: Contents::read(body),
        prompt: Some(PromptSize::of(facts.dialect, facts.model.as_deref(), body)),
    }
}

/// Tells why each condition of a route that matches holds.
pub(super) fn tell(out: &mut String, route: &Route, head: &RequestHead<'_>) {
    let Some(conditions) = route.conditions.as_deref() else { return };
    let mut lines = Vec::new();
    lines.extend(conditions.prompt_tokens.map(|range| format!("prompt_tokens {range}: {}", prompt(head))));
    let told = |ContentCondition { name, wanted, .. }| format!("{name} = {wanted}: {}", has(name, wanted));
    lines.extend(conditions.contents().map(told));
    lines.extend(conditions.stream.map(|wanted| format!("stream = {wanted}: {}", streams(wanted))));
    let who = [
        ("users", &conditions.users, head.identity.user.as_deref()),
        ("teams", &conditions.teams, head.identity.team.as_deref()),
    ];
    let asked = who.into_iter().filter(|(_, globs, _)| !globs.is_empty());
    lines.extend(
        asked.map(|(key, globs, name)| format!("{key} {}: it is \"{}\"", listed(globs), name.unwrap_or_default())),
    );
    for (at, line) in lines.iter().enumerate() {
        let _ = writeln!(out, "  {:<9} {line}", if at == 0 { "because" } else { "" });
    }
}

/// Why the body does not fit.
pub(super) fn of_body(why: &Mismatch<'_>, head: &RequestHead<'_>) -> String {
    match why {
        Mismatch::PromptTokens(range) => format!("its prompt_tokens are {range}, and {}", prompt(head)),
        Mismatch::Contents { name, wanted } => format!("it has {name} = {wanted}, and {}", has(name, !wanted)),
        Mismatch::Stream { wanted } => format!("it has stream = {wanted}, and {}", streams(!wanted)),
        _ => String::new(),
    }
}

/// Why who sends it is not one of those.
pub(super) fn of_sender(key: &str, globs: &[Glob], name: Option<&str>) -> String {
    let wanted = listed(globs);
    match name {
        Some(name) => format!("its {key} are {wanted}, and the request is from \"{name}\""),
        None => format!(
            "its {key} are {wanted}, and it is not known from whom the request is (give --{})",
            key.trim_end_matches('s')
        ),
    }
}

fn listed(globs: &[Glob]) -> String {
    globs.iter().map(|glob| glob.source.as_str()).collect::<Vec<_>>().join(", ")
}

fn prompt(head: &RequestHead<'_>) -> String {
    match head.body.prompt {
        Some(PromptSize { tokens, counted }) => {
            let how =
                if counted { "counted" } else { "estimated: too long to count, of an unknown format, or with media" };
            format!("the prompt has {tokens} tokens ({how})")
        }
        None => "the request has no prompt (give --body)".to_owned(),
    }
}

fn has(name: &str, there: bool) -> String {
    format!("the request has {}{name}", if there { "" } else { "no " })
}

fn streams(asked: bool) -> &'static str {
    if asked { "the request asks for a stream" } else { "the request asks for no stream" }
}
