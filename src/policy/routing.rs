//! Which route a request takes, which of its targets, and under which path it goes on.

use std::borrow::Cow;
use std::sync::Arc;

use super::cohort::{self, Unit};
use super::identity::Identity;
use crate::config::conditions::{Conditions, TokenRange};
use crate::config::glob::Glob;
use crate::config::settings::{Route, Target};
use crate::llm::request::canonical_path;
use crate::llm::request::contents::Contents;
use crate::llm::token_count::PromptSize;

/// What routing looks at in a request.
pub struct RequestHead<'a> {
    pub method: &'a str,
    /// As it came, percent-encoded, without the query.
    pub path: &'a str,
    /// A header's first value, by its name in lower case.
    pub header: &'a dyn Fn(&str) -> Option<&'a str>,
    /// Who sends it, as far as that is proven.
    pub identity: &'a Identity,
    /// The model that a JSON body names, where one was read.
    pub model: Option<&'a str>,
    pub body: BodyFacts,
}

/// What else routing may look at in a body, as far as [`needs`] asked for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BodyFacts {
    /// An answer in events is asked for.
    pub streams: bool,
    pub contents: Contents,
    /// `None`: there is no body that could be read.
    pub prompt: Option<PromptSize>,
}

/// What must be known of a body before the route of its request is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    /// Anything at all.
    pub body: bool,
    /// [`BodyFacts::contents`].
    pub contents: bool,
    /// [`BodyFacts::prompt`].
    pub prompt: bool,
}

/// The first route that matches. A route that asks for models matches only where one is known.
#[must_use]
pub fn pick<'a>(routes: &'a [Arc<Route>], head: &RequestHead<'_>) -> Option<&'a Arc<Route>> {
    routes.iter().find(|route| mismatch(route, head).is_none())
}

/// What has to be read of the body of a request with this head: a route that it may take asks for a model or something else of
/// the body, counts tokens or dollars, or gives the model another name.
#[must_use]
pub fn needs(routes: &[Arc<Route>], head: &RequestHead<'_>) -> Needs {
    let mut needs = Needs::default();
    for route in routes.iter().filter(|route| head_mismatch(route, head).is_none()) {
        if let Some(conditions) = &route.conditions {
            needs.contents |= conditions.contents().next().is_some();
            needs.prompt |= conditions.prompt_tokens.is_some();
        }
        if is_of_head(route) {
            // It takes the request unless one before it does, and those ask for something of the body.
            needs.body |= reads_body(route);
            break;
        }
        needs.body = true;
    }
    needs
}

/// The target whose price routing is compared with: the first one of the route that would take the request if no route had
/// [`Conditions`]; of `taken` itself where there is none.
#[must_use]
pub fn first_target<'a>(routes: &'a [Arc<Route>], taken: &'a Route, head: &RequestHead<'_>) -> Option<&'a Target> {
    let plain = |route: &&Arc<Route>| route.conditions.is_none() && mismatch(route, head).is_none();
    routes.iter().find(plain).map_or(taken, |route| &**route).targets.first()
}

/// The route that takes a request with this head whatever its body says. `None`: none does, or the body decides.
#[must_use]
pub fn pick_by_head<'a>(routes: &'a [Arc<Route>], head: &RequestHead<'_>) -> Option<&'a Arc<Route>> {
    routes.iter().find(|route| head_mismatch(route, head).is_none()).filter(|route| is_of_head(route))
}

/// Whether a route takes requests by their head alone.
fn is_of_head(route: &Route) -> bool {
    route.models.is_empty() && !route.conditions.as_deref().is_some_and(Conditions::ask_of_body)
}

fn reads_body(route: &Route) -> bool {
    let mut targets =
        route.targets.iter().chain(&route.fallback).chain(route.shadow.as_ref().map(|shadow| &shadow.target));
    route.limits.iter().any(|limit| limit.counts_tokens()) || targets.any(|target| target.model.is_some())
}

/// One of the route's targets, by weight; the same unit takes the same target for as long as the weights stay (see
/// [`cohort`]). `share` is the canary's in percent where the route has one: it overrides the canary's weight,
/// and the weights of the others count among them alone. Those that are not `in_service`, by their place, get nothing. `None`
/// where nobody gets anything.
#[must_use]
pub fn target(route: &Route, share: Option<u8>, unit: Unit, in_service: impl Fn(usize) -> bool) -> Option<&Target> {
    let mut best: Option<(f64, &Target)> = None;
    for (target, weight) in weights(route, share, in_service).filter(|(_, weight)| *weight > 0.0) {
        let score = cohort::score(&route.name, &target.name, unit, weight);
        if best.is_none_or(|(lowest, _)| score < lowest) {
            best = Some((score, target));
        }
    }
    best.map(|(_, target)| target)
}

