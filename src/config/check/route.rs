//! `[[route]]`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::super::address::check_path;
use super::super::defaults;
use super::super::file::{KindWord, RouteTable, TargetTable, TimeoutsTable};
use super::super::glob::{Glob, PathPattern};
use super::super::grammar::is_token;
use super::super::limits::Limit;
use super::super::prices::Prices;
use super::super::problems::{hint, nearest};
use super::super::read::Readable;
use super::super::settings::{Route, RouteKind, Target, Timeouts, Upstream};
use super::super::units::{At, DurationText, Table};
use super::upstream::{Called, Declared};
use super::{Checker, failover};

/// Methods that people use; another may be meant, but one that is nearly one of these is a slip.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// What decides which requests a route takes.
const CONDITIONS: [&str; 4] = ["path", "methods", "headers", "models"];

impl Checker<'_> {
    pub(super) fn routes(
        &mut self,
        readable: &Readable,
        upstreams: &[Declared],
        limits: &[Arc<Limit>],
        prices: &Prices,
    ) -> Vec<Arc<Route>> {
        let tables = &readable.file.route;
        if tables.is_empty() {
            return self.only_route(readable, upstreams);
        }
        let mut taken = BTreeMap::new();
        let mut routes: Vec<Arc<Route>> = Vec::new();
        let mut intact: Vec<Arc<Route>> = Vec::new();
        for table in tables {
            let route = Arc::new(self.route(table, readable, upstreams, limits, prices));
            let span = table.value.name.as_ref().map_or(&table.span, |at| &at.span);
            let has_name = table.value.name.is_some() || !readable.may_have_lost(&table.span, &["name", "path"]);
            if has_name && !route.name.is_empty() {
                self.unique("route", &route.name, span, &mut taken);
            }
            if !readable.may_have_lost(&table.span, &["name", "path"]) {
                self.reachable(table, &route, &intact);
            }
            if !readable.may_have_lost(&table.span, &CONDITIONS) {
                intact.push(Arc::clone(&route));
            }
            routes.push(route);
        }
        routes
    }

    /// Without any [[route]], everything goes to the only upstream.
    fn only_route(&mut self, readable: &Readable, upstreams: &[Declared]) -> Vec<Arc<Route>> {
        match upstreams {
            _ if readable.is_table_lost("route") || readable.is_table_lost("upstream") => Vec::new(),
            [] => Vec::new(),
            [_] => {
                let table = Table::<RouteTable>::default();
                vec![Arc::new(self.route(&table, readable, upstreams, &[], &Prices::default()))]
            }
            _ => {
                let message = "there are several upstreams and no [[route]] that says which requests go where: add \
                               [[route]] with path = \"*\" and upstream = \"…\"";
                self.problem(&(0..0), message);
                Vec::new()
            }
        }
    }

    fn route(
        &mut self,
        table: &Table<RouteTable>,
        readable: &Readable,
        upstreams: &[Declared],
        limits: &[Arc<Limit>],
        prices: &Prices,
    ) -> Route {
        let file = &table.value;
        let path = self.pattern(file.path.as_ref());
        let name = match &file.name {
            Some(at) => self.name(at),
            None => path.0.source.clone(),
        };
        let targets = self.targets(table, &path, readable, upstreams);
        let models = self.models(file.models.as_ref());
        let limits = self.route_limits(file.limits.as_ref(), readable, limits);
        let fallback = self.fallback(&file.fallback, &path, readable, upstreams);
        if !readable.is_table_lost("price") {
            let all = targets.iter().chain(&fallback);
            let providers: Vec<_> = all.map(|target| target.upstream.provider.clone()).collect();
            self.priced(file.limits.as_ref(), &limits, &models, &providers, prices);
        }
        let canary = self.canary(table, readable, &targets);
        let shadow = self.shadow(file.shadow.as_ref(), &path, readable, upstreams);
        Route {
            name: name.into(),
            methods: self.methods(file.methods.as_ref()),
            headers: self.header_conditions(&file.headers),
            models,
            fallback,
            failover: failover::rule(file.failover.as_ref()),
            retries: self.retries(file.retries.as_ref().map(|table| &table.value)),
            hedge_after: self.hedge_after(file, &targets),
            targets,
            sticky: self.sticky(file.sticky.as_ref()),
            canary,
            shadow,
            kind: match file.kind.as_ref().map(|at| at.value) {
                None | Some(KindWord::Auto) => RouteKind::Auto,
                Some(KindWord::Llm) => RouteKind::Llm,
                Some(KindWord::Stream) => RouteKind::Stream,
            },
            timeouts: self.timeouts(file.timeouts.as_ref().map(|table| &table.value)),
            keepalive: self.duration(file.keepalive.as_ref(), defaults::KEEPALIVE),
            keepalive_before_headers: file.keepalive_before_headers.as_ref().is_some_and(|at| at.value),
            limits,
            path,
        }
    }

    fn pattern(&mut self, written: Option<&At<String>>) -> PathPattern {
        let Some(at) = written else { return PathPattern(Glob::new(defaults::ROUTE_PATH)) };
        if !at.value.starts_with(['/', '*']) {
            self.problem(&at.span, "`path` starts with / or *, as \"/v1/*\"");
        } else if at.value.contains(['?', '#']) {
            self.problem(&at.span, "`path` is matched without the query: no ? or #; any text is written *");
        } else {
            let checked = check_path(&at.value).map_err(|wrong| format!("`path`: {wrong}"));
            self.checked(&at.span, checked);
        }
        PathPattern(Glob::new(&at.value))
    }

    fn methods(&mut self, written: Option<&At<Vec<At<String>>>>) -> Vec<String> {
        let Some(list) = written else { return Vec::new() };
        if list.value.is_empty() {
            self.problem(&list.span, "`methods` is empty, so nothing would match: leave it out for all");
        }
        let mut methods = Vec::new();
        for at in &list.value {
            let method = at.value.to_ascii_uppercase();
            let near = nearest(&method, METHODS).filter(|near| *near != method);
            match near {
                _ if !is_token(method.as_bytes()) => self.problem(&at.span, "not a method, as \"POST\""),
                _ if method == "TRACE" || method == "CONNECT" => {
                    self.problem(&at.span, format!("{method} is always refused, so this would never match"));
                }
                Some(near) if !METHODS.contains(&method.as_str()) => {
                    self.problem(&at.span, format!("unknown method \"{method}\": did you mean \"{near}\"?"));
                }
                _ => {}
            }
            methods.push(method);
        }
        methods
    }

    fn header_conditions(&mut self, written: &BTreeMap<String, At<String>>) -> Vec<(String, String)> {
        let mut conditions: Vec<(String, String)> = Vec::new();
        for (name, at) in written {
            let lower = name.to_ascii_lowercase();
            if !is_token(name.as_bytes()) {
                self.problem(&at.span, "`headers`: not the name of a header, as \"x-tier\"");
            } else if name.contains('_') {
                let hyphens = lower.replace('_', "-");
                let message =
                    format!("headers with an underscore are dropped, so this would never match: \"{hyphens}\"?");
                self.problem(&at.span, message);
            } else if conditions.iter().any(|(known, _)| *known == lower) {
                self.problem(&at.span, format!("the header \"{lower}\" is asked for twice"));
            }
            if at.value.chars().any(char::is_control) || at.value.trim() != at.value {
                self.problem(&at.span, "a header's value has no line breaks, and no space around it");
            }
            conditions.push((lower, at.value.clone()));
        }
        conditions
    }

    fn models(&mut self, written: Option<&At<Vec<At<String>>>>) -> Vec<Glob> {
        let Some(list) = written else { return Vec::new() };
        if list.value.is_empty() {
            self.problem(&list.span, "`models` is empty, so nothing would match: leave it out for all");
        }
        for at in list.value.iter().filter(|at| at.value.is_empty()) {
            self.problem(&at.span, "a model's name is missing here, as \"gpt-4o*\"");
        }
        list.value.iter().map(|at| Glob::new(&at.value)).collect()
    }

    fn targets(
        &mut self,
        table: &Table<RouteTable>,
        path: &PathPattern,
        readable: &Readable,
        upstreams: &[Declared],
    ) -> Vec<Target> {
        let file = &table.value;
        let is_lost = |key| readable.is_lost(&table.span, key);
        match (&file.upstream, &file.targets) {
            (Some(_), Some(at)) => {
                self.problem(&at.span, "either `upstream` or `targets`, not both");
                Vec::new()
            }
            (Some(at), None) => self.find(at, upstreams).into_iter().map(plain_target).collect(),
            (None, Some(list)) => {
                let targets: Vec<Target> =
                    list.value.iter().filter_map(|target| self.target(target, path, readable, upstreams)).collect();
                self.together(list, &targets, readable.is_lost(&table.span, "targets"));
                targets
            }
            (None, None) => match upstreams {
                [only] => vec![plain_target(Arc::clone(&only.upstream))],
                [] => Vec::new(),
                _ if is_lost("upstream") || is_lost("targets") => Vec::new(),
                _ => {
                    let message = "this route has no target: say where requests go, as upstream = \"…\"";
                    self.problem(&table.span, message);
                    Vec::new()
                }
            },
        }
    }

    pub(super) fn target(
        &mut self,
        table: &Table<TargetTable>,
        pattern: &PathPattern,
        readable: &Readable,
        upstreams: &[Declared],
    ) -> Option<Target> {
        let file = &table.value;
        if let Some(at) = &file.path {
            self.replacement(at, pattern);
        }
        let Some(reference) = &file.upstream else {
            if !readable.is_lost(&table.span, "upstream") {
                self.problem(&table.span, "this target names no `upstream`");
            }
            return None;
        };
        let upstream = self.find(reference, upstreams)?;
        let name = match &file.name {
            Some(at) => self.name(at).into(),
            None => upstream.name.clone(),
        };
        let weight = file.weight.as_ref().map_or(defaults::WEIGHT, |at| at.value);
        let model = self.model(file.model.as_ref());
        Some(Target { name, upstream, weight, path: file.path.as_ref().map(|at| at.value.clone()), model })
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
    fn together(&mut self, list: &At<Vec<Table<TargetTable>>>, targets: &[Target], is_part_lost: bool) {
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

    pub(super) fn find(&mut self, at: &At<String>, upstreams: &[Declared]) -> Option<Arc<Upstream>> {
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

    fn timeouts(&mut self, table: Option<&TimeoutsTable>) -> Timeouts {
        let nothing = TimeoutsTable::default();
        let file = table.unwrap_or(&nothing);
        Timeouts {
            connect: self.positive("connect", file.connect.as_ref(), defaults::CONNECT_TIMEOUT),
            first_token: self.written("first_token", file.first_token.as_ref()),
            stall: self.written("stall", file.stall.as_ref()),
            total: self.written("total", file.total.as_ref()),
        }
    }

    /// A time that has no one default.
    fn written(&mut self, key: &str, at: Option<&At<DurationText>>) -> Option<Duration> {
        at.map(|at| self.positive(key, Some(at), Duration::MAX))
    }

    /// Says so where an earlier route without conditions takes everything that this one would.
    fn reachable(&mut self, table: &Table<RouteTable>, route: &Route, earlier: &[Arc<Route>]) {
        let takes_all = |other: &&Arc<Route>| {
            let has_no_condition = other.methods.is_empty() && other.headers.is_empty() && other.models.is_empty();
            // Of two routes with one name the name is the problem.
            has_no_condition && other.path.0.covers(&route.path.0) && other.name != route.name
        };
        if let Some(other) = earlier.iter().find(takes_all) {
            let message =
                format!("this route is never reached: \"{}\" above it takes everything that it matches", other.name);
            self.problem(&table.span, message);
        }
    }
}

fn plain_target(upstream: Arc<Upstream>) -> Target {
    Target { name: upstream.name.clone(), upstream, weight: defaults::WEIGHT, path: None, model: None }
}
