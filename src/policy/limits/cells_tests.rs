use std::num::NonZeroU32;

use proptest::prelude::*;

use super::*;
use crate::config::limits::TokenLimit;
use crate::policy::identity::Identity;
use crate::policy::limits::{Reason, Taken};

const NOW: Duration = Duration::from_secs(1_800_000_000);

fn limit(name: &str) -> Limit {
    Limit {
        name: name.into(),
        key: LimitKey::User,
        tokens: None,
        requests_per_minute: None,
        concurrent: None,
        cost_per_day: None,
        cost_per_month: None,
        on_exhausted: OnExhausted::Finish,
    }
}

fn tokens(per_minute: u64) -> Limit {
    let tokens = TokenLimit { per_minute, burst: per_minute, debt: per_minute, output_cap: None };
    Limit { tokens: Some(tokens), ..limit("tokens") }
}

fn claim(limit: &Arc<Limit>, tokens: u64) -> Claim {
    Claim { limit: Arc::clone(limit), holder: "user:alice".into(), tokens, cost: 0, unforeseen: false, runs: true }
}

fn used(tokens: u64) -> Used {
    Used { tokens, cost: 0 }
}

#[test]
fn a_denial_takes_nothing_from_any_limit() {
    let wide = Arc::new(Limit { requests_per_minute: NonZeroU32::new(100), ..tokens(1000) });
    let narrow = Arc::new(Limit { concurrent: Some(1), ..limit("narrow") });
    let mut cells = Cells::default();
    let mut first = [claim(&wide, 100), claim(&narrow, 0)];
    let standing = cells.admit(&mut first, NOW).unwrap();
    assert_eq!(standing.tokens.unwrap().remaining, 900);
    assert_eq!(standing.requests.unwrap().remaining, 99);
    let before = cells.view(None, 10, NOW);
    for _ in 0..1000 {
        let denial = cells.admit(&mut [claim(&wide, 100), claim(&narrow, 0)], NOW).unwrap_err();
        assert_eq!((&*denial.limit, denial.reason), ("narrow", Reason::Concurrent { most: 1 }));
        assert_eq!(denial.standing.tokens.unwrap().remaining, 900);
    }
    assert_eq!(cells.view(None, 10, NOW), before);
    cells.report(&mut first, used(0), used(30), true, NOW);
    let standing = cells.admit(&mut [claim(&wide, 100), claim(&narrow, 0)], NOW).unwrap();
    assert_eq!(standing.tokens.unwrap().remaining, 870);
}

#[test]
fn what_nobody_foresaw_is_charged_and_refused_while_the_bucket_is_in_debt() {
    let limit = Arc::new(tokens(60));
    let unforeseen = || [Claim { unforeseen: true, ..claim(&limit, 0) }];
    let mut cells = Cells::default();
    let mut first = unforeseen();
    cells.admit(&mut first, NOW).unwrap();
    assert!(cells.admit(&mut unforeseen(), NOW).is_ok(), "nothing is known of what the first takes");
    cells.report(&mut first, used(0), used(90), true, NOW);
    let denial = cells.admit(&mut unforeseen(), NOW).unwrap_err();
    assert_eq!((denial.reason, denial.retry_after), (Reason::Debt { per_minute: 60 }, Some(Duration::from_secs(30))));
    assert!(cells.admit(&mut [claim(&limit, 0)], NOW).is_ok(), "a page costs nothing");
    let later = NOW + Duration::from_secs(30);
    assert!(cells.admit(&mut unforeseen(), later).is_ok(), "the debt is paid");
}

#[test]
fn of_several_refusals_the_longest_is_told() {
    let minute = Arc::new(tokens(60));
    let day = Arc::new(Limit { cost_per_day: Some(5), ..limit("day") });
    let mut cells = Cells::default();
    let mut first = [claim(&minute, 60), Claim { cost: 5, ..claim(&day, 0) }];
    cells.admit(&mut first, NOW).unwrap();
    cells.report(&mut first, used(0), Used { tokens: 60, cost: 5 }, true, NOW);
    let denial = cells.admit(&mut [claim(&minute, 1), Claim { cost: 1, ..claim(&day, 0) }], NOW).unwrap_err();
    assert_eq!((denial.reason.as_str(), &*denial.limit), ("cost_per_day", "day"));
    let never = cells.admit(&mut [claim(&minute, 121), claim(&day, 0)], NOW).unwrap_err();
    assert_eq!((never.reason, never.retry_after), (Reason::TooLarge { asked: 121, most: 120 }, None));
}

