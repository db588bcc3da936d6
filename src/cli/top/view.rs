//! Draws everything: a head line, the streams, one pane, and what lies over them.

use std::time::Instant;

use ratatui::Frame;
use ratatui::layout::{Constraint, Flex, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Block, Clear, Paragraph, Wrap};

use super::app::{App, Link, Over, Pane};
use super::model::{Order, Replica};
use super::stream_columns::{self, Slow};
use super::{anatomy, panes};
use crate::telemetry::json;

const KEYS: [(&str, &str); 9] = [
    ("↓ ↑  j k", "choose a stream; PgUp PgDn g G too"),
    ("Enter", "its anatomy; j and k go on to the next"),
    ("Escape", "close it; clear the filter"),
    ("/", "filter: text, route:chat, upstream:…, user:…, outcome:failed"),
    ("o", "order: longest running, newest, quietest"),
    ("Tab", "the next pane below: first tokens, upstreams, failures, refusals, canaries, limits"),
    ("p", "pause, go on"),
    ("?", "this help"),
    ("q", "leave"),
];

/// What is out of service by hand, above the streams.
const LEVERS_SHOWN: usize = 3;

/// Draws `app` as it stands `now`.
pub(super) fn draw(frame: &mut Frame<'_>, app: &mut App, now: Instant) {
    draw_all(frame, app, now);
    // The admin address may be anybody's: what it calls a route must not steer this terminal.
    for cell in &mut frame.buffer_mut().content {
        if cell.symbol().chars().any(json::steers_terminals) {
            cell.set_symbol("\u{fffd}");
        }
    }
}

fn draw_all(frame: &mut Frame<'_>, app: &mut App, now: Instant) {
    app.arrange();
    let now = app.clock(now);
    let notes = notes(app);
    let pane_height = (frame.area().height / 3).clamp(4, 12);
    let parts = [
        Constraint::Length(1),
        Constraint::Length(notes.len() as u16),
        Constraint::Min(3),
        Constraint::Length(pane_height),
        Constraint::Length(1),
    ];
    let [head, noted, list, pane, foot] = Layout::vertical(parts).areas(frame.area());
    frame.render_widget(header(app), head);
    frame.render_widget(Text::from(notes), noted);
    streams(frame, app, list, now);
    frame.render_widget(tabs(app), Rect { height: 1, ..pane });
    let below = Rect { y: pane.y + 1, height: pane.height.saturating_sub(1), ..pane };
    frame.render_widget(Text::from(panes::lines(app, app.pane)), below);
    frame.render_widget(footer(app), foot);
    match &app.over {
        Over::Nothing => {}
        Over::Help => over(frame, " Keys ", help()),
        Over::Anatomy(key) => {
            let width = usize::from(frame.area().width.saturating_sub(8).min(92));
            let gone = || vec![Line::raw("This stream is shown no more.")];
            let lines = app.streams.find(key).map_or_else(gone, |stream| anatomy::lines(stream, slow(app), width));
            over(frame, " Anatomy ", lines);
        }
    }
}

fn slow(app: &App) -> Slow {
    let proxy = &app.overview.proxy;
    Slow { gap: proxy.slow_gap_s, first_token: proxy.slow_first_token_s }
}

fn header(app: &App) -> Line<'static> {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let running = format!("  {} running", app.running());
    let (word, colour, running) = match (&app.link, app.paused) {
        (Link::Lost { since, .. }, _) => {
            (format!("no connection since {}", panes::clock(since)), Color::Red, String::new())
        }
        (_, Some(_)) => ("paused".to_owned(), Color::Yellow, running),
        (Link::Connecting, _) => ("connecting".to_owned(), Color::Yellow, running),
        (Link::Live, _) => ("live".to_owned(), Color::Green, running),
    };
    Line::from(vec![
        Span::styled(format!("Streamgauge {}", app.version), bold),
        Span::raw(format!("  {}  ", app.admin)),
        Span::styled(format!("● {word}"), Style::new().fg(colour)),
        Span::raw(running),
        Span::raw(if app.not_shown() > 0 { format!(" ({} not shown)", app.not_shown()) } else { String::new() }),
    ])
}

/// The panes that the picture does not show, for where nobody can press Tab.
pub(super) fn other_panes(app: &App) -> String {
    let mut text = String::new();
    for pane in Pane::ALL.into_iter().filter(|pane| *pane != app.pane) {
        text.extend(["\n── ", pane.title(), "\n"]);
        for line in panes::lines(app, pane) {
            let line: String = line.spans.iter().map(|span| span.content.as_ref()).collect();
            let steers = |character: char| if json::steers_terminals(character) { '\u{fffd}' } else { character };
            text.extend(line.trim_end().chars().map(steers));
            text.push('\n');
        }
    }
    text
}

