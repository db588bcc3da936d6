//! `affinity` of an upstream: the requests of one session go to one of its endpoints, whose cache holds what came before.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::checker::Checker;
use crate::config::grammar::is_token;
use crate::config::units::{At, Table, Written};

const BODY: bool = true;
const SPILL: f64 = 1.25;

/// Beyond this nobody is bound: one endpoint of ten may have all there is.
const SPILL_MAX: f64 = 10.0;

/// The requests of one session go to one endpoint, whose cache holds what came before.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AffinityTable {
    /// Headers that name a session; the first that a request has counts.
    pub headers: Option<At<Vec<At<String>>>>,
    /// Whether a session is also known by the body: `prompt_cache_key`, a conversation's id, or instructions, tools and the first message.
    #[schemars(extend("default" = true))]
    pub body: Option<At<bool>>,
    /// How many requests an endpoint may have in flight, as a multiple of the mean of all; beyond it sessions go to the next one.
    #[schemars(range(min = 1.0, max = 10.0), extend("default" = 1.25))]
    pub spill: Option<At<f64>>,
}

/// `affinity` of an upstream.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Affinity {
    /// In lower case.
    pub headers: Vec<String>,
    pub body: bool,
    /// Never below 1.
    pub spill: f64,
}

impl Checker<'_> {
    pub(super) fn affinity(&mut self, table: &Table<AffinityTable>) -> Affinity {
        let file = &table.value;
        let headers: Vec<String> =
            file.headers.iter().flat_map(|list| &list.value).map(|at| self.session_header(at)).collect();
        let (body, spill) = (file.body.value_or(BODY), file.spill.value_or(SPILL));
        if headers.is_empty() && !body {
            self.problem(&table.span, "`affinity`: nothing tells sessions apart: name `headers`, or leave `body` on");
        }
        if let Some(at) = file.spill.as_ref().filter(|at| !(1.0..=SPILL_MAX).contains(&at.value)) {
            let message = "`spill` is a multiple of the mean of the requests in flight, from 1.0 to 10.0";
            self.problem(&at.span, message);
        }
        Affinity { headers, body, spill }
    }

    fn session_header(&mut self, at: &At<String>) -> String {
        let name = at.value.to_ascii_lowercase();
        if !is_token(name.as_bytes()) {
            self.problem(&at.span, "`headers`: not the name of a header, as \"x-session-id\"");
        } else if name.contains('_') {
            let hyphens = name.replace('_', "-");
            self.problem(
                &at.span,
                format!("headers with an underscore are dropped, so this would never be there: \"{hyphens}\"?"),
            );
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::tests::parsed;

    fn affinity(written: &str) -> Result<Option<Affinity>, String> {
        let text = format!("[[upstream]]\nurls = [\"http://a\", \"http://b\"]\naffinity = {written}\n");
        parsed(&text).map(|settings| settings.upstreams[0].affinity.clone()).map_err(|problems| problems.to_string())
    }

    #[test]
    fn a_session_is_known_by_its_body_unless_said_otherwise() {
        let of = |headers: &[&str], body, spill| {
            Ok(Some(Affinity { headers: headers.iter().map(|name| (*name).to_owned()).collect(), body, spill }))
        };
        assert_eq!(affinity("{}"), of(&[], true, 1.25));
        assert_eq!(
            affinity("{ headers = [\"X-Session-Id\"], body = false, spill = 2.0 }"),
            of(&["x-session-id"], false, 2.0)
        );
        assert_eq!(parsed("[[upstream]]\nurl = \"http://a\"\n").unwrap().upstreams[0].affinity, None);
    }

    #[test]
    fn slips_are_told_at_their_place() {
        for (written, words) in [
            ("{ body = false }", "3:12: `affinity`: nothing tells sessions apart"),
            ("{ spill = 0.5 }", "3:22: `spill` is a multiple of the mean"),
            ("{ spill = 11.0 }", "`spill` is a multiple of the mean"),
            ("{ headers = [\"x session\"] }", "3:25: `headers`: not the name of a header"),
            ("{ headers = [\"x_session\"] }", "would never be there: \"x-session\"?"),
            ("{ header = [\"x\"] }", "header"),
        ] {
            let told = affinity(written).unwrap_err();
            assert!(told.contains(words), "{written}: {told}");
        }
    }
}