/// The target that takes every request, whoever asks; `None` where requests are shared out.
#[must_use]
pub fn only_target(route: &Route) -> Option<&Target> {
    match route.targets.as_slice() {
        [only] if only.weight > 0 && route.canary.is_none() => Some(only),
        _ => None,
    }
}

/// Each target's share of the route's requests, from 0 to 1; `share` as for [`target`].
pub fn shares(route: &Route, share: Option<u8>) -> impl Iterator<Item = (&Target, f64)> {
    let total: f64 = weights(route, share, |_| true).map(|(_, weight)| weight).sum();
    weights(route, share, |_| true)
        .map(move |(target, weight)| (target, if total > 0.0 { weight / total } else { 0.0 }))
}

fn weights(
    route: &Route,
    share: Option<u8>,
    in_service: impl Fn(usize) -> bool,
) -> impl Iterator<Item = (&Target, f64)> {
    let canary = route.canary.as_ref().and_then(|canary| Some((&canary.target, f64::from(share?.min(100)))));
    let is_canary = move |target: &Target| canary.is_some_and(|(name, _)| *name == target.name);
    let others = route.targets.iter().enumerate().filter(|(at, target)| !is_canary(target) && in_service(*at));
    let baseline: f64 = others.map(|(_, target)| f64::from(target.weight)).sum();
    route.targets.iter().enumerate().map(move |(at, target)| {
        let weight = match canary {
            _ if !in_service(at) => 0.0,
            None => f64::from(target.weight),
            // Where nobody is left to share with, it takes all.
            Some((name, share)) if *name == target.name => share * if baseline > 0.0 { baseline } else { 1.0 },
            Some((_, share)) => (100.0 - share) * f64::from(target.weight),
        };
        (target, weight)
    })
}

/// The path and query under which a request goes on: the target's path in place of the pattern's literal start, the
/// endpoint's base path in front. Query and percent-encoding stay as they came; so does `*`, the target of OPTIONS.
#[must_use]
pub fn upstream_path<'a>(route: &Route, target: &Target, base_path: &str, path_and_query: &'a str) -> Cow<'a, str> {
    if !path_and_query.starts_with('/') {
        return Cow::Borrowed(path_and_query);
    }
    let (path, query) = path_and_query.split_at(path_and_query.find('?').unwrap_or(path_and_query.len()));
    let Some(new) = target.path.as_deref() else {
        return match base_path.is_empty() {
            true => Cow::Borrowed(path_and_query),
            false => Cow::Owned(format!("{base_path}{path_and_query}")),
        };
    };
    if let Some((start, rest)) = replace_start(&route.path.0, new, path) {
        return Cow::Owned(format!("{base_path}{start}{rest}{query}"));
    }
    // A path that fits only when spelled plainly goes on so.
    let canonical = canonical_path(path);
    match canonical.as_deref().and_then(|path| replace_start(&route.path.0, new, path)) {
        Some((start, rest)) => Cow::Owned(format!("{base_path}{start}{rest}{query}")),
        None => Cow::Owned(format!("{base_path}{path_and_query}")),
    }
}

/// The other way of [`upstream_path`]: under which path a client finds what an upstream has under `path`, which may have a query
/// and a fragment. As it came where nothing of the route's leads there.
#[must_use]
pub fn client_path<'a>(route: &Route, target: &Target, base_path: &str, path: &'a str) -> Cow<'a, str> {
    let (own, rest) = path.split_at(path.find(['?', '#']).unwrap_or(path.len()));
    let at_segment = |left: &&str| left.is_empty() || left.starts_with('/');
    let Some(inner) = own.strip_prefix(base_path).filter(at_segment) else { return Cow::Borrowed(path) };
    let Some(new) = target.path.as_deref() else {
        return if base_path.is_empty() { Cow::Borrowed(path) } else { Cow::Owned(format!("{inner}{rest}")) };
    };
    let pattern = &route.path.0;
    let literal = pattern.literal_prefix();
    let seen = if pattern.is_literal() {
        (inner == new).then(|| pattern.source.clone())
    } else if let Some(start) = literal.strip_suffix('/') {
        let tail = inner.strip_prefix(new.strip_suffix('/').unwrap_or(new)).filter(at_segment);
        tail.map(|tail| format!("{start}{tail}"))
    } else {
        inner.strip_prefix(new).map(|tail| format!("{literal}{tail}"))
    };
    seen.map_or(Cow::Borrowed(path), |seen| Cow::Owned(format!("{seen}{rest}")))
}

