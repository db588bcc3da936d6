//! A judge without a gap: with the open block, the row of failures and the users that were counted, for a successor that goes on
//! in the middle of it. What is stored over a restart has less, see [`Judge::restored`].

use serde::{Deserialize, Serialize};

use super::band::Firsts;
use super::block::WholeBlock;
use super::drawn::SHARDS;
use super::evidence::WholeTest;
use super::facts::Fact;
use super::harmed::WholeHarmed;
use super::judge::Judge;
use super::origins::Origins;

/// All of a judge but the users whose bad answers were counted, which are in shards.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Whole<J> {
    judge: J,
    begun: u64,
    row: (Option<u64>, bool),
    firsts: Firsts,
    block: WholeBlock,
    origins: Origins,
    tests: Vec<WholeTest>,
    harmed: Vec<WholeHarmed>,
    /// In whole ms, as the times of a fleet are.
    swept_ms: Vec<u64>,
}

impl Judge {
    /// All that it knows, but the shards.
    pub(super) fn whole(&self) -> String {
        let whole = Whole {
            judge: self,
            begun: self.begun,
            row: self.streak.row(),
            firsts: self.firsts.clone(),
            block: WholeBlock::from(&self.block),
            origins: self.origins.clone(),
            tests: Fact::ALL.iter().map(|fact| self.tests.get(*fact).into()).collect(),
            harmed: Fact::ALL.iter().map(|fact| self.harmed.get(*fact).into()).collect(),
            swept_ms: Fact::ALL.iter().map(|fact| self.drawn.get(*fact).swept().as_millis() as u64).collect(),
        };
        // All numbers in it are finite: wealth is bounded.
        serde_json::to_string(&whole).unwrap_or_default()
    }

    /// Goes on where another stood; `shards`: where there are some. `None`: that cannot have been written.
    pub(super) fn from_whole<'a>(json: &str, shards: impl Fn(&str) -> Option<&'a [u8]>) -> Option<Self> {
        let whole: Whole<Self> = serde_json::from_str(json).ok()?;
        let mut judge = whole.judge;
        if [whole.tests.len(), whole.harmed.len(), whole.swept_ms.len()] != [Fact::ALL.len(); 3] {
            return None;
        }
        (judge.begun, judge.firsts, judge.origins) = (whole.begun, whole.firsts, whole.origins);
        judge.block = whole.block.into();
        judge.streak.set_row(whole.row);
        let facts = Fact::ALL.into_iter().zip(whole.tests).zip(whole.harmed).zip(whole.swept_ms);
        for (((fact, test), harmed), swept_ms) in facts {
            *judge.tests.get_mut(fact) = test.into();
            *judge.harmed.get_mut(fact) = harmed.into();
            let drawn = judge.drawn.get_mut(fact);
            drawn.set_swept(std::time::Duration::from_millis(swept_ms));
            for shard in 0..SHARDS {
                if let Some(users) = shards(&shard_name(fact, shard)) {
                    drawn.take_in(users)?;
                }
            }
        }
        judge.is_sound().then_some(judge)
    }

    /// The shards of counted users that changed since the last call, by name.
    pub(super) fn take_changed_shards(&mut self) -> Vec<(String, Vec<u8>)> {
        let of = |fact: Fact, drawn: &mut super::drawn::Drawn| {
            drawn.take_changed().into_iter().map(move |(shard, users)| (shard_name(fact, shard), users))
        };
        Fact::ALL.into_iter().flat_map(|fact| of(fact, self.drawn.get_mut(fact)).collect::<Vec<_>>()).collect()
    }

    /// All shards count as changed.
    pub(super) fn tell_all_shards(&mut self) {
        Fact::ALL.into_iter().for_each(|fact| self.drawn.get_mut(fact).tell_all());
    }
}

fn shard_name(fact: Fact, shard: usize) -> String {
    format!("drawn:{}:{shard:x}", fact.as_str())
}
