//! The part of `streamgauge explain` about cohorts: who stays where, and from which of a canary's steps on a caller is on it.

use std::fmt::Write as _;

use super::admin_views::InFleet;
use super::canary::{self, View};
use crate::config::canary::{Canary, Sticky};
use crate::config::identity::USER_HEADER;
use crate::config::settings::{Route, Settings, Target};
use crate::policy::cohort;
use crate::policy::identity::Identity;
use crate::policy::routing;

/// How a running proxy answered the question for a canary's share.
pub(super) enum Live {
    At {
        percent: u8,
        /// What happens next, or why nothing does.
        next: String,
    },
    Unknown,
}

/// Each target's share of the route's requests, and what that rests on: a canary's weight means nothing.
pub(super) fn shares<'r>(route: &'r Route, live: &Live) -> impl Iterator<Item = (&'r Target, f64)> {
    let share = route.canary.as_ref().map(|canary| match live {
        Live::At { percent, .. } => *percent,
        Live::Unknown => canary.share(0),
    });
    routing::shares(route, share)
}

/// Asks the proxy at `admin` how far the canary of a route has come.
pub(super) fn ask(admin: &str, route: &Route) -> Live {
    let Some(canary) = &route.canary else { return Live::Unknown };
    // A proxy that runs another file says nothing of this one.
    let is_it = |View { now, steps, .. }: &View| {
        now.route == *route.name && now.canary == *canary.target && *steps == canary.steps
    };
    let views = canary::list(admin).unwrap_or_default();
    let view = views.into_iter().find(is_it);
    view.map_or(Live::Unknown, |View { now, .. }| {
        let judged = now.fleet.as_ref().map_or_else(String::new, |fleet| format!(" {}", judged(fleet)));
        Live::At { percent: now.percent, next: now.next + &judged }
    })
}

/// Who judges a canary for its fleet, and how far the replica that was asked follows.
fn judged(InFleet { judge, judges, version }: &InFleet) -> String {
    let judge = match judge {
        Some(judge) if *judges => format!("Replica {judge}, the one that was asked, judges it for the fleet"),
        Some(judge) => format!("Replica {judge} judges it for the fleet"),
        None => "It is not known which replica judges it".to_owned(),
    };
    format!("{judge}; the one that was asked follows version {version} of its state.")
}

/// Tells who stays with whom, and where the caller is that `header` names.
pub(super) fn tell<'h>(
    out: &mut String,
    settings: &Settings,
    route: &Route,
    header: &dyn Fn(&str) -> Option<&'h str>,
    time: impl Fn(std::time::Duration) -> String,
    live: &Live,
) {
    let _ = writeln!(out, "  cohort    {}", words(route.sticky));
    let user_header = settings.identity.as_ref().map_or(USER_HEADER, |rules| &rules.user_header);
    let user = header(user_header).filter(|_| route.sticky == Sticky::User);
    if let Some(canary) = &route.canary {
        let steps: Vec<String> = canary.steps.iter().map(u8::to_string).collect();
        let _ = writeln!(
            out,
            "  canary    \"{}\" gets {} % step by step, and not its weight: each for at least {} and {} requests, and held \
             while these look worse than the others'; {}",
            canary.target,
            steps.join(", "),
            time(canary.step_time),
            canary.min_requests,
            stands(live)
        );
        if let Some(user) = user {
            let _ = writeln!(out, "            user \"{user}\" {}", joins(route, canary, user));
        }
    } else if let Some(target) = user.and_then(|user| routing::target(route, None, unit(user), |_| true)) {
        let _ = writeln!(out, "            user \"{}\" stays with \"{}\"", user.unwrap_or_default(), target.name);
    }
}

fn stands(live: &Live) -> String {
    match live {
        Live::At { percent, next } => {
            // It comes from the proxy: nothing of it may steer the terminal.
            let next: String = next.chars().filter(|letter| !letter.is_control()).collect();
            format!("the running proxy has it at {percent} %. {next}")
        }
        Live::Unknown => {
            "no proxy with this canary answered at --admin, so the shares above are those of its first step; \
                          `streamgauge canary` tells where it stands"
                .to_owned()
        }
    }
}

fn words(sticky: Sticky) -> &'static str {
    match sticky {
        Sticky::User => "a user (else an address) stays with its target",
        Sticky::Address => "an address stays with its target",
        Sticky::None => "each request by chance",
    }
}

/// Nobody leaves a canary as its share grows, so the first step that has the user tells all.
fn joins(route: &Route, canary: &Canary, user: &str) -> String {
    let target = |share: u8| routing::target(route, Some(share), unit(user), |_| true).map(|target| &target.name);
    let before = target(0).map_or("none", |name| name);
    match canary.steps.iter().find(|share| target(**share) == Some(&canary.target)) {
        Some(share) => format!("is on it from {share} % on, and before that with \"{before}\""),
        None => format!("is on none of its steps, and stays with \"{before}\""),
    }
}

