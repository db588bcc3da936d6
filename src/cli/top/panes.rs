//! What stands below the streams.

use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use super::super::admin_views::{Failures, Holder, Lever};
use super::app::{App, Pane};
use super::model::{Endpoint, Facts, Mirror, Side, Trouble};
use super::stream_columns::fit;
use super::text::{count, time, whose, words};

/// Troubles above the last that failed, or were refused.
const TROUBLES_SHOWN: usize = 6;

/// The lines of a pane.
pub(super) fn lines(app: &App, pane: Pane) -> Vec<Line<'static>> {
    let live = &app.overview.live;
    let lines = match pane {
        Pane::FirstTokens => first_tokens(app),
        Pane::Upstreams => upstreams(app),
        Pane::Failures => ended(&live.troubles, "failure", &live.failed),
        Pane::Refusals => ended(&live.troubles, "refusal", &live.refused),
        Pane::Canaries => canaries(app),
        Pane::Limits => limits(app),
    };
    if !lines.is_empty() {
        return lines;
    }
    let nothing = match pane {
        Pane::FirstTokens => format!("no stream had a first token in the last {} minutes", app.minutes),
        Pane::Upstreams => "no upstream is known yet".to_owned(),
        Pane::Failures => "nothing failed lately".to_owned(),
        Pane::Refusals => "nobody was refused lately".to_owned(),
        Pane::Canaries => "no route has a canary: give one `canary = { target = \"…\" }`".to_owned(),
        Pane::Limits => "nobody has used anything of a limit".to_owned(),
    };
    vec![Line::styled(nothing, dim())]
}

/// A name with its replica, in the view of a fleet.
fn named(name: String, replica: Option<&String>) -> String {
    match replica {
        Some(replica) => format!("{} {name}", whose(replica)),
        None => name,
    }
}

fn dim() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

fn bad(is_bad: bool) -> Style {
    if is_bad { Style::new().fg(Color::Red) } else { Style::new() }
}

fn first_tokens(app: &App) -> Vec<Line<'static>> {
    let rows = &app.overview.live.first_tokens;
    if rows.is_empty() {
        return Vec::new();
    }
    let head =
        format!("{:<40}{:>10}{:>10}{:>10}{:>10}{:>8}", "route · upstream", "p50", "p95", "p99", "requests", "failed");
    let mut lines = vec![Line::styled(head, dim())];
    lines.extend(rows.iter().map(|row| {
        let name = fit(&named(format!("{} · {}", row.route, row.upstream), row.replica.as_ref()), 39);
        let times = [row.p50_s, row.p95_s, row.p99_s].map(|share| format!("{:>10}", time(share))).concat();
        Line::from(vec![
            Span::raw(format!("{name} {times}{:>10}", count(row.requests))),
            Span::styled(format!("{:>8}", count(row.failed)), bad(row.failed > 0)),
        ])
    }));
    lines
}

fn upstreams(app: &App) -> Vec<Line<'static>> {
    let all = &app.overview.proxy.upstreams;
    if all.is_empty() {
        return Vec::new();
    }
    let head =
        format!("{:<35}{:>9}{:>8}{:>9}{:>9}{:>13}", "upstream endpoint", "running", "tokens", "p50", "p95", "failed");
    let mut lines = vec![Line::styled(format!("{head}  health"), dim())];
    for upstream in all {
        for endpoint in &upstream.endpoints {
            let name = named(format!("{} {}", upstream.name, endpoint.endpoint), upstream.replica.as_ref());
            lines.extend(endpoint_lines(&name, endpoint));
            for one in &endpoint.each_address {
                lines.extend(endpoint_lines(&format!("  {}", one.address), one));
            }
        }
    }
    lines
}

/// What was measured of an endpoint, and below it since when it is worse.
fn endpoint_lines(name: &str, endpoint: &Endpoint) -> Vec<Line<'static>> {
    let measured = &endpoint.measured;
    let (state, style) = match &*endpoint.state {
        "up" => ("● up".to_owned(), Style::new().fg(Color::Green)),
        "probing" => ("◐ on trial".to_owned(), Style::new().fg(Color::Yellow)),
        state if endpoint.lever.is_some() => (format!("◌ {}", words(state)), Style::new().fg(Color::Yellow)),
        state => (format!("✗ {}", words(state)), bad(true)),
    };
    let failed = format!("{} of {}", count(measured.failed), count(measured.attempts));
    let numbers = format!(
        "{}{:>9}{:>8}{:>9}{:>9}",
        fit(name, 35),
        count(endpoint.in_flight),
        count(measured.first_tokens),
        time(measured.p50_s),
        time(measured.p95_s)
    );
    let mut lines = vec![Line::from(vec![
        Span::raw(numbers),
        Span::styled(format!("{failed:>13}"), bad(measured.failed > 0)),
        Span::styled(format!("  {state}"), style),
    ])];
    lines.extend(since(endpoint).map(|text| Line::styled(format!("  {text}"), dim())));
    lines
}

