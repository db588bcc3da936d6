//! How soon an endpoint that breaks answers off is ejected: every shape of failure beside a healthy endpoint, at slow and
//! fast traffic. The table of docs/routing.md is what comes of it.

use super::*;
use crate::policy::balance::{Load, choose};

/// Runs of each case; their median is told.
const RUNS: u64 = 7;

/// A failing endpoint is watched for so long.
const HOUR: f64 = 3_600.0;

/// SplitMix64, the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in (0, 1).
    fn unit(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }
}

/// Which answers of the failing endpoint fail.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Shape {
    Always,
    Every(u64),
    /// With this chance, each by itself.
    Chance(f64),
}

impl Shape {
    fn fails(self, number: u64, random: &mut Random) -> bool {
        match self {
            Self::Always => true,
            Self::Every(n) => number % n == n - 1,
            Self::Chance(chance) => random.unit() < chance,
        }
    }
}

/// How the failing endpoint fails.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    /// At once: a 5xx, a reset.
    AtOnce,
    /// After half of the answer.
    Truncated,
    /// Silent after half of the answer, until `stall`.
    Stalled { stall: f64 },
}

/// Seconds until the first token, and of a whole answer.
const FIRST_TOKEN: f64 = 0.4;
const ANSWER: f64 = 6.0;

/// An answer under way at one of the two endpoints.
struct Stream {
    at: usize,
    began: f64,
    ends: f64,
    fails: bool,
    first_token: Option<f64>,
    under_way: Option<UnderWay>,
}

fn time(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// When the failing endpoint was ejected, and how many of its answers had failed by then; `None`: not within an hour.
fn run(shape: Shape, way: Way, per_second: f64, seed: u64) -> Option<(f64, u64)> {
    let mut random = Random(seed);
    let mut health = [Health::default(), Health::default()];
    let mut load = [Load::default(), Load::default()];
    let mut streams: Vec<Stream> = Vec::new();
    // Traffic is there for a while before the trouble begins.
    let trouble = 120.0;
    let (mut now, mut asked, mut failed) = (0.0, 0, 0);
    while now < trouble + HOUR {
        let next = now - random.unit().ln() / per_second;
        // What happens until the next request comes.
        loop {
            let due =
                |stream: &Stream| stream.first_token.filter(|_| stream.under_way.is_none()).unwrap_or(stream.ends);
            let Some(first) = (0..streams.len()).min_by(|a, b| due(&streams[*a]).total_cmp(&due(&streams[*b]))) else {
                break;
            };
            let at = due(&streams[first]);
            if at > next {
                break;
            }
            let stream = &mut streams[first];
            if stream.first_token == Some(at) && stream.under_way.is_none() {
                load[stream.at].answered(time(at - stream.began), true, time(at));
                stream.under_way = Some(health[stream.at].begins());
                continue;
            }
            let stream = streams.swap_remove(first);
            load[stream.at].leave();
            if stream.fails && stream.first_token.is_none() {
                load[stream.at].penalise(None, time(at));
            }
            let sign = if stream.fails { Sign::Faulty } else { Sign::Well };
            failed += u64::from(stream.fails);
            let verdict = Verdict { sign, began: time(stream.began), under_way: stream.under_way };
            let may_eject = may_eject_more(2, usize::from(health[1 - stream.at].is_ejected(time(at))));
            if let Some(Change::Down(_)) = health[stream.at].note(verdict, time(at), may_eject) {
                assert_eq!(stream.at, 0, "the healthy one is never ejected");
                return Some((at - trouble, failed));
            }
        }
        now = next;
        let costs = [0, 1].map(|at| load[at].cost(true, time(now)));
        let at = choose(&costs, random.next()).unwrap();
        load[at].enter();
        let fails = at == 0 && now >= trouble && {
            asked += 1;
            shape.fails(asked, &mut random)
        };
        let (ends, first_token) = match (fails, way) {
            (false, _) => (ANSWER, Some(FIRST_TOKEN)),
            (true, Way::AtOnce) => (0.05, None),
            (true, Way::Truncated) => (ANSWER / 2.0, Some(FIRST_TOKEN)),
            (true, Way::Stalled { stall }) => (ANSWER / 2.0 + stall, Some(FIRST_TOKEN)),
        };
        let first_token = first_token.map(|after| now + after);
        streams.push(Stream { at, began: now, ends: now + ends, fails, first_token, under_way: None });
    }
    None
}

/// The median of many runs, as the docs say it.
fn told(shape: Shape, way: Way, per_second: f64) -> String {
    let mut runs: Vec<_> = (0..RUNS).map(|seed| run(shape, way, per_second, seed)).collect();
    runs.sort_by(|a, b| a.map_or(f64::MAX, |run| run.0).total_cmp(&b.map_or(f64::MAX, |run| run.0)));
    match runs[runs.len() / 2] {
        None => "not within an hour".to_owned(),
        Some((after, failed)) => {
            let after = if after < 100.0 { format!("{after:.0} s") } else { format!("{:.0} min", after / 60.0) };
            format!("{after}, {failed} failed")
        }
    }
}

const SHAPES: [(&str, Shape); 5] = [
    ("always", Shape::Always),
    ("every second", Shape::Every(2)),
    ("one in two, at random", Shape::Chance(0.5)),
    ("every tenth", Shape::Every(10)),
    ("one in ten, at random", Shape::Chance(0.1)),
];

const WAYS: [(&str, Way); 3] = [
    ("fail at once", Way::AtOnce),
    ("are truncated", Way::Truncated),
    ("stall, `stall = \"30s\"`", Way::Stalled { stall: 30.0 }),
];

/// Requests a second to both endpoints.
const TRAFFIC: [f64; 3] = [0.1, 1.0, 5.0];

#[test]
fn the_docs_say_how_soon_each_shape_of_failure_is_ejected() {
    let mut table = String::new();
    for (which, shape) in SHAPES {
        for (how, way) in WAYS {
            let cells = TRAFFIC.map(|per_second| told(shape, way, per_second)).join(" | ");
            table += &format!("| {which} | {how} | {cells} |\n");
        }
    }
    let docs = include_str!("../../docs/routing.md");
    assert!(docs.contains(&table), "docs/routing.md should have:\n{table}");
}

#[test]
fn an_endpoint_that_always_fails_is_out_after_a_handful_of_answers_at_any_pace() {
    for way in [Way::AtOnce, Way::Truncated] {
        for per_second in TRAFFIC {
            for seed in 0..RUNS {
                let (after, failed) = run(Shape::Always, way, per_second, seed).expect("ejected");
                // Those under way when the first one breaks off are lost in any case.
                let under_way = (per_second * ANSWER).ceil() as u64;
                assert!((5..=5 + 2 * under_way).contains(&failed), "{way:?} at {per_second}/s: {failed} failed");
                assert!(after < 30.0 + 30.0 / per_second, "{way:?} at {per_second}/s: {after} s");
            }
        }
    }
}
