//! What `top` shows at the moment: the proxy's state, what is chosen, and what keys do.

use std::collections::HashMap;
use std::time::{Instant, SystemTime};

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::feed::Told;
use super::model::{Key, Order, Overview, Stream, Streams};
use crate::telemetry::timestamp;

/// Seconds of the timelines.
pub(super) const WINDOW_S: f64 = 30.0;

/// Longest filter, in characters.
const FILTER_MAX: usize = 120;

/// Rows of a page up or down.
const PAGE: isize = 10;

/// What stands below the streams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Pane {
    #[default]
    FirstTokens,
    Upstreams,
    Failures,
    Refusals,
    Canaries,
    Limits,
}

impl Pane {
    pub(super) const ALL: [Self; 6] =
        [Self::FirstTokens, Self::Upstreams, Self::Failures, Self::Refusals, Self::Canaries, Self::Limits];

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::FirstTokens => "First token",
            Self::Upstreams => "Upstreams",
            Self::Failures => "Failures",
            Self::Refusals => "Refusals",
            Self::Canaries => "Canaries",
            Self::Limits => "Limits",
        }
    }

    fn step(self, by: usize) -> Self {
        let at = Self::ALL.iter().position(|pane| *pane == self).unwrap_or_default();
        Self::ALL.get((at + by) % Self::ALL.len()).copied().unwrap_or(self)
    }
}

/// What lies over the streams.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Over {
    #[default]
    Nothing,
    Help,
    Anatomy(Key),
}

/// How the feed stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Link {
    #[default]
    Connecting,
    Live,
    /// Why, and since when, as a timestamp.
    Lost {
        why: String,
        since: String,
    },
}

#[derive(Default)]
pub(super) struct App {
    pub(super) admin: String,
    pub(super) link: Link,
    pub(super) version: String,
    pub(super) minutes: u64,
    /// By replica, where all of a fleet are shown: how many run, and how many of them are not shown.
    counts: HashMap<String, (u64, u64)>,
    pub(super) streams: Streams,
    pub(super) overview: Overview,
    /// Since when what is shown stands still.
    pub(super) paused: Option<Instant>,
    pub(super) filter: String,
    pub(super) is_typing: bool,
    pub(super) order: Order,
    pub(super) pane: Pane,
    pub(super) over: Over,
    pub(super) chosen: Option<Key>,
    /// What the list shows, in its order.
    pub(super) listed: Vec<Key>,
    has_frame: bool,
    has_overview: bool,
}

impl App {
    pub(super) fn new(admin: &str) -> Self {
        Self { admin: admin.to_owned(), minutes: 5, ..Self::default() }
    }

    /// Takes over what the proxy told.
    pub(super) fn told(&mut self, told: Told, now: Instant) {
        if let Told::Lost(why) = told {
            let since = match &self.link {
                Link::Lost { since, .. } => since.clone(),
                _ => timestamp(SystemTime::now()),
            };
            self.link = Link::Lost { why, since };
            self.streams.lose();
            return;
        }
        // What a paused picture shows stays; what came meanwhile is missing after it.
        if self.paused.is_some() && !matches!(told, Told::Hello { .. }) {
            return;
        }
        match told {
            Told::Hello { version, minutes } => {
                (self.version, self.minutes, self.link) = (version, minutes, Link::Live);
                if self.paused.is_none() {
                    self.streams = Streams::default();
                    self.counts.clear();
                }
            }
            Told::Overview(overview) => {
                self.overview = *overview;
                self.has_overview = true;
            }
            Told::Streams(frame) => {
                self.counts.insert(frame.replica.clone(), (frame.running, frame.not_shown));
                let heirs = [self.chosen.as_ref(), self.opened()].map(|key| key.and_then(|key| self.streams.heir(key)));
                self.streams.take(*frame, now);
                self.pass_on(heirs);
                self.has_frame = true;
            }
            Told::Lost(_) => {}
        }
    }

    /// Whether there is something of everything to show.
    pub(super) fn is_informed(&self) -> bool {
        let answered = self.overview.fleet.replicas.iter().filter(|one| one.answered == Some(true));
        self.has_frame && self.has_overview && answered.into_iter().all(|one| self.counts.contains_key(&one.replica))
    }

    /// How many requests run.
    pub(super) fn running(&self) -> u64 {
        self.counts.values().map(|(running, _)| running).sum()
    }

    /// How many of them are not shown.
    pub(super) fn not_shown(&self) -> u64 {
        self.counts.values().map(|(_, not_shown)| not_shown).sum()
    }

