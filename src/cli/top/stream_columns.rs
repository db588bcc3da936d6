//! One line a stream: who, its timeline, what it does, its numbers.

use std::time::Instant;

use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use super::app::{WINDOW_S, is_bad};
use super::model::{Facts, Stream};
use super::text::{count, time, whose, words};
use crate::telemetry::record::Phase;

/// Columns beside the timeline: the name before it, state and numbers after it.
const NAME: usize = 26;
const STATE: usize = 22;
const NUMBERS: usize = 27;

/// What counts as slow, in seconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slow {
    pub(super) gap: f64,
    pub(super) first_token: f64,
}

/// The colour of a phase: as far as sixteen colours go, those of the page.
pub(super) fn colour(phase: Phase) -> Color {
    match phase {
        Phase::Receive => Color::LightCyan,
        Phase::Admit => Color::Gray,
        Phase::FailedAttempts => Color::LightRed,
        Phase::Connect => Color::Magenta,
        Phase::UpstreamWait => Color::Yellow,
        Phase::Preamble => Color::LightYellow,
        Phase::Generation => Color::Green,
        Phase::ClientBlocked => Color::Blue,
        Phase::Proxy => Color::White,
    }
}

/// The heads of the columns, for a width.
pub(super) fn heads(width: usize) -> Line<'static> {
    let middle = timeline_width(width);
    let axis = format!("{:<1$}", format!("{WINDOW_S:.0} s ago"), middle.saturating_sub(3));
    let text = format!(
        "{:<NAME$} {:.middle$} {:<STATE$}{:>9}{:>9}{:>9}",
        "route · upstream, user",
        axis + "now",
        "state",
        "1st token",
        "age",
        "frames"
    );
    Line::styled(text, Style::new().add_modifier(Modifier::DIM))
}

/// A stream's line, as it stands `now`.
pub(super) fn line(stream: &Stream, now: Instant, slow: Slow, width: usize, is_chosen: bool) -> Line<'static> {
    let (state, style) = state(stream, slow);
    let mut spans = vec![Span::raw(fit(&name(&stream.facts), NAME)), Span::raw(" ")];
    spans.extend(timeline(stream, now, slow, timeline_width(width)));
    spans.push(Span::styled(format!(" {} ", fit(&state, STATE - 1)), style));
    let numbers = format!("{:>9}{:>9}{:>9}", time(stream.facts.ttft_s), time(Some(stream.age)), count(stream.frames));
    spans.push(Span::raw(numbers));
    let line = Line::from(spans);
    match (is_chosen, stream.has_ended()) {
        (true, _) => line.style(Style::new().add_modifier(Modifier::REVERSED)),
        (false, true) => line.style(Style::new().add_modifier(Modifier::DIM)),
        (false, false) => line,
    }
}

/// What a stream does, or how it ended, and how that is to look.
pub(super) fn state(stream: &Stream, slow: Slow) -> (String, Style) {
    if let Some(outcome) = stream.facts.outcome.as_deref().filter(|_| stream.has_ended()) {
        let style = match outcome {
            "completed" => Style::new().fg(Color::Green),
            outcome if is_bad(outcome) => Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
            _ => Style::new().fg(Color::Yellow),
        };
        let mark = if outcome == "completed" { "✓" } else { "✗" };
        return (format!("{mark} {}", words(outcome)), style);
    }
    if stream.lost {
        // The proxy may be dead, or only far away: nobody knows.
        return ("not known".to_owned(), Style::new().add_modifier(Modifier::DIM));
    }
    let writes = stream.phase == Phase::Generation.as_str();
    let is_slow = stream.here > if writes { slow.gap } else { slow.first_token };
    // Each write takes a moment: that is no blocking yet.
    let blocks = stream.phase == Phase::ClientBlocked.as_str() && stream.here >= 0.3;
    let style = match is_slow || blocks {
        true => Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
        false => Style::new(),
    };
    let word = match stream.phase.as_str() {
        "generation" if stream.here > 1.0 => "silent",
        "generation" => "writing",
        "upstream_wait" => "waits for head",
        "preamble" => "waits for token",
        "client_blocked" if blocks => "client blocks",
        "client_blocked" => "writing",
        "failed_attempts" => "tries again",
        other => other,
    };
    let word = words(word);
    (if stream.here > 1.0 { format!("{word} {}", time(Some(stream.here))) } else { word }, style)
}

