//! W3C trace context: what comes in, what is believed of it, and what goes out.

use super::ids;
pub use super::ids::{new_request_id, new_span_id, random};
use super::record::TraceIds;
use crate::config::settings::ContinueTraces;

/// A caller's span, as its `traceparent` header names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parent {
    /// Never zero.
    pub trace_id: u128,
    /// Never zero.
    pub span_id: u64,
    pub sampled: bool,
}

impl Parent {
    /// Reads a `traceparent` header, or nothing when it is malformed in any way: a broken context is as good as none.
    pub fn parse(header: &[u8]) -> Option<Self> {
        let (fields, rest) = header.split_at_checked(LENGTH)?;
        let [version @ .., b'-'] = fields.get(..3)? else { return None };
        let [trace @ .., b'-'] = fields.get(3..36)? else { return None };
        let [span @ .., b'-'] = fields.get(36..53)? else { return None };
        let version = number(version)?;
        // Later versions may append fields behind a dash; version 00 ends here, and ff is forbidden.
        let ends_well = rest.is_empty() || (version != 0 && rest.first() == Some(&b'-'));
        if version == 0xff || !ends_well {
            return None;
        }
        let (trace_id, span_id) = (number(trace)?, u64::try_from(number(span)?).ok()?);
        let flags = number(fields.get(53..)?)?;
        (trace_id != 0 && span_id != 0).then_some(Self { trace_id, span_id, sampled: flags & 1 == 1 })
    }
}

/// The identity of a request in its trace. `parent` is the `traceparent` header as it came.
///
/// A trace is continued when `policy` says so of this caller; else it is a new one, linked to the caller's. The sampled
/// flag is a continued trusted caller's own; else `ratio` (0 to 1) decides, by the trace id where that is ours, so that
/// every service that samples by ratio keeps the same traces, and by lot where a stranger chose it.
pub fn decide(parent: Option<&[u8]>, trusted: bool, policy: ContinueTraces, ratio: f64) -> TraceIds {
    let parent = parent.and_then(Parent::parse);
    let continues = match policy {
        ContinueTraces::Trusted => trusted,
        ContinueTraces::Always => true,
        ContinueTraces::Link => false,
    };
    let span_id = new_span_id();
    match parent {
        Some(parent) if continues => {
            let sampled = if trusted { parent.sampled } else { within(ratio, random()) };
            TraceIds { trace_id: parent.trace_id, span_id, parent: Some(parent.span_id), link: None, sampled }
        }
        other => {
            let trace_id = ids::new_trace_id();
            let link = other.map(|parent| (parent.trace_id, parent.span_id));
            TraceIds { trace_id, span_id, parent: None, link, sampled: within(ratio, trace_id as u64) }
        }
    }
}

/// The `traceparent` header that makes `span_id` the parent of what the receiver does.
pub fn traceparent(trace_id: u128, span_id: u64, sampled: bool) -> String {
    let (mut trace, mut span) = ([0; 32], [0; 16]);
    let mut header = String::with_capacity(LENGTH);
    header.push_str("00-");
    header.push_str(ids::hex(trace_id, &mut trace));
    header.push('-');
    header.push_str(ids::hex(u128::from(span_id), &mut span));
    header.push_str(if sampled { "-01" } else { "-00" });
    header
}

/// The `tracestate` that goes on with a continued trace: all headers' members in order, without empty ones. `None` when
/// there is none or it breaks the rules (32 members, well-formed and unique keys and values): then it is not passed on.
pub fn tracestate<'a>(headers: impl IntoIterator<Item = &'a [u8]>) -> Option<String> {
    let mut members: Vec<&str> = Vec::new();
    for header in headers {
        for member in std::str::from_utf8(header).ok()?.split(',') {
            let member = member.trim_matches([' ', '\t']);
            if member.is_empty() {
                continue;
            }
            let (key, value) = member.split_once('=')?;
            let known = members.iter().filter_map(|other| other.split_once('=')).any(|(other, _)| other == key);
            if known || !valid_key(key) || !valid_value(value) || members.len() == MEMBERS_MAX {
                return None;
            }
            members.push(member);
        }
    }
    (!members.is_empty()).then(|| members.join(","))
}

