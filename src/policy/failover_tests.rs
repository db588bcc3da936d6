use proptest::prelude::*;

use super::*;
use crate::config::Settings;

fn settings(route: &str) -> Settings {
    let mut text = format!("[[route]]\n{route}\n");
    for name in ["a", "b", "c", "d"] {
        text += &format!("[[upstream]]\nname = \"{name}\"\nurl = \"http://{name}\"\n");
    }
    let no_file = |_: &std::path::Path| Err(std::io::ErrorKind::NotFound.into());
    crate::config::parse(&text, "test.toml", &|_| None, &no_file).unwrap_or_else(|problems| panic!("{problems}"))
}

const ROUTE: &str = "targets = [{ upstream = \"a\" }, { upstream = \"b\", weight = 0 }, { upstream = \"c\" }]\n\
    fallback = [{ upstream = \"d\" }, { upstream = \"b\" }]\nretries = { attempts = 9 }";

/// The names in the order of being asked, with a place each, and those in `down` down.
fn asked(route: &str, assigned: usize, places: usize, down: &[&str]) -> String {
    let settings = settings(route);
    let route = &settings.routes[0];
    let mut plan = Plan::new(route, &route.targets[assigned], None);
    let mut names: Vec<String> = Vec::new();
    loop {
        let tried = names.clone();
        let room = |choice: Choice| {
            let name = &*choice.of(route).unwrap().name;
            match tried.iter().filter(|tried| *tried == name).count() {
                times if times >= places => Room::Exhausted,
                _ if down.contains(&name) => Room::Down,
                _ => Room::Up,
            }
        };
        let Some(choice) = plan.next(room) else { return names.join(" ") };
        plan.ask(choice);
        names.push(choice.of(route).unwrap().name.to_string());
    }
}

#[test]
fn other_targets_come_before_fallbacks() {
    assert_eq!(asked(ROUTE, 0, 1, &[]), "a c d b", "weight 0 gets nothing as a target");
    assert_eq!(asked(ROUTE, 2, 1, &[]), "c a d b");
}

