//! `stream` of an upstream, and `[[dialect]]`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::super::file::StreamTable;
use super::super::problems::nearest;
use super::super::units::{At, Table};
use super::Checker;
use crate::llm::dialect::shape::{Known, Recogniser, RuleProblem, Shape, ShapeRules, built_in};
use crate::llm::{Dialect, StreamRules};

/// Shapes of one configuration at most.
const DIALECTS_MAX: usize = 64;

impl Checker<'_> {
    /// The user's own shapes; one may stand inside of those after it.
    pub(super) fn dialects(&mut self, tables: &[Table<StreamTable>]) -> Arc<Recogniser> {
        let mut shapes: Vec<Arc<Shape>> = Vec::new();
        let mut taken = BTreeMap::new();
        if let Some(table) = tables.get(DIALECTS_MAX) {
            self.problem(&table.span, format!("there are more than {DIALECTS_MAX} [[dialect]]"));
        }
        for table in tables.iter().take(DIALECTS_MAX) {
            if let Some(at) = &table.value.name {
                self.name(at);
                self.unique("dialect", &at.value, &at.span, &mut taken);
                if at.value == "auto" || Dialect::named(&at.value).is_some() {
                    self.problem(&at.span, format!("{:?} is built in: give yours another name", at.value));
                }
            } else {
                self.problem(&table.span, "a [[dialect]] has a `name`, which upstreams and logs call it by");
            }
            let known: Known<'_> =
                &|name| shapes.iter().find(|shape| shape.name() == name).or_else(|| built_in(name)).cloned();
            match Shape::compile(&rules_of(&table.value), known) {
                Ok(shape) => shapes.push(Arc::new(shape)),
                Err(problems) => self.rule_problems(&table.value, &table.span, problems),
            }
        }
        Arc::new(Recogniser::new(shapes))
    }

    /// What the configuration says of the streams of one upstream.
    pub(super) fn stream_rules(
        &mut self,
        dialect: Option<&At<String>>,
        stream: Option<&Table<StreamTable>>,
        own: &Arc<Recogniser>,
    ) -> StreamRules {
        let dialect = dialect.and_then(|at| self.dialect(at, own));
        let rules = StreamRules { dialect, own: Arc::clone(own), ..StreamRules::default() };
        let Some(table) = stream else { return rules };
        let spans = [table.value.name.as_ref().map(|at| &at.span), table.value.recognise.as_ref().map(|at| &at.span)];
        for span in spans.into_iter().flatten() {
            let message = "`name` and `recognise` are for a [[dialect]]: `stream` holds for its upstream alone";
            self.problem(span, message);
        }
        let written = ShapeRules { name: "plain-sse".to_owned(), ..rules_of(&table.value) };
        match rules.clone().with(&written) {
            Ok(rules) => rules,
            Err(problems) => {
                self.rule_problems(&table.value, &table.span, problems);
                rules
            }
        }
    }

    fn dialect(&mut self, at: &At<String>, own: &Recogniser) -> Option<Dialect> {
        if at.value == "auto" {
            return None;
        }
        let known = own.named(&at.value).map(|shape| Dialect::Shape(shape.name()));
        let known = known.or_else(|| Dialect::named(&at.value));
        if known.is_none() {
            let names: Vec<&str> = Dialect::known().map(Dialect::as_str).collect();
            let hint = match nearest(&at.value, names.iter().copied()) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("there are \"auto\", {}, and each [[dialect]]", names.join(", ")),
            };
            self.problem(&at.span, format!("`dialect`: unknown word {:?}: {hint}", at.value));
        }
        known
    }

    fn rule_problems(&mut self, table: &StreamTable, whole: &Range<usize>, problems: Vec<RuleProblem>) {
        for problem in problems {
            let span = span_of(table, problem.key).unwrap_or(whole).clone();
            self.problem(&span, problem.message);
        }
    }
}

fn rules_of(table: &StreamTable) -> ShapeRules {
    fn list(at: Option<&At<Vec<String>>>) -> Vec<String> {
        at.map(|at| at.value.clone()).unwrap_or_default()
    }
    fn places<T: Clone + Default>(at: Option<&At<T>>) -> T {
        at.map(|at| at.value.clone()).unwrap_or_default()
    }
    ShapeRules {
        name: places(table.name.as_ref()),
        about: String::new(),
        provider: table.provider.as_ref().map(|at| at.value.clone()),
        paths: list(table.paths.as_ref()),
        recognise: list(table.recognise.as_ref()),
        instead_of: places(table.instead_of.as_ref()),
        by: table.by.as_ref().map(|at| at.value.clone()),
        text: places(table.text.as_ref()),
        reasoning: places(table.reasoning.as_ref()),
        tool: places(table.tool.as_ref()),
        whole: places(table.whole.as_ref()),
        usage: places(table.usage.as_ref()),
        error: places(table.error.as_ref()),
        finish: places(table.finish.as_ref()),
        model: places(table.model.as_ref()),
        id: places(table.id.as_ref()),
        inside: places(table.inside.as_ref()),
        end: list(table.end.as_ref()),
        running: list(table.running.as_ref()),
        start: list(table.start.as_ref()),
        work: list(table.work.as_ref()),
        noise: list(table.noise.as_ref()),
        cumulative: list(table.cumulative.as_ref()),
        done: table.done.as_ref().map(|at| at.value.clone()),
        ends_with_body: places(table.ends_with_body.as_ref()),
    }
}

/// Where a key stands in the file.
fn span_of<'t>(table: &'t StreamTable, key: &str) -> Option<&'t Range<usize>> {
    macro_rules! spans {
        ($($name:ident),+) => { match key { $(stringify!($name) => table.$name.as_ref().map(|at| &at.span),)+ _ => None } };
    }
    spans!(
        by, text, reasoning, tool, whole, usage, error, finish, model, id, inside, end, running, start, work, noise,
        cumulative, recognise, instead_of, done
    )
}