/// Length of a version-00 `traceparent`, in bytes.
const LENGTH: usize = 55;

const MEMBERS_MAX: usize = 32;

/// Lower-case hexadecimal digits alone, as the standard has it; at most 32.
fn number(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some((number << 4) | u128::from(value))
    })
}

/// Whether a draw out of all 64-bit numbers falls within `ratio` of them, by the rule of OpenTelemetry's ratio sampler.
fn within(ratio: f64, draw: u64) -> bool {
    if ratio >= 1.0 {
        return true;
    }
    let bound = (ratio.max(0.0) * (1_u64 << 63) as f64) as u64;
    draw >> 1 < bound
}

/// `key` or `tenant@system` of a tracestate member.
fn valid_key(key: &str) -> bool {
    let characters =
        |part: &str| part.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/'));
    let starts_with_letter = |part: &str| part.starts_with(|first: char| first.is_ascii_lowercase());
    match key.split_once('@') {
        Some((tenant, system)) => {
            let starts = tenant.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit());
            starts
                && tenant.len() <= 241
                && characters(tenant)
                && starts_with_letter(system)
                && system.len() <= 14
                && characters(system)
        }
        None => starts_with_letter(key) && key.len() <= 256 && characters(key),
    }
}

/// Printable ASCII but `,` and `=`; the trimmed member cannot end in a space.
fn valid_value(value: &str) -> bool {
    (1..=256).contains(&value.len())
        && value.bytes().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b',' | b'='))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn parse(header: &str) -> Option<Parent> {
        Parent::parse(header.as_bytes())
    }

    #[test]
    fn a_good_header_is_read() {
        let parent = parse(GOOD).unwrap();
        assert_eq!(parent.trace_id, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
        assert_eq!(parent.span_id, 0xb7ad_6b71_6920_3331);
        assert!(parent.sampled);
        assert!(!parse(&GOOD.replace("-01", "-00")).unwrap().sampled);
        assert!(parse(&GOOD.replace("-01", "-ff")).unwrap().sampled, "unknown flags are ignored");
        assert!(!parse(&GOOD.replace("-01", "-02")).unwrap().sampled);
    }

    #[test]
    fn later_versions_may_append() {
        let later = GOOD.replacen("00", "cc", 1);
        assert_eq!(parse(&later), parse(GOOD));
        assert_eq!(parse(&format!("{later}-what-the-future-brings")), parse(GOOD));
        assert_eq!(parse(&format!("{later}.no-dash")), None);
    }

    #[test]
    fn broken_headers_are_as_good_as_none() {
        let broken = [
            String::new(),
            "00".into(),
            GOOD.to_uppercase(),
            GOOD.replace('a', "A"),
            GOOD.replacen("00", "ff", 1),
            GOOD.replacen("00", "0x", 1),
            format!("{GOOD}-extra"),
            format!("{GOOD} "),
            format!(" {GOOD}"),
            format!("{GOOD}{GOOD}"),
            GOOD.replace('-', "_"),
            GOOD.replace("b7ad6b7169203331", "0000000000000000"),
            GOOD.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            GOOD.replace("0af7", "+af7"),
            GOOD.replace("-01", "-1"),
            GOOD.replace("-01", "-0g"),
            GOOD.replace("0af7", "äf7"),
        ];
        for header in broken {
            assert_eq!(parse(&header), None, "{header}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(header in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Parent::parse(&header);
            let _ = tracestate([&header[..]]);
        }

        /// One changed byte either leaves a header of the same meaning class or none; never a zero id.
        #[test]
        fn any_change_of_a_good_header_is_survived(at in 0..GOOD.len(), byte: u8) {
            let mut header = GOOD.as_bytes().to_vec();
            header[at] = byte;
            if let Some(parent) = Parent::parse(&header) {
                prop_assert!(parent.trace_id != 0 && parent.span_id != 0);
                prop_assert!(byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte) || byte == b'-');
            }
        }

        #[test]
        fn what_goes_out_comes_in_again(trace_id in 1_u128.., span_id in 1_u64.., sampled: bool) {
            let header = traceparent(trace_id, span_id, sampled);
            prop_assert_eq!(parse(&header), Some(Parent { trace_id, span_id, sampled }));
        }
    }

    #[test]
    fn trust_decides_whose_trace_it_is() {
        use ContinueTraces::{Always, Link, Trusted};
        let parent = parse(GOOD).unwrap();
        for (trusted, policy, continued) in [
            (true, Trusted, true),
            (false, Trusted, false),
            (true, Always, true),
            (false, Always, true),
            (true, Link, false),
            (false, Link, false),
        ] {
            let ids = decide(Some(GOOD.as_bytes()), trusted, policy, 0.0);
            assert_ne!(ids.span_id, 0);
            assert_ne!(ids.span_id, parent.span_id);
            if continued {
                assert_eq!((ids.trace_id, ids.parent, ids.link), (parent.trace_id, Some(parent.span_id), None));
                assert_eq!(ids.sampled, trusted, "only a trusted caller's flag counts");
            } else {
                assert_ne!(ids.trace_id, parent.trace_id);
                assert_eq!((ids.parent, ids.link), (None, Some((parent.trace_id, parent.span_id))));
                assert!(!ids.sampled);
            }
        }
    }

    #[test]
    fn a_broken_or_missing_parent_begins_a_trace() {
        for header in [None, Some(&b"00-garbage"[..])] {
            let ids = decide(header, true, ContinueTraces::Always, 1.0);
            assert_eq!((ids.parent, ids.link, ids.sampled), (None, None, true));
            assert_ne!(ids.trace_id, 0);
        }
    }

    #[test]
    fn a_trusted_caller_that_does_not_sample_is_not_sampled() {
        let header = traceparent(1, 1, false);
        assert!(!decide(Some(header.as_bytes()), true, ContinueTraces::Trusted, 1.0).sampled);
    }

    #[test]
    fn the_ratio_is_kept() {
        for (ratio, low, high) in [(0.0, 0, 0), (0.1, 800, 1_200), (0.5, 4_700, 5_300), (1.0, 10_000, 10_000)] {
            let sampled = (0..10_000).filter(|_| decide(None, false, ContinueTraces::Trusted, ratio).sampled).count();
            assert!((low..=high).contains(&sampled), "{sampled} of 10,000 at {ratio}");
            let foreign = GOOD.as_bytes();
            let sampled =
                (0..10_000).filter(|_| decide(Some(foreign), false, ContinueTraces::Always, ratio).sampled).count();
            assert!((low..=high).contains(&sampled), "{sampled} of 10,000 strangers at {ratio}");
        }
        assert!(!within(f64::NAN, 0));
        assert!(!within(-1.0, 0));
    }

    #[test]
    fn a_good_tracestate_goes_on() {
        let of = |headers: &[&str]| tracestate(headers.iter().map(|header| header.as_bytes()));
        assert_eq!(
            of(&["rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"]).unwrap(),
            "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"
        );
        assert_eq!(of(&["a=1", "b=2 3"]).unwrap(), "a=1,b=2 3");
        assert_eq!(of(&[" a=1 ,, b=2\t"]).unwrap(), "a=1,b=2");
        assert_eq!(of(&["0tenant@sys=x"]).unwrap(), "0tenant@sys=x");
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[" ,"]), None);
    }

    #[test]
    fn a_bad_tracestate_does_not() {
        let many = (0..33).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
        let long = format!("a={}", "x".repeat(257));
        for header in
            [&many[..], &long, "a", "=1", "a=", "A=1", "1a=1", "a=1,a=2", "a=b=c", "a b=1", "a=\u{7f}", "ä=1", "a@=1"]
        {
            assert_eq!(tracestate([header.as_bytes()]), None, "{header}");
        }
        assert_eq!(tracestate([&b"a=\xff"[..]]), None);
    }
}
