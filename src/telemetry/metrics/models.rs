//! Which models are labels. A client can write any text there, so one becomes a label only after an upstream answered to
//! it, and only the first of them do.

use std::collections::HashSet;
use std::sync::{PoisonError, RwLock};

/// What stands for every model that is no label.
pub(super) const OTHER: &str = "other";

/// Models that are labels at most.
const MODELS_MAX: usize = 100;

/// Longest model name that can be a label, in bytes.
const NAME_MAX: usize = 128;

#[derive(Default)]
pub(super) struct Models(RwLock<HashSet<Box<str>>>);

impl Models {
    /// The label of `model`; an answered request may make it one.
    pub(super) fn label<'a>(&self, model: &'a str, answered: bool) -> &'a str {
        let models = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if models.contains(model) {
            return model;
        }
        if !answered || models.len() >= MODELS_MAX || model.len() > NAME_MAX {
            return OTHER;
        }
        drop(models);
        let mut models = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if models.len() >= MODELS_MAX && !models.contains(model) {
            return OTHER;
        }
        models.insert(model.into());
        model
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_a_label_once_it_was_answered() {
        let models = Models::default();
        assert_eq!(models.label("a", false), OTHER);
        assert_eq!(models.label("a", true), "a");
        assert_eq!(models.label("a", false), "a");
        assert_eq!(models.label(&"x".repeat(NAME_MAX + 1), true), OTHER);
    }

    #[test]
    fn the_first_hundred_stay() {
        let models = Models::default();
        let names: Vec<_> = (0..1_000).map(|n| format!("model-{n}")).collect();
        let labels = names.iter().filter(|name| models.label(name, true) != OTHER).count();
        assert_eq!(labels, MODELS_MAX);
        assert_eq!(models.label("model-0", false), "model-0");
    }
}
