//! The names of the current configuration that are label values: routes, upstreams, variants and limits. A reload can
//! remove some while their requests still run.

use std::collections::HashSet;

use super::labels::{Endpoint, Limit, NONE, Named, Route, Upstream, Variant};

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

/// Which endpoint is meant, by the names that the configuration has.
#[derive(Debug, Clone, Copy)]
pub struct EndpointOf<'a> {
    pub upstream: &'a str,
    pub endpoint: &'a str,
}

impl<'a> EndpointOf<'a> {
    /// The configuration bounds them; what it names no more, [`super::Metrics::endpoint_gone`] is told.
    pub(super) fn labels(self) -> (Named<'a, Upstream>, Named<'a, Endpoint>) {
        (Named::bounded(self.upstream), Named::bounded(self.endpoint))
    }
}

/// A variant's share of the requests of a route with a canary, from 0 to 1.
#[derive(Debug, Clone, Copy)]
pub struct TrafficShare<'a> {
    pub route: &'a str,
    pub variant: &'a str,
    pub share: f64,
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
    pub(super) fn route<'a>(&self, name: &'a str) -> Named<'a, Route> {
        self.label(name, |sets| &sets.routes)
    }

    pub(super) fn upstream<'a>(&self, name: &'a str) -> Named<'a, Upstream> {
        self.label(name, |sets| &sets.upstreams)
    }

    pub(super) fn variant<'a>(&self, name: &'a str) -> Named<'a, Variant> {
        self.label(name, |sets| &sets.variants)
    }

    pub(super) fn limit<'a>(&self, name: &'a str) -> Named<'a, Limit> {
        self.label(name, |sets| &sets.limits)
    }

    fn label<'a, L>(&self, name: &'a str, of: impl Fn(&Sets) -> &HashSet<Box<str>>) -> Named<'a, L> {
        Named::bounded(match &self.0 {
            Some(sets) if name != NONE && !of(sets).contains(name) => REMOVED,
            _ => name,
        })
    }
}
