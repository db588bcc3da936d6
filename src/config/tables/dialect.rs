//! `[[dialect]]`, and `stream` of an upstream: the rules by which a stream's events are read.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::ser::Error as _;
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::config::checker::Checker;
use crate::config::problems::nearest;
use crate::config::units::{At, Table};
use crate::llm::dialect::shape::{Known, Recogniser, RuleProblem, Shape, ShapeRules, built_in};
use crate::llm::{Dialect, StreamRules};

/// Shapes of one configuration at most.
const DIALECTS_MAX: usize = 64;

/// The rules of a `[[dialect]]`, and of `stream`.
pub type StreamTable = ShapeRules;

/// Shows those that were written.
pub fn stream_rules<S: Serializer>(rules: &StreamRules, to: S) -> Result<S::Ok, S::Error> {
    let Some(shape) = &rules.shape else { return to.serialize_none() };
    let mut written = serde_json::to_value(shape.written()).map_err(S::Error::custom)?;
    if let Some(fields) = written.as_object_mut() {
        fields.retain(|key, value| !says_nothing(value) && key != "name");
    }
    written.serialize(to)
}

/// Whether a value is what an absent key stands for.
fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

impl Checker<'_> {
    /// The user's own shapes; one may stand inside of those after it.
    pub fn dialects(&mut self, tables: &[Table<StreamTable>]) -> Arc<Recogniser> {
        let mut shapes: Vec<Arc<Shape>> = Vec::new();
        let mut taken = BTreeMap::new();
        if let Some(table) = tables.get(DIALECTS_MAX) {
            self.problem(&table.span, format!("there are more than {DIALECTS_MAX} [[dialect]]"));
        }
        for table in tables.iter().take(DIALECTS_MAX) {
            if !table.value.name.is_empty() {
                let at = &At { value: table.value.name.clone(), span: self.span_of(table, "name") };
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
            match Shape::compile(&table.value, known) {
                Ok(shape) => shapes.push(Arc::new(shape)),
                Err(problems) => self.rule_problems(table, problems),
            }
        }
        Arc::new(Recogniser::new(shapes))
    }

    /// What the configuration says of the streams of one upstream.
    pub fn stream_rules(
        &mut self,
        dialect: Option<&At<String>>,
        stream: Option<&Table<StreamTable>>,
        own: &Arc<Recogniser>,
    ) -> StreamRules {
        let dialect = dialect.and_then(|at| self.dialect(at, own));
        let rules = StreamRules { dialect, own: Arc::clone(own), ..StreamRules::default() };
        let Some(table) = stream else { return rules };
        for (key, is_written) in
            [("name", !table.value.name.is_empty()), ("recognise", !table.value.recognise.is_empty())]
        {
            if is_written {
                let message = "`name` and `recognise` are for a [[dialect]]: `stream` holds for its upstream alone";
                self.problem(&self.span_of(table, key), message);
            }
        }
        let written = ShapeRules { name: "plain-sse".to_owned(), ..table.value.clone() };
        match rules.clone().with(&written) {
            Ok(rules) => rules,
            Err(problems) => {
                self.rule_problems(table, problems);
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

    fn rule_problems(&mut self, table: &Table<ShapeRules>, problems: Vec<RuleProblem>) {
        for problem in problems {
            self.problem(&self.span_of(table, problem.key), problem.message);
        }
    }
}
