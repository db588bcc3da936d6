//! Shapes: streams of frameworks and apps, read by rules that stand in files (`shapes/*.toml`) or in the configuration.
//!
//! A new framework is a rule file, a line in [`builtin`], a directory of `tests/corpus`, and a row in docs/frameworks.md.

mod builtin;
mod compile;
mod guess;
mod read;
mod recogniser;
mod rules;
mod selector;
mod tokens;
mod tree;
mod value;

use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use super::Dialect;

pub use builtin::{built_in, shapes};
pub use compile::{Known, RuleProblem};
pub(in crate::llm) use guess::sketch;
pub(super) use read::ShapeReader;
pub use recogniser::Recogniser;
pub(super) use recogniser::built_in_recogniser;
pub use rules::{CountPlaces, Inside, Places, Several, ShapeRules, UsagePlaces};

use selector::{Selector, Spot};
use tree::{Slot, Tree};
use value::Role;

/// Reads the shapes that are built in; to be called at the start, so that no request waits for it.
pub fn load() {
    let _ = built_in_recogniser();
}

/// Names of shapes that a process ever knows; a configuration that is loaded again brings the same ones.
const NAMES_MAX: usize = 256;

/// The longest name.
const NAME_MAX: usize = 64;

/// How the events of a stream are read: rules, compiled once.
#[derive(Debug, Default)]
pub struct Shape {
    name: &'static str,
    provider: &'static str,
    paths: Vec<String>,
    by: Vec<String>,
    tree: Tree,
    rules: Vec<Rule>,
    insides: Vec<InsideRule>,
    /// What stands inside of events.
    children: Vec<Code>,
    cumulative: Vec<Selector>,
    done: Option<String>,
    /// The body's orderly end alone is no normal end.
    ends: bool,
    /// No rule says where text stands.
    guesses: bool,
    depth: usize,
    /// What it was compiled from: shapes of the same rules are the same.
    written: ShapeRules,
}

impl PartialEq for Shape {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

#[derive(Debug)]
struct Rule {
    /// Absent: for any event.
    when: Option<Selector>,
    says: Says,
}

#[derive(Debug, Clone)]
enum Says {
    /// With the key that the text stands under, where it has one.
    Text(Role, Spot, Option<String>),
    Whole(Spot),
    Usage(Spot),
    Counts(Box<Counts>),
    Error(Box<[Spot]>),
    Finish(Spot),
    Model(Spot),
    Id(Spot),
    End,
    Work,
    /// Nothing of it was generated.
    Start,
    Noise,
}

/// Where each token count stands; of several the sum.
#[derive(Debug, Clone)]
struct Counts {
    input: Box<[Slot]>,
    cached_input: Box<[Slot]>,
    cache_write: Box<[Slot]>,
    output: Box<[Slot]>,
    reasoning: Box<[Slot]>,
}

/// An event inside of another.
#[derive(Debug)]
struct InsideRule {
    when: Selector,
    spot: Spot,
    coding: Coding,
    name: Option<Spot>,
    child: usize,
    ends: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Plain,
    Json,
    Base64,
}

/// What reads an event.
#[derive(Debug, Clone)]
enum Code {
    Shape(Arc<Shape>),
    Dialect(Dialect),
}

impl Shape {
    /// The shape of a plain stream, of which nothing is known.
    pub(super) fn plain() -> Arc<Self> {
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

    /// Whether where the text stands has to be guessed.
    pub fn guesses(&self) -> bool {
        self.guesses
    }
}

impl Code {
    fn name(&self) -> &'static str {
        match self {
            Self::Shape(shape) => shape.name,
            Self::Dialect(dialect) => dialect.as_str(),
        }
    }

    fn depth(&self) -> usize {
        match self {
            Self::Shape(shape) => shape.depth,
            Self::Dialect(_) => 1,
        }
    }
}

/// The one copy of a name, for as long as the process runs: names are few, and are labels in many places. Past the bound
/// all are called `own`.
fn intern(name: &str) -> &'static str {
    static NAMES: Mutex<Vec<&'static str>> = Mutex::new(Vec::new());
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
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

#[cfg(test)]
mod tests;