#[test]
fn requests_are_counted_for_each_holder() {
    let limit = Arc::new(Limit { requests_per_minute: NonZeroU32::new(2), ..limit("rpm") });
    let mut cells = Cells::default();
    for left in [1, 0] {
        let mut request = [claim(&limit, 0)];
        assert_eq!(cells.admit(&mut request, NOW).unwrap().requests.unwrap().remaining, left);
        cells.report(&mut request, used(0), used(0), true, NOW);
    }
    let denial = cells.admit(&mut [claim(&limit, 0)], NOW).unwrap_err();
    assert_eq!(denial.reason, Reason::Requests { per_minute: 2 });
    assert_eq!(denial.retry_after, Some(Duration::from_secs(30)));
    let mut bob = [Claim { holder: "user:bob".into(), ..claim(&limit, 0) }];
    assert!(cells.admit(&mut bob, NOW).is_ok());
    assert!(cells.admit(&mut [claim(&limit, 0)], NOW + Duration::from_secs(30)).is_ok());
}

#[test]
fn a_stream_that_outruns_its_hold_is_cut_only_where_nothing_is_left() {
    let cuts = Arc::new(Limit { on_exhausted: OnExhausted::Cut, ..tokens(100) });
    let mut cells = Cells::default();
    let mut stream = [claim(&cuts, 20)];
    cells.admit(&mut stream, NOW).unwrap();
    assert!(!cells.report(&mut stream, used(0), used(90), false, NOW), "beyond its hold, but there is room");
    assert!(cells.report(&mut stream, used(90), used(101), false, NOW));
    let mut other = [claim(&cuts, 20)];
    assert!(cells.admit(&mut other, NOW).is_err());
    cells.report(&mut stream, used(101), used(101), true, NOW);
    let goes_on = Arc::new(tokens(100));
    let mut cells = Cells::default();
    let mut stream = [claim(&goes_on, 20)];
    cells.admit(&mut stream, NOW).unwrap();
    assert!(!cells.report(&mut stream, used(0), used(500), false, NOW));
}

#[test]
fn money_outlives_a_restart_and_tokens_do_not() {
    let limit = Arc::new(Limit { cost_per_day: Some(1_000), ..tokens(60) });
    let mut cells = Cells::default();
    let mut request = [Claim { cost: 100, ..claim(&limit, 10) }];
    cells.admit(&mut request, NOW).unwrap();
    cells.report(&mut request, used(0), Used { tokens: 10, cost: 990 }, true, NOW);
    let saved = serde_json::to_string(&cells.save(NOW)).unwrap();
    let mut restarted = Cells::default();
    restarted.restore(serde_json::from_str(&saved).unwrap(), &[Arc::clone(&limit)]);
    let later = NOW + Duration::from_secs(60);
    let denial = restarted.admit(&mut [Claim { cost: 11, ..claim(&limit, 10) }], later).unwrap_err();
    assert_eq!((denial.reason.as_str(), denial.standing.tokens.unwrap().remaining), ("cost_per_day", 60));
    assert!(restarted.admit(&mut [Claim { cost: 10, ..claim(&limit, 10) }], later).is_ok());
    let mut elsewhere = Cells::default();
    elsewhere.restore(serde_json::from_str(&saved).unwrap(), &[]);
    assert_eq!(elsewhere.view(None, 10, NOW), []);
}

#[test]
fn a_dear_first_request_passes_and_the_budget_then_holds() {
    let limit = Arc::new(Limit { cost_per_month: Some(100), ..limit("month") });
    let mut cells = Cells::default();
    let mut dear = [Claim { cost: 500, ..claim(&limit, 0) }];
    cells.admit(&mut dear, NOW).unwrap();
    let denial = cells.admit(&mut [claim(&limit, 0)], NOW).unwrap_err();
    assert_eq!(denial.reason.as_str(), "cost_held", "the whole budget is held, and none of it spent");
    assert_eq!(denial.retry_after, Some(Duration::from_secs(1)), "a hold may end at any time");
    cells.report(&mut dear, used(0), Used { tokens: 0, cost: 40 }, true, NOW);
    assert!(cells.admit(&mut [Claim { cost: 60, ..claim(&limit, 0) }], NOW).is_ok());
}

