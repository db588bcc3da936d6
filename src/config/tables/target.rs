//! `targets` and `fallback` of a route: the places that it may send a request to.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use super::upstream::{Called, Declared, Upstream};
use crate::config::address::check_path;
use crate::config::checker::Checker;
use crate::config::glob::PathPattern;
use crate::config::problems::hint;
use crate::config::units::{At, Table, Written};
use crate::config::view::Shown;

const WEIGHT: u32 = 1;

/// Longest model name that can be put in place of another, in bytes.
const MODEL_MAX: usize = 256;

/// One place a route may send a request to.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TargetTable {
    #[schemars(required)]
    pub upstream: Option<At<String>>,
    /// What telemetry calls this variant. Absent: its upstream's name.
    pub name: Option<At<String>>,
    /// Share of requests, relative to the other targets' weights.
    #[schemars(extend("default" = 1))]
    pub weight: Option<At<u32>>,
    /// Replaces the literal start of the route's path, up to its first `*`.
    pub path: Option<At<String>>,
    /// Replaces the model that a JSON body names.
    pub model: Option<At<String>>,
}

/// Where a request goes when no target can answer it.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FallbackTable {
    #[schemars(required)]
    pub upstream: Option<At<String>>,
    /// What telemetry calls this variant. Absent: its upstream's name.
    pub name: Option<At<String>>,
    /// Replaces the literal start of the route's path, up to its first `*`.
    pub path: Option<At<String>>,
    /// Replaces the model that a JSON body names.
    pub model: Option<At<String>>,
}

/// One place a route may send a request to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Target {
    /// The variant's name in telemetry; by default its upstream's.
    #[serde(serialize_with = "Shown::shown")]
    pub name: Arc<str>,
    #[serde(serialize_with = "upstream_name")]
    pub upstream: Arc<Upstream>,
    /// Share of requests, relative to the other targets' weights.
    pub weight: u32,
    /// Replaces the literal prefix of the route's pattern.
    pub path: Option<String>,
    /// Replaces the model that a JSON body names.
    pub model: Option<String>,
}

fn upstream_name<S: Serializer>(upstream: &Upstream, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&upstream.name)
}

/// What the tables of a target, of a fallback and of a shadow have in common.
pub struct Place<'f> {
    pub span: &'f Range<usize>,
    pub upstream: &'f Option<At<String>>,
    pub name: &'f Option<At<String>>,
    pub path: &'f Option<At<String>>,
    pub model: &'f Option<At<String>>,
}

impl Checker<'_> {
    pub fn target(
        &mut self,
        table: &Table<TargetTable>,
        pattern: &PathPattern,
        upstreams: &[Declared],
    ) -> Option<Target> {
        let TargetTable { upstream, name, weight, path, model } = &table.value;
        let place = Place { span: &table.span, upstream, name, path, model };
        Some(Target { weight: weight.value_or(WEIGHT), ..self.place(&place, pattern, upstreams)? })
    }

    pub fn fallback(
        &mut self,
        table: &Table<FallbackTable>,
        pattern: &PathPattern,
        upstreams: &[Declared],
    ) -> Option<Target> {
        let FallbackTable { upstream, name, path, model } = &table.value;
        self.place(&Place { span: &table.span, upstream, name, path, model }, pattern, upstreams)
    }

    pub fn place(&mut self, place: &Place<'_>, pattern: &PathPattern, upstreams: &[Declared]) -> Option<Target> {
        if let Some(at) = place.path {
            self.replacement(at, pattern);
        }
        let Some(reference) = place.upstream else {
            if !self.lost.is_lost(place.span, "upstream") {
                self.problem(place.span, "this target names no `upstream`");
            }
            return None;
        };
        let upstream = self.find(reference, upstreams)?;
        let name = match place.name {
            Some(at) => self.name(at).into(),
            None => upstream.name.clone(),
        };
        let model = self.model(place.model.as_ref());
        Some(Target { name, model, path: place.path.as_ref().map(|at| at.value.clone()), ..plain_target(upstream) })
    }

    fn replacement(&mut self, at: &At<String>, pattern: &PathPattern) {
        if pattern.0.literal_prefix().is_empty() {
            let message = format!(
                "`path` replaces the start of the route's path up to its first *, and \"{}\" has nothing there",
                pattern.0.source
            );
            self.problem(&at.span, message);
        }
        if !at.value.starts_with('/') || at.value.contains(['?', '#', '*']) {
            self.problem(&at.span, "a target's `path` starts with /, without *, ? or #: it is put in as it stands");
        } else {
            let checked = check_path(&at.value).map_err(|wrong| format!("`path`: {wrong}"));
            self.checked(&at.span, checked);
        }
    }

    /// What makes sense only for all targets of a route at once.
    pub fn together(&mut self, list: &At<Vec<Table<TargetTable>>>, targets: &[Target], is_part_lost: bool) {
        if list.value.is_empty() {
            if !is_part_lost {
                self.problem(&list.span, "`targets` is empty: say where requests go, as [{ upstream = \"…\" }]");
            }
            return;
        }
        let all_read = targets.len() == list.value.len() && !is_part_lost;
        if all_read && targets.iter().all(|target| target.weight == 0) {
            self.problem(&list.span, "every target has weight 0, so no request could go anywhere");
        }
        if !all_read {
            return;
        }
        let mut taken = BTreeMap::new();
        for (target, table) in targets.iter().zip(&list.value) {
            self.unique("target of this route", &target.name, &table.span, &mut taken);
        }
    }

    pub fn find(&mut self, at: &At<String>, upstreams: &[Declared]) -> Option<Arc<Upstream>> {
        let name = at.value.trim();
        if let Some(declared) = upstreams.iter().find(|declared| declared.is_named(name)) {
            return Some(Arc::clone(&declared.upstream));
        }
        if !upstreams.is_empty() && !upstreams.iter().any(|declared| declared.may_be(name)) {
            let named = upstreams.iter().filter(|declared| matches!(declared.called, Called::Name));
            let names: Vec<&str> = named.map(|declared| &*declared.upstream.name).collect();
            self.problem(&at.span, format!("unknown upstream \"{}\": {}", at.value, hint(&at.value, names)));
        }
        None
    }

    fn model(&mut self, written: Option<&At<String>>) -> Option<String> {
        let at = written?;
        if at.value.is_empty() || at.value.len() > MODEL_MAX || at.value.chars().any(char::is_control) {
            self.problem(&at.span, "`model` is the name put in place of the request's, as \"gpt-4o-mini\"");
        }
        Some(at.value.clone())
    }
}

pub fn plain_target(upstream: Arc<Upstream>) -> Target {
    Target { name: upstream.name.clone(), upstream, weight: WEIGHT, path: None, model: None }
}