#[test]
fn a_canary_takes_part_by_its_share_and_not_by_its_weight() {
    let route = "targets = [{ upstream = \"a\" }, { upstream = \"b\", weight = 0 }, { upstream = \"c\" }]\n\
        canary = { target = \"b\" }\nretries = { attempts = 9 }";
    let settings = settings(route);
    let asked = |assigned: usize, share| {
        let route = &settings.routes[0];
        let mut plan = Plan::new(route, &route.targets[assigned], share);
        let mut names = Vec::new();
        while let Some(choice) = plan.next(|choice| match names.contains(&choice) {
            true => Room::Exhausted,
            false => Room::Up,
        }) {
            plan.ask(choice);
            names.push(choice);
        }
        names.iter().map(|choice| choice.of(route).unwrap().name.to_string()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(asked(0, Some(0)), "a c", "rolled back");
    assert_eq!(asked(0, Some(1)), "a b c");
    assert_eq!(asked(1, Some(100)), "b a c", "the baseline stands by");
}

#[test]
fn what_is_down_comes_last() {
    assert_eq!(asked(ROUTE, 0, 1, &["a"]), "c d b a");
    assert_eq!(asked(ROUTE, 0, 1, &["a", "b", "c", "d"]), "a c d b");
}

#[test]
fn an_assigned_target_that_is_down_is_passed_over_until_it_is_asked() {
    let settings = settings(ROUTE);
    let route = &settings.routes[0];
    let mut plan = Plan::new(route, &route.targets[2], None);
    assert!(!plan.passes_over_assigned(), "nobody was asked yet");
    let room = |choice| if choice == Choice::Target(2) { Room::Down } else { Room::Up };
    let first = plan.next(room).unwrap();
    plan.ask(first);
    assert!(first == Choice::Target(0) && plan.passes_over_assigned());
    plan.ask(Choice::Target(2));
    assert!(!plan.passes_over_assigned());
}

#[test]
fn attempts_are_bounded_and_each_target_gets_one_before_an_endpoint_gets_a_second() {
    let three = ROUTE.replace("9", "3");
    assert_eq!(asked(&three, 0, 2, &[]), "a c d");
    assert_eq!(asked("upstream = \"a\"", 0, 5, &[]), "a a a");
    assert_eq!(asked("upstream = \"a\"\nfallback = [{ upstream = \"b\" }]", 0, 5, &[]), "a a b");
    assert_eq!(asked("upstream = \"a\"", 0, 1, &[]), "a", "no endpoint is asked twice");
    assert_eq!(asked("upstream = \"a\"\nretries = { attempts = 1 }", 0, 5, &[]), "a");
}

#[test]
fn rules_say_what_may_be_replaced() {
    let natures = [(true, true), (true, false), (false, true), (false, false)];
    let table = |rule, stage| natures.map(|(llm, replayable)| may_replace(rule, Nature { llm, replayable }, stage));
    assert_eq!(table(Failover::Llm, Stage::Sent), [true, false, false, false]);
    assert_eq!(table(Failover::Always, Stage::Sent), [true, false, true, false]);
    assert_eq!(table(Failover::Unsent, Stage::Sent), [false; 4]);
    assert_eq!(table(Failover::Never, Stage::Sent), [false; 4]);
    for rule in [Failover::Llm, Failover::Always, Failover::Unsent] {
        assert_eq!(table(rule, Stage::Unsent), [true; 4]);
    }
    assert_eq!(table(Failover::Never, Stage::Unsent), [false; 4]);
}

#[test]
fn a_limit_with_its_time_tells_more_than_a_bare_gateway_error() {
    assert!(tells(429, false) > tells(503, true));
    assert!(tells(503, true) > tells(200, false), "when to come again is worth more");
    assert!(tells(200, false) > tells(500, false) && tells(500, false) > tells(502, true));
}

proptest! {
    /// Whoever is up or down and however many endpoints there are: attempts are bounded, no endpoint is asked twice, and
    /// nobody is passed over while an attempt is left.
    #[test]
    fn plans_are_bounded_and_use_what_there_is(
        attempts in 1_u32..=10,
        endpoints in proptest::collection::vec((0_usize..4, any::<bool>()), 4),
        assigned in 0_usize..2,
    ) {
        let settings = settings(&format!(
            "targets = [{{ upstream = \"a\" }}, {{ upstream = \"b\" }}]\n\
             fallback = [{{ upstream = \"c\" }}, {{ upstream = \"d\" }}]\nretries = {{ attempts = {attempts} }}"
        ));
        let route = &settings.routes[0];
        let slot = |choice: Choice| match choice {
            Choice::Target(at) => at,
            Choice::Fallback(at) => 2 + at,
        };
        let mut left: Vec<usize> = endpoints.iter().map(|(count, _)| *count).collect();
        let mut plan = Plan::new(route, &route.targets[assigned], None);
        let mut asked = Vec::new();
        loop {
            let room = |choice: Choice| match (left[slot(choice)], endpoints[slot(choice)].1) {
                (0, _) => Room::Exhausted,
                (_, true) => Room::Up,
                (_, false) => Room::Down,
            };
            let Some(choice) = plan.next(room) else { break };
            if endpoints[slot(choice)].1 {
                prop_assert_eq!(room(choice), Room::Up);
            } else {
                let fresh_up = (0..4).any(|at| left[at] > 0 && endpoints[at].1 && !asked.contains(&at));
                prop_assert!(!fresh_up, "what is down comes after what is up");
            }
            left[slot(choice)] -= 1;
            asked.push(slot(choice));
            plan.ask(choice);
        }
        let places: usize = endpoints.iter().map(|(count, _)| *count).sum();
        prop_assert!(asked.len() <= attempts as usize);
        // Once gone on, a plan does not come back to a target: endpoints left there may stay unasked.
        let reached = asked.iter().collect::<std::collections::BTreeSet<_>>().len();
        let targets = endpoints.iter().filter(|(count, _)| *count > 0).count();
        prop_assert!(asked.len() == attempts as usize || asked.len() == places || reached == targets);
    }
}
