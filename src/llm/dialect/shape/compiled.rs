//! A shape once its rules were compiled.

use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;

use super::calls::CallsApart;
use super::rules::ShapeRules;
use super::selector::{Selector, Spot};
use super::tree::{Slot, Tree};
use super::value::Role;
use crate::llm::format::Dialect;

/// Names of shapes that a process ever knows; a configuration that is loaded again brings the same ones.
const NAMES_MAX: usize = 256;

/// The longest name.
const NAME_MAX: usize = 64;

/// How the events of a stream are read: rules, compiled once.
#[derive(Debug, Default)]
pub struct Shape {
    pub(super) name: &'static str,
    pub(super) provider: &'static str,
    pub(super) paths: Vec<String>,
    pub(super) by: Vec<String>,
    pub(super) tree: Tree,
    pub(super) rules: Vec<Rule>,
    pub(super) insides: Vec<InsideRule>,
    /// What stands inside of events.
    pub(super) children: Vec<Code>,
    pub(super) cumulative: Vec<Selector>,
    /// Absent: all usage is of one call of a model.
    pub(super) calls: Option<CallsApart>,
    pub(super) done: Option<String>,
    /// The body's orderly end alone is no normal end.
    pub(super) ends: bool,
    /// No rule says where text stands.
    pub(super) guesses: bool,
    pub(super) depth: usize,
    /// What it was compiled from: shapes of the same rules are the same.
    pub(super) written: ShapeRules,
}

impl PartialEq for Shape {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

#[derive(Debug)]
pub(super) struct Rule {
    /// Absent: for any event.
    pub(super) when: Option<Selector>,
    pub(super) says: Says,
}

#[derive(Debug, Clone)]
pub(super) enum Says {
    /// With the key that the text stands under, where it has one.
    Text(Role, Spot, Option<String>),
    Whole(Spot),
    Usage(Spot),
    Counts(Box<CountSlots>),
    Error(Box<[Spot]>),
    Finish(Spot),
    Model(Spot),
    Id(Spot),
    End,
    /// The answer is made in the background, and has not ended.
    Runs,
    /// It was made in the background, and has ended.
    Ran,
    Work,
    /// Nothing of it was generated.
    Start,
    Noise,
}

/// Where each token count stands; of several the sum.
#[derive(Debug, Clone)]
pub(super) struct CountSlots {
    pub(super) input: Box<[CountSlot]>,
    pub(super) cached_input: Box<[CountSlot]>,
    pub(super) cache_write: Box<[CountSlot]>,
    pub(super) output: Box<[CountSlot]>,
    pub(super) reasoning: Box<[CountSlot]>,
}

/// Where one count stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct CountSlot {
    pub(super) slot: Slot,
    /// It stands in each item of a list, as in one for each model: they add up. Else the last counts.
    pub(super) adds: bool,
}

/// An event inside of another.
#[derive(Debug)]
pub(super) struct InsideRule {
    pub(super) when: Selector,
    pub(super) spot: Spot,
    pub(super) coding: Coding,
    pub(super) name: Option<Spot>,
    pub(super) child: usize,
    pub(super) ends: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Plain,
    Json,
    Base64,
}

/// What reads an event.
#[derive(Debug, Clone)]
pub(super) enum Code {
    Shape(Arc<Shape>),
    Dialect(Dialect),
}

impl Shape {
    /// The shape of a plain stream, of which nothing is known.
    pub(in crate::llm) fn plain() -> Arc<Self> {
        static PLAIN: LazyLock<Arc<Shape>> = LazyLock::new(|| {
            let rules = ShapeRules { name: "plain-sse".to_owned(), ..ShapeRules::default() };
            Arc::new(Shape::compile(&rules, &|_| None).unwrap_or_default())
        });
        Arc::clone(&PLAIN)
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    /// `gen_ai.provider.name`.
    pub fn provider(&self) -> &'static str {
        self.provider
    }

    /// The rules as they were written.
    pub fn written(&self) -> &ShapeRules {
        &self.written
    }

    /// Whether a request under `path` speaks it.
    pub fn has_path(&self, path: &str) -> bool {
        self.paths.iter().any(|end| path.ends_with(end.as_str()))
    }

    /// Whether its answers may be made in the background, and be fetched below the path that asks for them.
    pub fn keeps_answers(&self) -> bool {
        !self.written.running.is_empty()
    }

    /// Whether where the text stands has to be guessed.
    pub fn guesses(&self) -> bool {
        self.guesses
    }
}

impl Code {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Shape(shape) => shape.name,
            Self::Dialect(dialect) => dialect.as_str(),
        }
    }

    /// Whether it tells calls apart itself.
    pub(super) fn tells_calls(&self) -> bool {
        match self {
            Self::Shape(shape) => shape.calls.is_some() || shape.children.iter().any(Self::tells_calls),
            Self::Dialect(_) => false,
        }
    }

    pub(super) fn depth(&self) -> usize {
        match self {
            Self::Shape(shape) => shape.depth,
            Self::Dialect(_) => 1,
        }
    }
}

/// The one copy of a name, for as long as the process runs: names are few, and are labels in many places. Past the bound
/// all are called `own`.
pub(super) fn intern(name: &str) -> &'static str {
    static NAMES: Mutex<Vec<&'static str>> = Mutex::new(Vec::new());
    let mut names = NAMES.lock();
    if let Some(known) = names.iter().find(|known| **known == name) {
        return known;
    }
    if names.len() >= NAMES_MAX || name.len() > NAME_MAX {
        return "own";
    }
    let kept: &'static str = Box::leak(name.to_owned().into_boxed_str());
    names.push(kept);
    kept
}
