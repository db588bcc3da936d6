//! Shapes: streams of frameworks and apps, read by rules that stand in files (`shapes/*.toml`) or in the configuration.
//!
//! A new framework is a rule file, a line in [`builtin`], a directory of `tests/corpus`, and a row in docs/frameworks.md.

mod builtin;
mod calls;
mod compile;
mod compiled;
mod guess;
mod read;
mod recogniser;
mod rules;
mod selector;
mod tree;
mod value;

pub use builtin::{built_in, shapes};
pub use compile::{Known, RuleProblem};
pub use compiled::Shape;
pub(in crate::llm) use guess::sketch;
pub(super) use read::ShapeReader;
pub use recogniser::Recogniser;
pub(super) use recogniser::built_in_recogniser;
pub use rules::{Apart, CallRules, CountPlaces, Inside, Places, Several, ShapeRules, UsagePlaces};

/// Reads the shapes that are built in; to be called at the start, so that no request waits for it.
pub fn load() {
    let _ = built_in_recogniser();
}

#[cfg(test)]
mod tests;