fn since(endpoint: &Endpoint) -> Option<String> {
    let mut parts = Vec::new();
    parts.extend(endpoint.lever.as_ref().map(by_hand));
    if let (Some(reason), Some(since)) = (&endpoint.reason, &endpoint.down_since) {
        parts.push(format!("{} since {}", words(reason), clock(since)));
    }
    if let Some(failures) = &endpoint.failures {
        let (first, last) = (clock(&failures.first), clock(&failures.last));
        parts.push(format!("{} failed from {first} to {last}", count(failures.count)));
    }
    if let Some(serving) = &endpoint.serving_meanwhile {
        parts.push(format!("meanwhile: {}", serving.join(", ")));
    }
    (!parts.is_empty()).then(|| parts.join(" · "))
}

/// Who took it out of service by hand, since when and why.
pub(super) fn by_hand(lever: &Lever) -> String {
    let reason = lever.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
    let whose = lever.replica.as_deref().map_or_else(String::new, |replica| format!(" {}", whose(replica)));
    format!("{}{whose} since {} by {}{reason}", lever.setting, clock(&lever.since), lever.by)
}

/// First, last and how often.
fn times(seen: &Failures) -> String {
    match seen.count {
        1 => format!("once, at {}", clock(&seen.first)),
        count => format!("{} times from {} to {}", self::count(count), clock(&seen.first), clock(&seen.last)),
    }
}

fn trouble(trouble: &Trouble) -> Line<'static> {
    let limit = trouble.limit.as_ref().map(|limit| format!("limit {limit}"));
    let place = [&trouble.who, &limit, &trouble.route, &trouble.upstream, &trouble.endpoint].into_iter().flatten();
    let place = named(place.map(String::as_str).collect::<Vec<_>>().join(" · "), trouble.replica.as_ref());
    let (first, last) = (clock(&trouble.first), clock(&trouble.last));
    Line::from(vec![
        Span::styled(fit(&words(&trouble.what), 22), bad(true)),
        Span::raw(format!("{} {:>7} times since {first}, last {last}", fit(&place, 50), count(trouble.count))),
    ])
}

/// The time of the day of a timestamp.
pub(super) fn clock(timestamp: &str) -> String {
    timestamp.get(11..19).unwrap_or_default().to_owned()
}

/// What goes on of a kind, each once, and below it the last of them.
fn ended(troubles: &[Trouble], kind: &str, last: &[Facts]) -> Vec<Line<'static>> {
    let troubles = troubles.iter().filter(|trouble| trouble.kind == kind).take(TROUBLES_SHOWN).map(trouble);
    let records = last.iter().map(|record| {
        let what = words(record.error_type.as_deref().or(record.outcome.as_deref()).unwrap_or_default());
        let endpoint = record.place.text();
        let place = [&record.route, &record.upstream, &endpoint, &record.user].into_iter().flatten();
        let place = named(place.map(String::as_str).collect::<Vec<_>>().join(" · "), record.replica.as_ref());
        let clock = record.timestamp.get(11..19).unwrap_or_default();
        let status = record.status.map(|status| status.to_string()).unwrap_or_default();
        Line::from(vec![
            Span::styled(format!("{clock} "), dim()),
            Span::styled(fit(&what, 22), bad(true)),
            Span::raw(format!("{status:>4}  {} ", fit(&place, 44))),
            Span::styled(format!("trace {}", record.trace_id), dim()),
        ])
    });
    troubles.chain(records).collect()
}