#[test]
fn held_and_spent_are_told_apart() {
    let limit = Arc::new(Limit { cost_per_day: Some(100), ..tokens(60) });
    let mut cells = Cells::default();
    let mut ended = [Claim { cost: 50, ..claim(&limit, 20) }];
    cells.admit(&mut ended, NOW).unwrap();
    cells.report(&mut ended, used(0), Used { tokens: 5, cost: 30 }, true, NOW);
    cells.admit(&mut [Claim { cost: 60, ..claim(&limit, 20) }], NOW).unwrap();
    let view = cells.view(None, 10, NOW).remove(0);
    let taken = Taken { tokens_spent: 5, tokens_held: 20, cost_held: 60, cost_day: 30, cost_month: 30 };
    assert_eq!((view.standing.taken, view.budget_day, view.budget_month), (taken, Some(100), None));
    let held = cells.admit(&mut [Claim { cost: 20, ..claim(&limit, 1) }], NOW).unwrap_err();
    assert_eq!((held.reason.as_str(), held.retry_after), ("cost_held", Some(Duration::from_secs(1))));
    let spent = cells.admit(&mut [Claim { cost: 80, ..claim(&limit, 1) }], NOW).unwrap_err();
    assert_eq!(spent.reason.as_str(), "cost_per_day", "of 100, 30 are spent: 80 do not fit when all holds have ended");
    assert!(spent.retry_after > Some(Duration::from_secs(3_600)), "{:?}", spent.retry_after);
}

#[test]
fn who_is_refused_is_told_since_when_and_comes_first() {
    let limit = Arc::new(Limit { requests_per_minute: NonZeroU32::new(2), ..limit("rpm") });
    let mut cells = Cells::default();
    for (user, requests) in [("user:busy", 2), ("user:eve", 1)] {
        for _ in 0..requests {
            let mut request = [Claim { holder: user.into(), ..claim(&limit, 0) }];
            cells.admit(&mut request, NOW).unwrap();
            cells.report(&mut request, used(0), used(0), true, NOW);
        }
    }
    assert_eq!(&*cells.view(None, 10, NOW)[0].holder, "user:busy");
    let later = |seconds| NOW + Duration::from_secs(seconds);
    for at in [10, 20, 200] {
        cells.refused(&mut Claim { holder: "user:eve".into(), ..claim(&limit, 0) }, "requests", later(at));
    }
    let refused = Refusals { reason: "requests", first: later(10), last: later(200), count: 3 };
    let first = cells.view(None, 10, later(201)).remove(0);
    assert_eq!((&*first.holder, first.refused), ("user:eve", Some(refused)));
    assert_eq!(cells.refusing(later(201)), [("rpm".into(), refused)]);
    cells.sweep(&[Arc::clone(&limit)], later(400));
    assert_eq!(cells.view(None, 10, later(400)).len(), 1, "she stays as long as that is told");
    assert_eq!(cells.view(None, 10, later(501))[0].refused, None);
    assert_eq!(cells.refusing(later(501)), []);
    cells.sweep(&[Arc::clone(&limit)], later(501));
    assert_eq!(cells.view(None, 10, later(501)), []);
}

#[test]
fn cells_are_bounded_and_newcomers_share_one() {
    let limit = Arc::new(Limit { requests_per_minute: NonZeroU32::new(1), ..limit("rpm") });
    let mut cells = Cells::default();
    let mut shared = 0;
    for number in 0..CELLS_MAX + 10 {
        let mut request = [Claim { holder: format!("user:{number}").into(), ..claim(&limit, 0) }];
        let admitted = cells.admit(&mut request, NOW);
        if &*request[0].holder == OTHERS {
            shared += usize::from(admitted.is_ok());
        }
        if admitted.is_ok() {
            cells.report(&mut request, used(0), used(0), true, NOW);
        }
    }
    assert_eq!(shared, 1, "those who come too late share one request a minute");
    assert!(cells.count <= CELLS_MAX + 1);
    cells.sweep(&[limit], NOW + Duration::from_secs(61));
    assert_eq!((cells.count, cells.by_limit.len()), (0, 1));
    cells.sweep(&[], NOW + Duration::from_secs(61));
    assert_eq!(cells.by_limit.len(), 0);
}

#[test]
fn a_site_with_all_its_networks_pushes_nobody_aside() {
    let limit = Arc::new(Limit { requests_per_minute: NonZeroU32::new(1), ..limit("rpm") });
    let mut cells = Cells::default();
    let mut admitted = 0;
    for network in 0..100_000_u128 {
        let address = Ipv6Addr::from_bits((0x2001_0db8_0001 << 80) | (network % 65_536) << 64 | network);
        let holder = super::super::holder(LimitKey::Ip, &Identity::default(), Some(address.into()), "");
        admitted += usize::from(cells.admit(&mut [Claim { holder, ..claim(&limit, 0) }], NOW).is_ok());
    }
    assert_eq!(admitted, NETWORKS_OF_SITE_MAX + 1, "one request a minute for each network, and one for the site");
    assert_eq!(cells.count, NETWORKS_OF_SITE_MAX + 1);
    for other in ["ip:2001:db8:2::/64", "ip:192.0.2.1", "user:alice"] {
        let mut request = [Claim { holder: other.into(), ..claim(&limit, 0) }];
        cells.admit(&mut request, NOW).unwrap();
        assert_eq!(&*request[0].holder, other);
    }
}

