//! One request taken apart.

use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};

use super::model::{Facts, Stream};
use super::stream_columns::{Slow, colour, fit, state};
use super::text::{time, words};
use crate::telemetry::record::Phase;

/// The lines of a stream's anatomy, for a width.
pub(super) fn lines(stream: &Stream, slow: Slow, width: usize) -> Vec<Line<'static>> {
    let (word, style) = state(stream, slow);
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let facts = &stream.facts;
    let mut lines = vec![
        Line::styled(format!("{} {}", facts.method, facts.path), bold),
        Line::from(vec![Span::styled(word, style), Span::raw("  "), Span::raw(meaning(stream))]),
        Line::default(),
        bar(stream, width),
        Line::default(),
    ];
    lines.extend(phases(stream));
    lines.push(Line::default());
    lines.extend(numbers(stream).into_iter().map(|(name, value)| {
        Line::from(vec![
            Span::styled(format!("{name:<18}"), Style::new().add_modifier(Modifier::DIM)),
            Span::raw(value),
        ])
    }));
    for (number, attempt) in facts.attempts.iter().enumerate() {
        let end = match (&attempt.error_type, attempt.status) {
            (Some(error), _) => words(error),
            (None, Some(status)) => status.to_string(),
            (None, None) => "broken off".to_owned(),
        };
        let at = attempt.place.text().map(|at| format!(" {at}")).unwrap_or_default();
        let text =
            format!("attempt {}: {}{at} {end}, {}", number + 1, attempt.upstream, time(Some(attempt.duration_s)));
        lines.push(Line::raw(text));
    }
    lines
}

fn meaning(stream: &Stream) -> String {
    match &stream.meaning {
        Some(meaning) => meaning.clone(),
        None => format!("Runs for {}.", time(Some(stream.age))),
    }
}

fn shares(stream: &Stream) -> impl Iterator<Item = (Phase, f64, f64)> {
    let total = stream.phases.iter().sum::<f64>().max(1e-9);
    Phase::ALL.into_iter().zip(stream.phases).map(move |(phase, spent)| (phase, spent, spent / total))
}

fn bar(stream: &Stream, width: usize) -> Line<'static> {
    let (mut spans, mut drawn, mut sum) = (Vec::new(), 0, 0.0);
    for (phase, _, share) in shares(stream) {
        sum += share;
        let to = (sum * width as f64).round() as usize;
        spans.push(Span::styled("█".repeat(to.saturating_sub(drawn)), Style::new().fg(colour(phase))));
        drawn = drawn.max(to);
    }
    Line::from(spans)
}

fn phases(stream: &Stream) -> Vec<Line<'static>> {
    shares(stream)
        .filter(|(_, spent, _)| *spent >= 0.001)
        .map(|(phase, spent, share)| {
            Line::from(vec![
                Span::styled("█ ", Style::new().fg(colour(phase))),
                Span::raw(format!(
                    "{}{:>10}{:>6.1} %",
                    fit(&words(phase.as_str()), 16),
                    time(Some(spent)),
                    share * 100.0
                )),
            ])
        })
        .collect()
}

fn numbers(stream: &Stream) -> Vec<(&'static str, String)> {
    let facts = &stream.facts;
    let seconds = |value: Option<f64>| value.map(|value| time(Some(value)));
    let all = [
        ("replica", facts.replica.clone()),
        ("route", facts.route.clone()),
        ("upstream", facts.upstream.clone()),
        ("endpoint", facts.place.text()),
        ("model", facts.model.clone()),
        ("user", facts.user.clone()),
        ("status", facts.status.map(|status| status.to_string())),
        ("error", facts.error_type.as_deref().map(words)),
        ("dialect", facts.dialect.as_ref().map(|dialect| reads_as(dialect, facts))),
        ("first token", seconds(facts.ttft_s)),
        ("per output token", seconds(facts.tpot_s)),
        ("longest gap", seconds(facts.max_gap_s)),
        ("tokens", tokens(facts)),
        ("cost", facts.cost_usd.map(|cost| format!("$ {cost}"))),
        ("frames", Some(stream.frames.to_string())),
        ("attempts so far", (!stream.has_ended() && stream.attempts > 0).then(|| stream.attempts.to_string())),
        ("request", Some(facts.request_id.clone())),
        ("trace", Some(facts.trace_id.clone())),
    ];
    all.into_iter().filter_map(|(name, value)| Some((name, value.filter(|value| !value.is_empty())?))).collect()
}

/// What the stream speaks, and whether its first token is a guess.
fn reads_as(dialect: &str, facts: &Facts) -> String {
    let framing = facts.framing.as_deref().map(|framing| format!(" over {framing}")).unwrap_or_default();
    let guess = if facts.ttft_basis.as_deref() == Some("guess") { " (first token by guess)" } else { "" };
    format!("{dialect}{framing}{guess}")
}

fn tokens(facts: &Facts) -> Option<String> {
    let output = facts.output_tokens?;
    let input = facts.input_tokens.map_or("?".to_owned(), |input| input.to_string());
    let source = facts.usage_source.as_deref().map(words).unwrap_or_default();
    Some(format!("{input} in, {output} out ({source})"))
}