fn unit(user: &str) -> cohort::Unit {
    let identity = Identity { user: Some(user.into()), ..Identity::default() };
    cohort::unit(Sticky::User, &identity, None, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(route: &str, user: Option<&'static str>) -> String {
        let text = format!(
            "[[upstream]]\nname = \"a\"\nurl = \"http://a\"\n[[upstream]]\nname = \"b\"\nurl = \"http://b\"\n\
             [[route]]\nname = \"chat\"\ntargets = [{{ upstream = \"a\" }}, {{ upstream = \"b\" }}]\n{route}\n"
        );
        let no_file = |_: &std::path::Path| Err(std::io::ErrorKind::NotFound.into());
        let settings = crate::config::parse(&text, "test.toml", &|_| None, &no_file).unwrap();
        let mut out = String::new();
        let header = |name: &str| user.filter(|_| name == "x-user-id");
        tell(&mut out, &settings, &settings.routes[0], &header, |time| format!("{time:?}"), &Live::Unknown);
        out
    }

    #[test]
    fn a_user_is_told_where_it_is_and_when_that_changes() {
        let canary = "canary = { target = \"b\", steps = [1, 50, 100] }";
        assert_eq!(
            told(canary, Some("alice")),
            "  cohort    a user (else an address) stays with its target\n  canary    \"b\" gets 1, 50, 100 % step by step, \
             and not its weight: each for at least 600s and 200 requests, and held while these look worse than the \
             others'; no proxy with this canary answered at --admin, so the \
             shares above are those of its first step; `streamgauge canary` tells where it stands\n            user \"alice\" is on it from 100 % on, and before that with \"a\"\n"
        );
        let on_half = (0..100).filter(|at| {
            let user: &'static str = Box::leak(format!("user-{at}").into_boxed_str());
            told(canary, Some(user)).contains("from 50 % on") || told(canary, Some(user)).contains("from 1 % on")
        });
        assert!((30..=70).contains(&on_half.count()), "about half");
        let few = told("canary = { target = \"b\", steps = [1] }", Some("alice"));
        assert!(few.ends_with("user \"alice\" is on none of its steps, and stays with \"a\"\n"), "{few}");
    }

    #[test]
    fn of_a_fleets_canary_it_is_told_who_judges_it() {
        let of = |judge: Option<&str>, judges| judged(&InFleet { judge: judge.map(str::to_owned), judges, version: 7 });
        let follows = "; the one that was asked follows version 7 of its state.";
        assert_eq!(of(Some("5f0c"), false), format!("Replica 5f0c judges it for the fleet{follows}"));
        assert_eq!(
            of(Some("5f0c"), true),
            format!("Replica 5f0c, the one that was asked, judges it for the fleet{follows}")
        );
        assert_eq!(of(None, false), format!("It is not known which replica judges it{follows}"));
    }

    #[test]
    fn a_canary_has_its_live_share_or_its_first_step() {
        let text = "[[upstream]]\nname = \"a\"\nurl = \"http://a\"\n[[route]]\nname = \"chat\"\n\
                    targets = [{ upstream = \"a\" }, { name = \"b\", upstream = \"a\" }]\ncanary = { target = \"b\" }\n";
        let no_file = |_: &std::path::Path| Err(std::io::ErrorKind::NotFound.into());
        let settings = crate::config::parse(text, "test.toml", &|_| None, &no_file).unwrap();
        let of = |live: &Live| shares(&settings.routes[0], live).map(|(_, share)| share * 100.0).collect::<Vec<_>>();
        assert_eq!(of(&Live::Unknown), [99.0, 1.0], "both have a weight of 1");
        assert_eq!(of(&Live::At { percent: 25, next: String::new() }), [75.0, 25.0]);
    }

    #[test]
    fn why_a_canary_stays_is_told_in_the_proxys_words() {
        let next = "It stays at 5 %: replica 5f0c alone sees harm.\u{1b}[31m".to_owned();
        assert_eq!(
            stands(&Live::At { percent: 5, next }),
            "the running proxy has it at 5 %. It stays at 5 %: replica 5f0c alone sees harm.[31m"
        );
    }

    #[test]
    fn without_a_canary_weights_decide() {
        let line = told("", Some("alice"));
        assert!(line.contains("user \"alice\" stays with \"a\"") || line.contains("stays with \"b\""), "{line}");
        assert_eq!(told("sticky = \"none\"", Some("alice")), "  cohort    each request by chance\n");
        assert_eq!(told("", None).lines().count(), 1);
    }
}