#[test]
fn addresses_leave_places_for_those_who_are_known() {
    let limit = Arc::new(Limit { requests_per_minute: NonZeroU32::new(1), ..limit("rpm") });
    let mut cells = Cells::default();
    for number in 0..CELLS_MAX {
        let holder = format!("ip:{}", std::net::Ipv4Addr::from_bits(number as u32));
        let mut request = [Claim { holder: holder.into(), ..claim(&limit, 0) }];
        if cells.admit(&mut request, NOW).is_ok() {
            cells.report(&mut request, used(0), used(0), true, NOW);
        }
    }
    assert_eq!(cells.count, ADDRESS_CELLS_MAX + 1);
    let mut alice = [Claim { holder: "user:alice".into(), ..claim(&limit, 0) }];
    cells.admit(&mut alice, NOW).unwrap();
    assert_eq!(&*alice[0].holder, "user:alice");
    cells.report(&mut alice, used(0), used(0), true, NOW);
    cells.sweep(&[limit], NOW + Duration::from_secs(61));
    assert_eq!((cells.count, cells.addresses), (0, 0));
}

/// What a model of the limiter remembers of one request under way.
struct Open {
    claims: [Claim; 2],
    used: Used,
}

proptest! {
    /// Against a model that keeps plain sums: at any moment what is held is the sum of the open holds less what they
    /// used, and in the end held = debited + released and spent = used.
    #[test]
    fn holds_and_debits_add_up(steps in proptest::collection::vec((0_u8..4, 1_u64..400, 0_usize..8), 1..120)) {
        let a = Arc::new(Limit { name: "a".into(), ..tokens(5_000) });
        let b = Arc::new(Limit { name: "b".into(), key: LimitKey::Global, ..tokens(9_000) });
        let mut cells = Cells::default();
        let (mut open, mut used_in_all) = (Vec::<Open>::new(), 0);
        for (step, amount, which) in steps {
            let at = which.checked_rem(open.len());
            match (step, at) {
                (0, _) | (_, None) => {
                    let mut claims = [claim(&a, amount), Claim { holder: "global".into(), ..claim(&b, amount / 2) }];
                    if cells.admit(&mut claims, NOW).is_ok() {
                        open.push(Open { claims, used: used(0) });
                    }
                }
                (1 | 2, Some(at)) => {
                    let request = &mut open[at];
                    let more = used(request.used.tokens + amount / 3);
                    cells.report(&mut request.claims, request.used, more, false, NOW);
                    request.used = more;
                }
                (_, Some(at)) => {
                    let mut request = open.swap_remove(at);
                    // The real number may be below what was counted live.
                    let last = used(request.used.tokens * 9 / 10 + amount / 4);
                    cells.report(&mut request.claims, request.used, last, true, NOW);
                    used_in_all += last.tokens;
                }
            }
            for (slot, view) in cells.view(None, 10, NOW).iter().map(|view| (usize::from(&*view.limit == "b"), view)) {
                let held: u64 = open.iter().map(|r| r.claims[slot].tokens.saturating_sub(r.used.tokens)).sum();
                prop_assert_eq!(view.standing.taken.tokens_held, held);
                let live: u64 = open.iter().map(|r| r.used.tokens).sum();
                prop_assert_eq!(view.standing.taken.tokens_spent, used_in_all + live);
                prop_assert_eq!(view.running as usize, open.len());
            }
        }
        for mut request in open {
            cells.report(&mut request.claims, request.used, request.used, true, NOW);
            used_in_all += request.used.tokens;
        }
        for (_, totals, _) in cells.usage(NOW) {
            prop_assert_eq!(totals.held, totals.debited + totals.released);
            prop_assert_eq!(totals.used, used_in_all);
        }
        for view in cells.view(None, 10, NOW) {
            let taken = view.standing.taken;
            prop_assert_eq!((taken.tokens_held, taken.tokens_spent, view.running), (0, used_in_all, 0));
        }
    }
}

#[test]
fn what_takes_no_place_is_let_in_and_leaves_none() {
    let limit = Arc::new(Limit { concurrent: Some(1), ..limit("running") });
    let mut cells = Cells::default();
    let mut runs = [claim(&limit, 0)];
    assert!(cells.admit(&mut runs, NOW).is_ok());
    let mut fetches = [Claim { runs: false, ..claim(&limit, 0) }];
    assert!(cells.admit(&mut fetches, NOW).is_ok());
    assert!(!cells.report(&mut fetches, Used::default(), Used::default(), true, NOW));
    assert!(cells.admit(&mut [claim(&limit, 0)], NOW).is_err(), "the place is still taken");
    assert!(!cells.report(&mut runs, Used::default(), Used::default(), true, NOW));
    assert!(cells.admit(&mut [claim(&limit, 0)], NOW).is_ok());
}