/// Splits a path into its new start and what stays of it. `None`: the path does not start as the pattern does, in any case.
fn replace_start<'a>(pattern: &Glob, new: &'a str, path: &'a str) -> Option<(&'a str, &'a str)> {
    if pattern.is_literal() {
        return path.eq_ignore_ascii_case(&pattern.source).then_some((new, ""));
    }
    let literal = pattern.literal_prefix();
    let (start, rest) = path.split_at_checked(literal.len())?;
    if !start.eq_ignore_ascii_case(literal) {
        return None;
    }
    if !literal.ends_with('/') {
        return Some((new, rest));
    }
    // The slash between the two parts is the path's own, so that `/v2` and `/v2/` mean the same.
    Some((new.strip_suffix('/').unwrap_or(new), path.get(literal.len() - 1..)?))
}

/// What keeps a request from taking a route.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mismatch<'a> {
    /// The route's pattern.
    Path(&'a str),
    /// The route's methods.
    Method(&'a [String]),
    Header {
        name: &'a str,
        wanted: &'a str,
    },
    /// The route's models.
    Model(&'a [Glob]),
    PromptTokens(TokenRange),
    /// Something that is to be in the prompt, or not: its name in the file.
    Contents {
        name: &'static str,
        wanted: bool,
    },
    Stream {
        wanted: bool,
    },
    /// The route's users.
    User(&'a [Glob]),
    /// The route's teams.
    Team(&'a [Glob]),
}

/// The first thing about `head` that does not fit `route`; `None`: it matches.
#[must_use]
pub fn mismatch<'a>(route: &'a Route, head: &RequestHead<'_>) -> Option<Mismatch<'a>> {
    let knows = |model: &str| route.models.iter().any(|glob| glob.matches_in_any_case(model));
    let wrong_model = !route.models.is_empty() && !head.model.is_some_and(knows);
    head_mismatch(route, head)
        .or_else(|| wrong_model.then_some(Mismatch::Model(&route.models)))
        .or_else(|| body_mismatch(route.conditions.as_deref()?, &head.body))
}

/// What of the body does not fit. Of one that could not be read the size is unknown, which fits none.
fn body_mismatch<'a>(conditions: &Conditions, body: &BodyFacts) -> Option<Mismatch<'a>> {
    if let Some(range) =
        conditions.prompt_tokens.filter(|range| !body.prompt.is_some_and(|size| range.has(size.tokens)))
    {
        return Some(Mismatch::PromptTokens(range));
    }
    if let Some(failed) = conditions.contents().find(|condition| !condition.holds(&body.contents)) {
        return Some(Mismatch::Contents { name: failed.name, wanted: failed.wanted });
    }
    let wanted = conditions.stream.filter(|wanted| *wanted != body.streams)?;
    Some(Mismatch::Stream { wanted })
}

/// Whether who sends it is none of those whom the route takes. Who is not known is nobody's.
fn sender_mismatch<'a>(conditions: &'a Conditions, identity: &Identity) -> Option<Mismatch<'a>> {
    let lacks = |wanted: &[Glob], name: Option<&str>| {
        !wanted.is_empty() && !name.is_some_and(|name| wanted.iter().any(|glob| glob.matches(name)))
    };
    if lacks(&conditions.users, identity.user.as_deref()) {
        return Some(Mismatch::User(&conditions.users));
    }
    lacks(&conditions.teams, identity.team.as_deref()).then_some(Mismatch::Team(&conditions.teams))
}

fn head_mismatch<'a>(route: &'a Route, head: &RequestHead<'_>) -> Option<Mismatch<'a>> {
    // Express and ASP.NET take `/V1/Chat` for `/v1/chat`: it must not take another route than that.
    let fits = |path: &str| route.path.0.matches_in_any_case(path);
    if !fits(head.path) && !canonical_path(head.path).is_some_and(|path| fits(&path)) {
        return Some(Mismatch::Path(&route.path.0.source));
    }
    if !route.methods.is_empty() && !route.methods.iter().any(|method| method == head.method) {
        return Some(Mismatch::Method(&route.methods));
    }
    let differs = |(name, value): &&(String, String)| (head.header)(name) != Some(value.as_str());
    if let Some((name, wanted)) = route.headers.iter().find(differs) {
        return Some(Mismatch::Header { name, wanted });
    }
    sender_mismatch(route.conditions.as_deref()?, head.identity)
}

#[cfg(test)]
#[path = "routing_tests.rs"]
mod tests;
