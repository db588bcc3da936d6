use super::*;

const UNWRITTEN: Timeouts = Timeouts { connect: Duration::from_secs(2), first_token: None, stall: None, total: None };

const WRITTEN: Timeouts = Timeouts { first_token: Some(s(3)), stall: Some(s(4)), total: Some(s(50)), ..UNWRITTEN };

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn headed(times: Timeouts, expected: Kind, kind: Kind, another: bool) -> Deadlines {
    let mut deadlines = Deadlines::new(times, expected, another, s(1));
    deadlines.head_came(kind, s(2));
    deadlines
}

#[test]
fn a_default_is_short_only_while_another_place_can_be_asked() {
    let vectors = [
        (Kind::Tokens, true, Some((s(61), Late::FirstToken))),
        (Kind::Tokens, false, Some((s(601), Late::FirstToken))),
        (Kind::Whole { llm: true }, true, Some((s(601), Late::Attempt))),
        (Kind::Whole { llm: true }, false, Some((s(3600), Late::Total))),
        (Kind::Whole { llm: false }, false, Some((s(3601), Late::Total))),
        (Kind::Other { bound: false }, true, None),
        (Kind::Other { bound: true }, true, None),
    ];
    for (kind, another, expected) in vectors {
        assert_eq!(Deadlines::new(UNWRITTEN, kind, another, s(1)).next(), expected, "{kind:?} {another}");
    }
    let mut deadlines = headed(UNWRITTEN, Kind::Tokens, Kind::Tokens, true);
    deadlines.commit();
    assert_eq!(deadlines.next(), Some((s(601), Late::FirstToken)), "what is passed on nobody else can bring");
    deadlines.came(Kind::Tokens, Sign::Token, s(10));
    assert_eq!(deadlines.next(), Some((s(610), Late::Stall)));
}

#[test]
fn what_the_file_says_holds_as_it_stands() {
    for another in [true, false] {
        let mut deadlines = headed(WRITTEN, Kind::Tokens, Kind::Tokens, another);
        assert_eq!(deadlines.next(), Some((s(4), Late::FirstToken)));
        deadlines.came(Kind::Tokens, Sign::Token, s(48));
        assert_eq!(deadlines.next(), Some((s(50), Late::Total)));
    }
    let whole = headed(WRITTEN, Kind::Whole { llm: false }, Kind::Whole { llm: false }, false);
    assert_eq!(whole.next(), Some((s(6), Late::Stall)));
    assert_eq!(Deadlines::new(WRITTEN, Kind::Whole { llm: true }, false, s(1)).next(), Some((s(50), Late::Total)));
}

#[test]
fn work_resets_the_clocks_and_bytes_alone_do_not() {
    let mut deadlines = headed(WRITTEN, Kind::Tokens, Kind::Tokens, false);
    deadlines.came(Kind::Tokens, Sign::Bytes, s(3));
    assert_eq!(deadlines.next(), Some((s(4), Late::FirstToken)));
    deadlines.came(Kind::Tokens, Sign::Work, s(3));
    assert_eq!(deadlines.next(), Some((s(6), Late::FirstToken)), "still no token");
    assert!(deadlines.waits_for_token());
    deadlines.came(Kind::Tokens, Sign::Token, s(5));
    deadlines.came(Kind::Tokens, Sign::Work, s(8));
    assert_eq!(deadlines.next(), Some((s(12), Late::Stall)));
    deadlines.pause(s(2));
    assert_eq!(deadlines.next(), Some((s(14), Late::Stall)));
}

#[test]
fn a_stream_that_is_no_llms_is_bound_only_where_its_route_says_so() {
    let free = Kind::Other { bound: false };
    let mut deadlines = headed(WRITTEN, free, free, true);
    assert_eq!(deadlines.next(), None);
    deadlines.came(free, Sign::Bytes, s(5));
    assert_eq!(deadlines.next(), None);
    let bound = Kind::Other { bound: true };
    let mut deadlines = headed(WRITTEN, bound, bound, false);
    assert_eq!(deadlines.next(), Some((s(5), Late::FirstToken)));
    deadlines.came(bound, Sign::Bytes, s(4));
    assert_eq!(deadlines.next(), Some((s(8), Late::Stall)), "a comment is life");
    assert_eq!(headed(UNWRITTEN, bound, bound, false).next(), None, "defaults end none");
}

#[test]
fn a_stream_that_turns_out_to_be_an_llms_gets_its_clocks_then() {
    let free = Kind::Other { bound: false };
    let mut deadlines = headed(WRITTEN, Kind::Tokens, free, false);
    deadlines.came(Kind::Tokens, Sign::Work, s(20));
    assert_eq!(deadlines.next(), Some((s(23), Late::FirstToken)));
    assert_eq!(deadlines.kind(), Kind::Tokens);
}

#[test]
fn what_was_to_come_in_one_piece_has_no_time_for_its_first_token() {
    let deadlines = headed(WRITTEN, Kind::Whole { llm: true }, Kind::Tokens, false);
    assert_eq!(deadlines.next(), Some((s(5), Late::Stall)));
}

#[test]
fn after_its_end_an_answer_is_ended_in_order() {
    let mut deadlines = headed(WRITTEN, Kind::Tokens, Kind::Tokens, false);
    deadlines.end(s(49));
    assert_eq!(deadlines.next(), Some((s(54), Late::AfterEnd)), "and its total is none of its clocks");
    deadlines.came(Kind::Tokens, Sign::Work, s(53));
    assert_eq!(deadlines.next(), Some((s(58), Late::AfterEnd)));
}