    /// Does what a key says; true when that is to leave.
    pub(super) fn pressed(&mut self, key: KeyEvent) -> bool {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return key.code == KeyCode::Char('c');
        }
        if self.is_typing {
            self.typed(key.code);
            return false;
        }
        if self.over != Over::Nothing {
            match key.code {
                KeyCode::Esc | KeyCode::Enter | KeyCode::Char('q' | '?') => self.over = Over::Nothing,
                KeyCode::Down | KeyCode::Char('j') => self.go_on_to(1),
                KeyCode::Up | KeyCode::Char('k') => self.go_on_to(-1),
                _ => {}
            }
            return false;
        }
        match key.code {
            KeyCode::Char('q') => return true,
            KeyCode::Down | KeyCode::Char('j') => self.choose(1),
            KeyCode::Up | KeyCode::Char('k') => self.choose(-1),
            KeyCode::PageDown => self.choose(PAGE),
            KeyCode::PageUp => self.choose(-PAGE),
            KeyCode::Home | KeyCode::Char('g') => self.choose(isize::MIN / 2),
            KeyCode::End | KeyCode::Char('G') => self.choose(isize::MAX / 2),
            KeyCode::Enter => self.over = self.chosen.clone().map_or(Over::Nothing, Over::Anatomy),
            KeyCode::Tab | KeyCode::Right => self.pane = self.pane.step(1),
            KeyCode::BackTab | KeyCode::Left => self.pane = self.pane.step(Pane::ALL.len() - 1),
            KeyCode::Char('/') => self.is_typing = true,
            KeyCode::Char('p') => self.paused = if self.paused.is_some() { None } else { Some(Instant::now()) },
            KeyCode::Char('o') => {
                self.order = match self.order {
                    Order::Longest => Order::Newest,
                    Order::Newest => Order::Quietest,
                    Order::Quietest => Order::Longest,
                };
            }
            KeyCode::Char('?') => self.over = Over::Help,
            KeyCode::Esc => self.filter.clear(),
            _ => {}
        }
        false
    }

    /// Puts together what the list shows.
    pub(super) fn arrange(&mut self) {
        let filter = self.filter.to_lowercase();
        let terms: Vec<&str> = filter.split_whitespace().collect();
        let wanted = |stream: &Stream| terms.iter().all(|term| has(stream, term));
        self.listed = self.streams.list(self.order, wanted).into_iter().map(|stream| stream.key.clone()).collect();
        if self.chosen.as_ref().is_some_and(|chosen| !self.listed.contains(chosen)) {
            self.chosen = None;
        }
    }

    /// The time of the picture.
    pub(super) fn clock(&self, now: Instant) -> Instant {
        self.paused.unwrap_or(now)
    }

    fn typed(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Esc => {
                self.is_typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(character) if self.filter.chars().count() < FILTER_MAX => self.filter.push(character),
            _ => {}
        }
    }

    fn choose(&mut self, by: isize) {
        let at = self.chosen.as_ref().and_then(|chosen| self.listed.iter().position(|key| key == chosen));
        let last = self.listed.len().saturating_sub(1);
        let next = at.map_or(0, |at| at.saturating_add_signed(by).min(last));
        self.chosen = self.listed.get(next).cloned();
    }

    /// The anatomy of the next one.
    fn go_on_to(&mut self, by: isize) {
        if let Over::Anatomy(_) = self.over {
            self.choose(by);
            self.over = self.chosen.clone().map_or(Over::Nothing, Over::Anatomy);
        }
    }

    fn opened(&self) -> Option<&Key> {
        match &self.over {
            Over::Anatomy(key) => Some(key),
            _ => None,
        }
    }

    /// What was chosen or opened and has ended is followed by its record.
    fn pass_on(&mut self, heirs: [Option<Key>; 2]) {
        let [chosen, opened] = heirs;
        let heir = |key: Option<&Key>, heir: Option<Key>, streams: &Streams| {
            let is_gone = key.is_some_and(|key| streams.find(key).is_none());
            heir.filter(|heir| is_gone && streams.find(heir).is_some())
        };
        if let Some(key) = heir(self.chosen.as_ref(), chosen, &self.streams) {
            self.chosen = Some(key);
        }
        if let Some(key) = heir(self.opened(), opened, &self.streams) {
            self.over = Over::Anatomy(key);
        }
    }
}

/// Whether a stream has a word of the filter: `route:`, `upstream:`, `endpoint:`, `user:`, `outcome:`, or any text.
fn has(stream: &Stream, term: &str) -> bool {
    let facts = &stream.facts;
    let outcome = facts.outcome.as_deref().unwrap_or("running");
    let within = |text: Option<&str>, part: &str| text.is_some_and(|text| text.to_lowercase().contains(part));
    match term.split_once(':') {
        Some(("route", part)) => within(facts.route.as_deref(), part),
        Some(("upstream", part)) => within(facts.upstream.as_deref(), part),
        Some(("endpoint", part)) => within(facts.place.text().as_deref(), part),
        Some(("user", part)) => within(facts.user.as_deref(), part),
        Some(("outcome", "failed")) => stream.has_ended() && is_bad(outcome),
        Some(("outcome", part)) => outcome.contains(part),
        _ => [
            facts.route.as_deref(),
            facts.upstream.as_deref(),
            facts.place.text().as_deref(),
            facts.user.as_deref(),
            facts.model.as_deref(),
            facts.error_type.as_deref(),
            Some(&facts.path),
            Some(&facts.request_id),
            Some(&facts.trace_id),
            Some(outcome),
        ]
        .into_iter()
        .any(|text| within(text, term)),
    }
}

/// Something went wrong, and neither the client's will nor a refusal.
pub(super) fn is_bad(outcome: &str) -> bool {
    !matches!(outcome, "completed" | "client_cancelled" | "rejected" | "running")
}
