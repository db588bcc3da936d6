//! `[fleet]`: several replicas that act as one.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::limits::LimitsTable;
use crate::config::checker::Checker;
use crate::config::units::{At, Table};
use crate::config::view::Shown;

/// Longest name of a fleet, in bytes.
const NAME_MAX: usize = 64;

/// Several replicas that act as one: they judge canaries together, over the Redis of `[limits]`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FleetTable {
    /// What all replicas of this fleet call it, and no other fleet on the same Redis.
    #[schemars(required)]
    pub name: Option<At<String>>,
}

/// `[fleet]`: several replicas that act as one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fleet {
    /// Of letters, digits, `-`, `_` and `.`; never empty.
    #[serde(serialize_with = "Shown::shown")]
    pub name: Arc<str>,
}

impl Fleet {
    /// What all keys in Redis begin with; in braces, so that a cluster keeps them on one node, as scripts ask for. Without a fleet all
    /// proxies on a Redis share one.
    pub fn tag(fleet: Option<&Self>) -> String {
        fleet.map_or_else(|| "{streamgauge}".to_owned(), |fleet| format!("{{streamgauge:{}}}", fleet.name))
    }
}

impl Checker<'_> {
    pub fn fleet(&mut self, table: &Table<FleetTable>, limits: Option<&Table<LimitsTable>>) -> Option<Fleet> {
        let has_redis = limits
            .is_some_and(|limits| limits.value.redis.is_some() || self.lost.may_have_lost(&limits.span, &["redis"]));
        if !has_redis && !self.lost.is_table_lost("limits") {
            let message = "the replicas of a fleet share what they know over Redis: add `redis` to [limits]";
            self.problem(&table.span, message);
        }
        let Some(name) = &table.value.name else {
            if !self.lost.is_lost(&table.span, "name") {
                self.problem(
                    &table.span,
                    "this fleet has no `name`, which keeps it apart from others on the same Redis",
                );
            }
            return None;
        };
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.value.is_empty() || name.value.len() > NAME_MAX || !name.value.bytes().all(is_plain) {
            let message =
                format!("`name` is 1 to {NAME_MAX} letters, digits, `-`, `_` and `.`: it is part of keys in Redis");
            self.problem(&name.span, message);
            return None;
        }
        Some(Fleet { name: name.value.as_str().into() })
    }
}
