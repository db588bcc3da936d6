//! What stands below the streams.

use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use super::app::{App, Pane};
use super::rows::fit;
use super::text::{count, time, words};

/// The lines of the chosen pane.
pub(super) fn lines(app: &App) -> Vec<Line<'static>> {
    let lines = match app.pane {
        Pane::FirstTokens => first_tokens(app),
        Pane::Upstreams => upstreams(app),
        Pane::Errors => errors(app),
        Pane::Canaries => canaries(app),
        Pane::Limits => limits(app),
    };
    if !lines.is_empty() {
        return lines;
    }
    let nothing = match app.pane {
        Pane::FirstTokens => format!("no stream had a first token in the last {} minutes", app.minutes),
        Pane::Upstreams => "no upstream is known yet".to_owned(),
        Pane::Errors => "nothing failed or was refused lately".to_owned(),
        Pane::Canaries => "no route has a canary: give one `canary = { target = \"…\" }`".to_owned(),
        Pane::Limits => "nobody has used anything of a limit".to_owned(),
    };
    vec![Line::styled(nothing, dim())]
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
        let name = fit(&format!("{} · {}", row.route, row.upstream), 39);
        let times = [row.p50_s, row.p95_s, row.p99_s].map(|share| format!("{:>10}", time(share))).concat();
        Line::from(vec![
            Span::raw(format!("{name} {times}{:>10}", count(row.requests))),
            Span::styled(format!("{:>8}", count(row.failed)), bad(row.failed > 0)),
        ])
    }));
    lines
}

fn upstreams(app: &App) -> Vec<Line<'static>> {
    let all = app.overview.proxy.upstreams.iter();
    all.flat_map(|upstream| upstream.endpoints.iter().map(move |endpoint| (upstream, endpoint)))
        .map(|(upstream, endpoint)| {
            let state = match (endpoint.up, &endpoint.reason) {
                (true, _) => "● up".to_owned(),
                (false, None) => "✗ down".to_owned(),
                (false, Some(reason)) => format!("✗ down: {}", words(reason)),
            };
            Line::from(vec![
                Span::raw(format!("{} {}", fit(&upstream.name, 20), fit(&endpoint.endpoint, 28))),
                Span::styled(fit(&state, 22), if endpoint.up { Style::new().fg(Color::Green) } else { bad(true) }),
                Span::raw(format!(
                    "{:>6} running   first token {:>8} on average",
                    count(endpoint.in_flight),
                    time(endpoint.first_token_s)
                )),
            ])
        })
        .collect()
}

fn errors(app: &App) -> Vec<Line<'static>> {
    let live = &app.overview.live;
    let mut all: Vec<_> = live.failed.iter().chain(&live.refused).collect();
    all.sort_by(|a, b| b.timestamp.cmp(&a.timestamp));
    all.iter()
        .map(|record| {
            let what = words(record.error_type.as_deref().or(record.outcome.as_deref()).unwrap_or_default());
            let place = [&record.route, &record.upstream, &record.user].into_iter().flatten();
            let place = place.map(String::as_str).collect::<Vec<_>>().join(" · ");
            let clock = record.timestamp.get(11..19).unwrap_or_default();
            let status = record.status.map(|status| status.to_string()).unwrap_or_default();
            Line::from(vec![
                Span::styled(format!("{clock} "), dim()),
                Span::styled(fit(&what, 22), bad(true)),
                Span::raw(format!("{status:>4}  {} ", fit(&place, 36))),
                Span::styled(format!("trace {}", record.trace_id), dim()),
            ])
        })
        .collect()
}

fn canaries(app: &App) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    for canary in &app.overview.proxy.canaries {
        let text = format!(
            "{}: `{}` at {} %, {}. {}",
            canary.route,
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
        lines.extend(canary.block.iter().map(|block| Line::styled(format!("  {}", block.words), dim())));
    }
    lines
}

fn limits(app: &App) -> Vec<Line<'static>> {
    let holders = app.overview.proxy.limits.holders.iter();
    holders
        .map(|holder| {
            let share = holder.utilization.clamp(0.0, 1.0);
            let filled = (share * 20.0).round() as usize;
            let bar = format!("{}{}", "█".repeat(filled), "░".repeat(20 - filled));
            Line::from(vec![
                Span::raw(format!("{} {} ", fit(&holder.holder, 28), fit(&holder.limit, 20))),
                Span::styled(bar, if share > 0.9 { bad(true) } else { Style::new().fg(Color::Blue) }),
                Span::raw(format!(" {:>4.0} %   {} running", holder.utilization * 100.0, count(holder.running))),
            ])
        })
        .collect()
}