/// What is to be known before anything else.
fn notes(app: &App) -> Vec<Line<'static>> {
    let note = |text: String| Line::styled(text, Style::new().fg(Color::Yellow));
    let mut notes = Vec::new();
    if let Link::Lost { why, .. } = &app.link {
        notes.push(Line::styled(format!("{why}; trying again every second"), Style::new().fg(Color::Red)));
    }
    for replica in app.overview.fleet.replicas.iter().filter(|replica| replica.answered == Some(false)) {
        notes.push(Line::styled(absent(replica), Style::new().fg(Color::Red)));
    }
    let proxy = &app.overview.proxy;
    if proxy.draining {
        notes.push(note(
            "Draining: the proxy takes no new requests and exits when the last stream has ended.".to_owned(),
        ));
    }
    for route in &proxy.levers.unserved_routes {
        let text = format!("NOBODY serves route {route}: all that could is out of service by hand, clients get 503");
        notes.push(Line::styled(text, Style::new().fg(Color::Red)));
    }
    for lever in proxy.levers.levers.iter().take(LEVERS_SHOWN) {
        notes.push(note(format!("By hand: {} is {}", lever.words, panes::by_hand(lever))));
    }
    if proxy.levers.levers.len() > LEVERS_SHOWN {
        notes.push(note(format!(
            "and {} more: `streamgauge drain` lists them",
            proxy.levers.levers.len() - LEVERS_SHOWN
        )));
    }
    if !proxy.last_error.is_empty() {
        let first = proxy.last_error.lines().next().unwrap_or_default();
        notes.push(note(format!("The configuration file has an error, the last good one is in effect: {first}")));
    }
    for hint in app.overview.live.hints.iter().take(2) {
        let text = match &*hint.upstream {
            "" => format!("{}: {}", hint.peer, hint.hint),
            upstream => format!(
                "{upstream}: something collected {} streams and let them go in bursts; the live view and the log say \
                 what to look for",
                hint.streams
            ),
        };
        notes.push(note(text));
    }
    notes
}

/// Who is not shown, since when and why.
fn absent(replica: &Replica) -> String {
    let since = replica.absent_since.as_deref().map(panes::clock);
    let since = since.map_or_else(String::new, |since| format!(" since {since}"));
    let at = replica.admin.as_ref().filter(|admin| **admin != replica.replica);
    let at = at.map_or_else(String::new, |at| format!(" ({at})"));
    let why = replica.trouble.as_deref().unwrap_or("it did not answer");
    format!("Replica {}{at} is not shown{since}: {why}", replica.replica)
}

fn streams(frame: &mut Frame<'_>, app: &App, area: Rect, now: Instant) {
    let width = usize::from(area.width);
    let space = usize::from(area.height.saturating_sub(1));
    let chosen = app.chosen.as_ref().and_then(|chosen| app.listed.iter().position(|key| key == chosen));
    // The chosen one is always in sight.
    let first = chosen.map_or(0, |at| (at + 1).saturating_sub(space));
    let mut lines = vec![stream_columns::heads(width)];
    for key in app.listed.iter().skip(first).take(space) {
        if let Some(stream) = app.streams.find(key) {
            lines.push(stream_columns::line(stream, now, slow(app), width, app.chosen.as_ref() == Some(key)));
        }
    }
    if app.listed.is_empty() {
        lines.extend(empty(app));
    }
    frame.render_widget(Text::from(lines), area);
}

fn empty(app: &App) -> Vec<Line<'static>> {
    if !app.filter.is_empty() {
        return vec![Line::raw(format!("No stream matches the filter \"{}\". Escape clears it.", app.filter))];
    }
    if app.link != Link::Live {
        return Vec::new();
    }
    let at = app.overview.proxy.listen.iter().find(|at| !at.starts_with("unix:") && !at.ends_with(":0"));
    let at = at.map_or("the address that the proxy printed at its start".to_owned(), |at| format!("http://{at}"));
    vec![
        Line::default(),
        Line::raw("Nothing has come through yet."),
        Line::raw(format!("Point your frontend at {at} in place of your backend.")),
    ]
}

fn tabs(app: &App) -> Line<'static> {
    let mut spans = vec![Span::raw("── ")];
    for pane in Pane::ALL {
        let style = match pane == app.pane {
            true => Style::new().add_modifier(Modifier::BOLD | Modifier::REVERSED),
            false => Style::new().add_modifier(Modifier::DIM),
        };
        spans.extend([Span::styled(format!(" {} ", pane.title()), style), Span::raw(" ")]);
    }
    spans.push(Span::raw("─".repeat(200)));
    Line::from(spans)
}

fn footer(app: &App) -> Line<'static> {
    if app.is_typing {
        return Line::from(vec![Span::raw("Filter: "), Span::raw(app.filter.clone()), Span::raw("█")]);
    }
    let order = match app.order {
        Order::Longest => "longest running",
        Order::Newest => "newest",
        Order::Quietest => "quietest",
    };
    let filter = if app.filter.is_empty() { String::new() } else { format!("  filter \"{}\"", app.filter) };
    let text =
        format!("j k choose  Enter anatomy  / filter  o order: {order}  Tab pane  p pause  ? help  q leave{filter}");
    Line::styled(text, Style::new().add_modifier(Modifier::DIM))
}

fn help() -> Vec<Line<'static>> {
    let mut lines: Vec<Line<'static>> =
        KEYS.iter().map(|(key, what)| Line::from(format!("{key:<10} {what}"))).collect();
    lines.push(Line::default());
    lines.push(Line::raw(
        "░ before the first token   ▂▅█ token frames   · none   ╳ slow gap   ▒ the client takes nothing",
    ));
    lines
}

/// A box in the middle, over everything.
fn over(frame: &mut Frame<'_>, title: &'static str, lines: Vec<Line<'static>>) {
    let area = frame.area();
    let height = (lines.len() as u16 + 3).min(area.height);
    let width = area.width.saturating_sub(4).min(96);
    let [row] = Layout::vertical([Constraint::Length(height)]).flex(Flex::Center).areas(area);
    let [place] = Layout::horizontal([Constraint::Length(width)]).flex(Flex::Center).areas(row);
    frame.render_widget(Clear, place);
    let block = Block::bordered().title(title);
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }).block(block), place);
}
