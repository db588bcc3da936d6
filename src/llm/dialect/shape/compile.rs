//! Turns rules as they are written into a shape, once, and says what is wrong with them.

use std::sync::Arc;

use super::calls::CallsApart;
use super::compiled::{Code, Coding, CountSlot, CountSlots, InsideRule, Rule, Says, Shape, intern};
use super::rules::{Apart, CallRules, CountPlaces, Inside, Places, Several, ShapeRules, UsagePlaces};
use super::selector::{Selector, Spot};
use super::tree::Tree;
use super::value::Role;
use crate::llm::format::Dialect;

/// Rules of one shape at most: an event is held against each.
const RULES_MAX: usize = 128;

/// Shapes inside of shapes at most.
const DEPTH_MAX: usize = 4;

/// What is wrong with a set of rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleProblem {
    /// The key that it stands under.
    pub key: &'static str,
    pub message: String,
}

/// Finds a shape that has been compiled before, by its name.
pub type Known<'k> = &'k dyn Fn(&str) -> Option<Arc<Shape>>;

impl Shape {
    /// Compiles rules; `known` are the shapes that may stand inside of this one.
    ///
    /// # Errors
    ///
    /// All that is wrong with them.
    pub fn compile(rules: &ShapeRules, known: Known<'_>) -> Result<Self, Vec<RuleProblem>> {
        let mut compiler = Compiler::default();
        let by = compiler.by(rules.by.as_ref());
        compiler.events(rules, &by);
        compiler.all_places(rules, &by);
        compiler.usage(&rules.usage, &by);
        for (event, inside) in &rules.inside {
            compiler.inside((event, inside), &by, known);
        }
        let calls = compiler.calls(&rules.calls, &by);
        let cumulative = compiler.selectors("cumulative", &rules.cumulative, &by);
        compiler.selectors("recognise", &rules.recognise, &by);
        for events in rules.instead_of.values() {
            compiler.selectors("instead_of", events, &by);
        }
        if rules.done.as_ref().is_some_and(|done| done.is_empty() || done.contains(['\n', '\r'])) {
            compiler.problem("done", "`done` is the one line of data that ends a stream, as \"[DONE]\"".to_owned());
        }
        if compiler.rules.len() > RULES_MAX {
            compiler.problem("text", format!("these are {} rules, of {RULES_MAX} at most", compiler.rules.len()));
        }
        let Compiler { tree, rules: compiled, insides, children, problems, .. } = compiler;
        if !problems.is_empty() {
            return Err(problems);
        }
        let depth = 1 + children.iter().map(Code::depth).max().unwrap_or_default();
        if depth > DEPTH_MAX {
            let message = format!("shapes stand inside of shapes {depth} deep, of {DEPTH_MAX} at most");
            return Err(vec![RuleProblem { key: "inside", message }]);
        }
        let names_texts =
            [&rules.text, &rules.reasoning, &rules.tool, &rules.whole].iter().any(|places| !places.is_empty());
        Ok(Self {
            name: intern(&rules.name),
            provider: rules.provider.as_deref().map_or("custom", intern),
            paths: rules.paths.clone(),
            by: rules.by.as_ref().map_or_else(usual_by, |by| by.each().to_vec()),
            guesses: !names_texts && rules.inside.is_empty(),
            ends: !rules.end.is_empty() && !rules.ends_with_body,
            done: rules.done.clone(),
            depth,
            written: rules.clone(),
            tree,
            rules: compiled,
            insides,
            children,
            cumulative,
            calls,
        })
    }
}

pub(super) fn usual_by() -> Vec<String> {
    ["event", "/type", "/event"].map(str::to_owned).into()
}

/// The places of `by`; those that are none are left out.
pub(super) fn by_spots(written: &[String], tree: &mut Tree) -> Vec<Spot> {
    written.iter().filter_map(|place| Spot::read(place, tree).ok()).collect()
}