fn name(facts: &Facts) -> String {
    let what = facts.route.as_deref().unwrap_or(&facts.path);
    let whose = facts.replica.as_deref().map(whose);
    let who = [whose.as_deref(), facts.upstream.as_deref(), facts.user.as_deref()].into_iter().flatten();
    who.fold(what.to_owned(), |text, part| format!("{text} · {part}"))
}

fn timeline_width(width: usize) -> usize {
    width.saturating_sub(NAME + STATE + NUMBERS + 2).max(8)
}

/// A cell for each piece of the window; the last one is now.
fn timeline(stream: &Stream, now: Instant, slow: Slow, width: usize) -> Vec<Span<'static>> {
    if stream.has_ended() && stream.started.is_none() {
        // It ended before anybody looked: its place on the axis is not known.
        return vec![Span::raw(" ".repeat(width))];
    }
    let age = stream.started.map_or(stream.age, |started| now.saturating_duration_since(started).as_secs_f64());
    let end = if stream.has_ended() || stream.lost { stream.age } else { age };
    let step = WINDOW_S / width as f64;
    let cells = (0..width).map(|cell| {
        let to = age - step * (width - 1 - cell) as f64;
        let from = to - step;
        if to <= 0.0 || from >= end { Span::raw(" ") } else { piece(stream, from.max(0.0), to.min(end), slow, end) }
    });
    let mut spans: Vec<Span<'static>> = Vec::with_capacity(width);
    for cell in cells {
        match spans.last_mut() {
            Some(last) if last.style == cell.style => last.content.to_mut().push_str(&cell.content),
            _ => spans.push(cell),
        }
    }
    spans
}

fn piece(stream: &Stream, from: f64, to: f64, slow: Slow, end: f64) -> Span<'static> {
    let mut at = 0.0;
    for (phase, length) in Phase::ALL.into_iter().zip(stream.phases).take(Phase::Preamble as usize + 1) {
        let is_current = !stream.has_ended() && stream.phase == phase.as_str();
        at += length;
        if length > 0.0 && (from < at || is_current) {
            return Span::styled("░", Style::new().fg(colour(phase)));
        }
    }
    let middle = f64::midpoint(from, to);
    let waits_now = stream.phase == Phase::ClientBlocked.as_str() && middle >= stream.age - stream.here;
    if waits_now || stream.blocked.iter().any(|(from, to)| (*from..*to).contains(&middle)) {
        return Span::styled("▒", Style::new().fg(colour(Phase::ClientBlocked)));
    }
    let frames = stream.ticks.iter().filter(|tick| (from..to).contains(*tick)).count();
    if frames > 0 {
        let bar = match frames {
            1 => "▂",
            2 => "▃",
            3..=5 => "▅",
            6..=15 => "▆",
            _ => "█",
        };
        return Span::styled(bar, Style::new().fg(colour(Phase::Generation)));
    }
    let before = stream.ticks.iter().rev().find(|tick| **tick < from);
    let after = stream.ticks.iter().find(|tick| **tick >= to).copied();
    let until = after.or((!stream.has_ended() || stream.facts.outcome.as_deref() != Some("completed")).then_some(end));
    match (before, until) {
        (Some(before), Some(until)) if until - before > slow.gap => Span::styled("╳", Style::new().fg(Color::Red)),
        _ => Span::styled("·", Style::new().fg(colour(Phase::Generation))),
    }
}

/// Cut or filled to `width` characters.
pub(super) fn fit(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width {
        return format!("{text:<width$}");
    }
    let mut cut: String = text.chars().take(width.saturating_sub(1)).collect();
    cut.push('…');
    cut
}
