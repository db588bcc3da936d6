//! The configuration's rules for an upstream's streams.

use std::sync::Arc;

use super::shape::{Known, Recogniser, RuleProblem, Shape, ShapeRules, built_in};
use crate::llm::format::Dialect;

/// What the configuration says of an upstream's streams; nothing by default.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StreamRules {
    /// What the answers speak: nothing else is recognised then.
    pub dialect: Option<Dialect>,
    /// How a plain stream is read; absent: its text is guessed.
    pub shape: Option<Arc<Shape>>,
    /// Shapes of the user's own.
    pub own: Arc<Recogniser>,
}

impl StreamRules {
    /// The rules of one upstream's plain streams.
    ///
    /// # Errors
    ///
    /// All that is wrong with them.
    pub fn of(rules: &ShapeRules) -> Result<Self, Vec<RuleProblem>> {
        Self::default().with(rules)
    }

    /// The rules of one upstream's plain streams, as TOML.
    ///
    /// # Errors
    ///
    /// What is wrong with them.
    pub fn read(toml: &str) -> Result<Self, String> {
        let rules: ShapeRules = toml::from_str(toml).map_err(|error| error.to_string())?;
        let told = |problems: Vec<RuleProblem>| {
            let lines = problems.into_iter().map(|problem| format!("`{}`: {}", problem.key, problem.message));
            lines.collect::<Vec<_>>().join("\n")
        };
        Self::of(&rules).map_err(told)
    }

    /// The same with rules for plain streams, in which the user's own shapes may stand.
    ///
    /// # Errors
    ///
    /// All that is wrong with them.
    pub fn with(self, rules: &ShapeRules) -> Result<Self, Vec<RuleProblem>> {
        let known: Known<'_> = &|name| self.own.named(name).or_else(|| built_in(name)).cloned();
        let shape = Shape::compile(rules, known)?;
        Ok(Self { shape: Some(Arc::new(shape)), ..self })
    }

    /// Whether the rules alone say how answers are read.
    pub(in crate::llm) fn are_binding(&self) -> bool {
        self.dialect.is_some() || self.shape.as_ref().is_some_and(|shape| !shape.guesses())
    }
}