#[derive(Default)]
struct Compiler {
    tree: Tree,
    rules: Vec<Rule>,
    insides: Vec<InsideRule>,
    children: Vec<Code>,
    problems: Vec<RuleProblem>,
}

impl Compiler {
    fn problem(&mut self, key: &'static str, message: String) {
        self.problems.push(RuleProblem { key, message });
    }

    fn by(&mut self, written: Option<&Several>) -> Vec<Spot> {
        let written = written.map_or_else(usual_by, |by| by.each().to_vec());
        written.iter().filter_map(|place| self.spot("by", place)).collect()
    }

    fn spot(&mut self, key: &'static str, written: &str) -> Option<Spot> {
        Spot::read(written, &mut self.tree).map_err(|message| self.problem(key, message)).ok()
    }

    fn selector(&mut self, key: &'static str, written: &str, by: &[Spot]) -> Option<Selector> {
        Selector::read(written, by, &mut self.tree).map_err(|message| self.problem(key, message)).ok()
    }

    fn selectors(&mut self, key: &'static str, written: &[String], by: &[Spot]) -> Vec<Selector> {
        written.iter().filter_map(|event| self.selector(key, event, by)).collect()
    }

    /// The rules that an event alone decides.
    fn events(&mut self, rules: &ShapeRules, by: &[Spot]) {
        let kinds = [
            ("end", &rules.end, Says::End),
            ("running", &rules.running, Says::Runs),
            ("ran", &rules.ran, Says::Ran),
            ("start", &rules.start, Says::Start),
            ("noise", &rules.noise, Says::Noise),
            ("work", &rules.work, Says::Work),
        ];
        for (key, events, says) in kinds {
            for when in self.selectors(key, events, by) {
                self.rules.push(Rule { when: Some(when), says: says.clone() });
            }
        }
    }

    fn all_places(&mut self, rules: &ShapeRules, by: &[Spot]) {
        self.places("text", &rules.text, by, |spot, key| Says::Text(Role::Answer, spot, key));
        self.places("reasoning", &rules.reasoning, by, |spot, key| Says::Text(Role::Reasoning, spot, key));
        self.places("tool", &rules.tool, by, |spot, key| Says::Text(Role::Tool, spot, key));
        self.places("whole", &rules.whole, by, |spot, _| Says::Whole(spot));
        self.places("finish", &rules.finish, by, |spot, _| Says::Finish(spot));
        self.places("model", &rules.model, by, |spot, _| Says::Model(spot));
        self.places("id", &rules.id, by, |spot, _| Says::Id(spot));
        self.error(&rules.error, by);
    }

    fn places(&mut self, key: &'static str, places: &Places, by: &[Spot], says: fn(Spot, Option<String>) -> Says) {
        let one = |compiler: &mut Self, event: Option<&str>, place: &str| {
            let when = event.map(|event| compiler.selector(key, event, by));
            let Some(spot) = compiler.spot(key, place) else { return };
            compiler.rules.push(Rule { when: when.flatten(), says: says(spot, key_of(place)) });
        };
        match places {
            Places::Anywhere(several) => several.each().iter().for_each(|place| one(self, None, place)),
            Places::ByEvent(events) => {
                for (event, several) in events {
                    several.each().iter().for_each(|place| one(self, Some(event), place));
                }
            }
        }
    }

    /// An event that is chosen as an error is one, whatever its places say.
    fn error(&mut self, places: &Places, by: &[Spot]) {
        if places.is_empty() {
            let usual = Places::Anywhere(Several::One("/error".to_owned()));
            self.places("error", &usual, by, |spot, _| Says::Error([spot].into()));
        }
        match places {
            Places::Anywhere(_) => self.places("error", places, by, |spot, _| Says::Error([spot].into())),
            Places::ByEvent(events) => {
                for (event, several) in events {
                    let when = self.selector("error", event, by);
                    let spots = several.each().iter().filter_map(|place| self.spot("error", place)).collect();
                    self.rules.push(Rule { when, says: Says::Error(spots) });
                }
            }
        }
        let named = self.selector("error", "event=error", by);
        self.rules.push(Rule { when: named, says: Says::Error([Spot::Data].into()) });
    }

