//! The names of the current configuration that are label values: routes, upstreams, variants and limits. A reload can
//! remove some while their requests still run.

use std::collections::HashSet;

/// The value of a label that does not apply.
pub(super) const NONE: &str = "none";

/// What stands for every name that the configuration has no more.
const REMOVED: &str = "removed";

/// The names of one configuration.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a> {
    pub routes: &'a [&'a str],
    pub upstreams: &'a [&'a str],
    pub variants: &'a [&'a str],
    pub limits: &'a [&'a str],
}

/// The names that are labels. Before the first reload nothing can have been removed: all are.
#[derive(Debug, Default)]
pub(super) struct Known(Option<Sets>);

#[derive(Debug)]
struct Sets {
    routes: HashSet<Box<str>>,
    upstreams: HashSet<Box<str>>,
    variants: HashSet<Box<str>>,
    limits: HashSet<Box<str>>,
}

impl Known {
    pub(super) fn only(names: Names<'_>) -> Self {
        let set = |names: &[&str]| names.iter().copied().map(Box::from).collect();
        Self(Some(Sets {
            routes: set(names.routes),
            upstreams: set(names.upstreams),
            variants: set(names.variants),
            limits: set(names.limits),
        }))
    }

    /// The label of a route; as for the others, itself or `removed`.
    pub(super) fn route<'a>(&self, name: &'a str) -> &'a str {
        self.label(name, |sets| &sets.routes)
    }

    pub(super) fn upstream<'a>(&self, name: &'a str) -> &'a str {
        self.label(name, |sets| &sets.upstreams)
    }

    pub(super) fn variant<'a>(&self, name: &'a str) -> &'a str {
        self.label(name, |sets| &sets.variants)
    }

    pub(super) fn limit<'a>(&self, name: &'a str) -> &'a str {
        self.label(name, |sets| &sets.limits)
    }

    fn label<'a>(&self, name: &'a str, of: impl Fn(&Sets) -> &HashSet<Box<str>>) -> &'a str {
        match &self.0 {
            Some(sets) if name != NONE && !of(sets).contains(name) => REMOVED,
            _ => name,
        }
    }
}