fn canaries(app: &App) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    for canary in &app.overview.proxy.canaries {
        let text = format!(
            "{}: `{}` at {} %, {}. {}",
            named(canary.route.clone(), canary.replica.as_ref()),
            canary.canary,
            canary.percent,
            words(&canary.state),
            canary.next
        );
        lines.push(Line::styled(text, Style::new().add_modifier(Modifier::BOLD)));
        for fact in &canary.facts {
            let tallies = [&fact.canary, &fact.baseline].map(|tally| format!("{} of {}", tally.yes, tally.of));
            let text = format!(
                "  {:<12} canary {:<14} baseline {:<14} evidence of harm {:.2} (rolled back at {:.0})",
                words(&fact.fact),
                tallies[0],
                tallies[1],
                fact.evidence,
                fact.needed
            );
            lines.push(Line::styled(text, bad(fact.evidence >= fact.needed)));
        }
        for fact in &canary.facts {
            if let Some(seen) = &fact.seen {
                let since = fact.worse_since.as_deref().map(clock);
                let worse = since.map_or_else(String::new, |since| format!(" worse since {since},"));
                let text = format!("  {}:{worse} {}", words(&fact.fact), times(seen));
                lines.push(Line::styled(text, if worse.is_empty() { dim() } else { bad(true) }));
            }
        }
    }
    lines.extend(app.overview.live.shadows.iter().flat_map(shadow));
    lines
}

/// What the copies of a route's requests showed.
fn shadow(shadow: &Mirror) -> Vec<Line<'static>> {
    let Mirror { same, differs, failed, skipped, .. } = shadow;
    let route = named(shadow.route.clone(), shadow.replica.as_ref());
    let head = format!("{route}: copies to `{}`: {same} same, {differs} differ, ", shadow.variant);
    let mut lines = vec![Line::from(vec![
        Span::styled(head, Style::new().add_modifier(Modifier::BOLD)),
        Span::styled(format!("{failed} failed"), bad(*failed > 0)),
        Span::raw(format!(", {skipped} not made")),
    ])];
    let differences = shadow.differences.iter().filter(|(_, seen)| seen.count > 0);
    lines.extend(differences.map(|(what, seen)| Line::raw(format!("  {} differs: {}", words(what), times(seen)))));
    let side =
        |side: &Side| format!("{} first token, {} tokens", time(side.first_token_p50_s), count(side.output_tokens));
    let text = format!("  of the pairs: clients' {}; copies' {}", side(&shadow.primary), side(&shadow.shadow));
    lines.push(Line::styled(text, dim()));
    lines
}

fn limits(app: &App) -> Vec<Line<'static>> {
    app.overview.proxy.limits.holders.iter().flat_map(holder_lines).collect()
}

/// How full a limit is for somebody, what of it is spent and what only held, and since when it refuses.
fn holder_lines(holder: &Holder) -> Vec<Line<'static>> {
    let share = holder.utilization.clamp(0.0, 1.0);
    let filled = (share * 20.0).round() as usize;
    let bar = format!("{}{}", "█".repeat(filled), "░".repeat(20 - filled));
    let mut lines = vec![Line::from(vec![
        Span::raw(format!(
            "{} {} ",
            fit(&named(holder.holder.clone(), holder.replica.as_ref()), 28),
            fit(&holder.limit, 20)
        )),
        Span::styled(bar, if share > 0.9 { bad(true) } else { Style::new().fg(Color::Blue) }),
        Span::raw(format!(" {:>4.0} %   {} running", holder.utilization * 100.0, count(holder.running))),
    ])];
    let taken = taken(holder);
    if !taken.is_empty() {
        lines.push(Line::styled(format!("  {}", taken.join(" · ")), dim()));
    }
    if let Some(refused) = &holder.refused {
        let (first, last) = (clock(&refused.first), clock(&refused.last));
        let (count, reason) = (count(refused.count), words(&refused.reason));
        let text = format!("  full since {first}: {count} refused ({reason}), last {last}");
        lines.push(Line::styled(text, bad(true)));
    }
    lines
}

fn taken(holder: &Holder) -> Vec<String> {
    let mut parts = Vec::new();
    if let Some(tokens) = &holder.tokens {
        parts.push(format!(
            "{} of {} tokens left, {} spent, {} held",
            count(tokens.remaining),
            count(tokens.limit),
            count(holder.tokens_spent),
            count(holder.tokens_held)
        ));
    }
    let windows =
        [(holder.budget_usd_24h, holder.cost_usd_24h, "24 h"), (holder.budget_usd_30d, holder.cost_usd_30d, "30 d")];
    for (budget, spent, window) in windows {
        let Some(budget) = budget else { continue };
        parts.push(format!("${spent:.4} spent, ${:.4} held of ${budget:.2} in {window}", holder.cost_usd_held));
    }
    parts
}