    fn usage(&mut self, usage: &UsagePlaces, by: &[Spot]) {
        match usage {
            UsagePlaces::Nowhere => {}
            UsagePlaces::Objects(several) => {
                let places = Places::Anywhere(several.clone());
                self.places("usage", &places, by, |spot, _| Says::Usage(spot));
            }
            UsagePlaces::Counts(counts) => {
                let CountPlaces { input, cached_input, cache_write, output, reasoning } = counts;
                let mut slots = |written: &Option<Several>| -> Box<[CountSlot]> {
                    let places = written.as_ref().map(Several::each).unwrap_or_default().iter();
                    let slots = places.filter_map(|place| match self.spot("usage", place)? {
                        Spot::At(slot) => Some(CountSlot { slot, adds: place.split('/').any(|step| step == "*") }),
                        Spot::Name | Spot::Data | Spot::Id => None,
                    });
                    slots.collect()
                };
                let counts = CountSlots {
                    input: slots(input),
                    cached_input: slots(cached_input),
                    cache_write: slots(cache_write),
                    output: slots(output),
                    reasoning: slots(reasoning),
                };
                self.rules.push(Rule { when: None, says: Says::Counts(Box::new(counts)) });
            }
        }
    }

    fn calls(&mut self, calls: &CallRules, by: &[Spot]) -> Option<CallsApart> {
        let whole;
        let Apart { id, end, pieces, earlier } = match calls {
            CallRules::One => return None,
            CallRules::Ids(id) => {
                whole = Apart { id: Some(id.clone()), ..Apart::default() };
                &whole
            }
            CallRules::Apart(apart) => apart,
        };
        let ids = id.as_ref().map(Several::each).unwrap_or_default();
        if ids.is_empty() && end.is_empty() {
            let message =
                "calls are told apart by the place of their `id`, or by the events after which one is over, `end`";
            self.problem("calls", message.to_owned());
        }
        let ids = ids.iter().filter_map(|place| self.spot("calls", place)).collect();
        let [end, pieces, earlier] = [end, pieces, earlier].map(|events| self.selectors("calls", events, by));
        Some(CallsApart { ids, end, pieces, earlier })
    }

    fn inside(&mut self, (event, inside): (&str, &Inside), by: &[Spot], known: Known<'_>) {
        let Some(when) = self.selector("inside", event, by) else { return };
        let Some(spot) = self.spot("inside", &inside.at) else { return };
        let name = inside.event.as_ref().and_then(|place| self.spot("inside", place));
        let coding = match inside.coding.as_deref() {
            None => Coding::Plain,
            Some("json") => Coding::Json,
            Some("base64") => Coding::Base64,
            Some(other) => {
                return self.problem("inside", format!("`coding` is \"json\" or \"base64\", and not {other:?}"));
            }
        };
        let code = known(&inside.shape).map(Code::Shape);
        let code = code.or_else(|| Dialect::of_code(&inside.shape).map(Code::Dialect));
        let Some(code) = code else {
            return self.problem("inside", format!("no dialect is called {:?}", inside.shape));
        };
        let child = self.children.iter().position(|known| known.name() == code.name()).unwrap_or_else(|| {
            self.children.push(code);
            self.children.len() - 1
        });
        self.insides.push(InsideRule { when, spot, coding, name, child, ends: inside.ends });
    }
}

/// The key of a place's last step, where that is one.
fn key_of(place: &str) -> Option<String> {
    let key = place.rsplit('/').next().filter(|key| *key != "*" && !key.contains('~'))?;
    (place.starts_with('/') && key.parse::<usize>().is_err()).then(|| key.to_owned())
}
