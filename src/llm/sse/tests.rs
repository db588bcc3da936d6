//! The scanner against the standard's own examples, and against a reference that reads the whole stream at once.

use proptest::prelude::*;

use super::*;

type Owned = (String, String, String);

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Reads a stream in the given pieces. Oversized events are told as `None`.
fn scan<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Option<Owned>> {
    let (mut scanner, mut events) = (SseScanner::default(), Vec::new());
    let mut note = |frame: Frame<'_>| {
        events.push(match frame {
            // The standard knows none.
            Frame::Named(_) | Frame::Stray(_) => return,
            Frame::Event(event) => Some((text(event.name), text(event.data), text(event.id))),
            Frame::Skeleton(_) | Frame::Oversized => None,
        });
    };
    pieces.into_iter().for_each(|piece| scanner.feed(piece, &mut note));
    scanner.cut(note);
    events
}

/// The standard's "interpreting an event stream", on a whole stream: events, and whether its end is a boundary.
fn reference(stream: &[u8]) -> (Vec<Option<Owned>>, bool) {
    let body = stream.strip_prefix(&BOM).unwrap_or(stream);
    let (mut events, mut rest) = (Vec::new(), body);
    let (mut name, mut data, mut id, mut in_block) = (Vec::new(), Vec::new(), Vec::new(), false);
    while let Some(end) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
        let line = &rest[..end];
        rest = &rest[end + if rest[end..].starts_with(b"\r\n") { 2 } else { 1 }..];
        if line.is_empty() {
            if let Some((_, joined)) = data.split_last() {
                events.push(Some((text(&name), text(joined), text(&id))));
            }
            (name, data, in_block) = (Vec::new(), Vec::new(), false);
            continue;
        }
        if line[0] == b':' {
            continue;
        }
        in_block = true;
        let mut halves = line.splitn(2, |byte| *byte == b':');
        let (field, value) = (halves.next().unwrap(), halves.next().unwrap_or_default());
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => data.extend(value.iter().chain(b"\n")),
            b"event" => name = value.to_vec(),
            b"id" if !value.contains(&0) => id = value.to_vec(),
            _ => {}
        }
    }
    let lone_cr = body.windows(2).any(|pair| pair[0] == b'\r' && pair[1] != b'\n');
    let half_bom = !stream.is_empty() && stream.len() < BOM.len() && BOM.starts_with(stream);
    let boundary = rest.is_empty() && !in_block && !half_bom && (lone_cr || !body.ends_with(b"\r"));
    (events, boundary)
}

/// Streams and the data of their events, from the web platform tests (`eventsource/format-*`) and the standard's text.
const VECTORS: [(&str, &[&str]); 22] = [
    ("data: a\n\n", &["a"]),
    ("\u{feff}data:1\n\n\u{feff}data:2\n\ndata:3\n\n", &["1", "3"]),
    ("\u{feff}\u{feff}data:1\n\ndata:2\n\n\u{feff}data:3\n\n", &["2"]),
    ("data:1\r:\0\n:\r\ndata:2\n:long comment\rdata:3\n:data:fail\r:long\ndata:4\n\n", &["1\n2\n3\n4"]),
    ("data:test\r\ndata\ndata:test\r\n\r", &["test\n\ntest"]),
    ("data:\n\ndata\ndata\n\ndata:test\n\n", &["", "\n", "test"]),
    ("event:test\ndata:x\n\n", &["x"]),
    ("event: \ndata:data\n\n", &["data"]),
    ("id: 1\nid: 2\ndata: x\n\n", &["x"]),
    (
        "data:\0\ndata:  2\rData:1\ndata\0:2\ndata:1\r\0data:4\nda-ta:3\rdata_5\ndata:3\rdata:\r\n data:32\ndata:4\n\n",
        &["\0\n 2\n1\n3\n\n4"],
    ),
    ("data:test\n data\ndata\nfoobar:xxx\njustsometext\n:thisisacommentyay\ndata:test\n\n", &["test\n\ntest"]),
    ("data:\ttest\rdata: \ndata:test\n\n", &["\ttest\n\ntest"]),
    ("data:\0\n\n\n\n", &["\0"]),
    ("retry:3000\n\ndata:x\n\n", &["x"]),
    ("data:ok…\n\n", &["ok…"]),
    (
        ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n",
        &["first event", "second event"],
    ),
    ("data: YHOO\ndata: +2\ndata: 10\n\n", &["YHOO\n+2\n10"]),
    ("data\n\ndata\ndata\n\ndata:", &["", "\n"]),
    ("data:test\n\ndata: test\n\n", &["test", "test"]),
    ("data:a\r\rdata:b\r\r", &["a", "b"]),
    ("data:a\r\n\r\ndata:b\r\n\r\n", &["a", "b"]),
    ("event: x\n\n: only a comment\n\n\n\n\r\r\n", &[]),
];

#[test]
fn the_standards_vectors_hold_under_every_split() {
    for (stream, expected) in VECTORS {
        let bytes = stream.as_bytes();
        let data = |events: Vec<Option<Owned>>| events.into_iter().map(|event| event.unwrap().1).collect::<Vec<_>>();
        assert_eq!(data(reference(bytes).0), expected, "the reference itself: {stream:?}");
        assert_eq!(data(scan(bytes.chunks(1))), expected, "bytewise: {stream:?}");
        for first in 0..=bytes.len() {
            for second in first..=bytes.len() {
                let pieces = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                assert_eq!(data(scan(pieces)), expected, "{pieces:?}");
            }
        }
    }
}

/// How many events were told after each piece.
fn told_after<'a>(pieces: impl IntoIterator<Item = &'a str>) -> Vec<usize> {
    let (mut scanner, mut told) = (SseScanner::default(), 0);
    let count = |piece: &str| {
        scanner.feed(piece.as_bytes(), |frame| told += usize::from(matches!(frame, Frame::Event(_))));
        told
    };
    pieces.into_iter().map(count).collect()
}

#[test]
fn an_event_ends_with_the_last_byte_of_its_line_end() {
    assert_eq!(told_after(["data: a\r\n\r", "\n", "data: b\r\n\r\n"]), [0, 1, 2], "of a CRLF with its LF");
    assert_eq!(told_after(["data: a\r\n", "\r", "data: b"]), [0, 0, 1], "a CR of its own, once that is known");
    assert_eq!(told_after(["data: a\r\r", "data: b\r\r"]), [1, 2], "a stream of CRs waits for nothing");
    assert_eq!(told_after(["data: a\n\n", "data: b\n", "\n"]), [1, 1, 2]);
    assert_eq!(told_after([": a\r\n\r", "\n\r", "\n"]), [0, 0, 0], "what is no event is none");
}

#[test]
fn names_and_ids_come_with_their_event() {
    let stream = b"event: a\nid: 1\ndata: x\n\ndata: y\n\nid: \0\nevent: b\nevent\ndata: z\n\nid\ndata: w\n\n";
    let events: Vec<_> = scan([stream.as_slice()]).into_iter().flatten().collect();
    let told: Vec<_> = events.iter().map(|(name, _, id)| (name.as_str(), id.as_str())).collect();
    assert_eq!(told, [("a", "1"), ("", "1"), ("", "1"), ("", "")]);
}

#[test]
fn a_name_without_data_is_told_under_every_split() {
    let named = |pieces: [&[u8]; 2]| {
        let (mut scanner, mut names) = (SseScanner::default(), Vec::new());
        let mut note = |frame: Frame<'_>| match frame {
            Frame::Named(name) => names.push(text(name)),
            Frame::Event(event) => names.push(text(event.data)),
            Frame::Skeleton(_) | Frame::Oversized | Frame::Stray(_) => panic!("{frame:?}"),
        };
        pieces.into_iter().for_each(|piece| scanner.feed(piece, &mut note));
        scanner.finish(&mut note);
        names
    };
    let stream = b"event: ping\n\nid: 1\n\nevent: a\ndata: x\n\nevent:\n\nevent: end";
    for cut in 0..=stream.len() {
        assert_eq!(named([&stream[..cut], &stream[cut..]]), ["ping", "x", "end"], "{cut}");
    }
}

#[test]
fn an_event_without_its_blank_line_is_told_at_the_end() {
    for stream in ["data: [DONE]", "data: [DONE]\n", "data: [DONE]\r\n", "data: [DO", ": x", "id: 1", ""] {
        for cut in 0..=stream.len() {
            let (mut scanner, mut data) = (SseScanner::default(), Vec::new());
            for piece in [&stream[..cut], &stream[cut..]] {
                scanner.feed(piece.as_bytes(), |frame| panic!("{frame:?} is not complete"));
            }
            scanner.finish(|frame| match frame {
                Frame::Event(event) => data.push(text(event.data)),
                Frame::Skeleton(_) | Frame::Oversized | Frame::Named(_) | Frame::Stray(_) => panic!("{frame:?}"),
            });
            let expected: Vec<_> = stream.strip_prefix("data: ").into_iter().map(str::trim_end).collect();
            assert_eq!(data, expected, "{stream:?} cut at {cut}");
        }
    }
}

#[test]
fn an_endless_line_takes_no_memory_and_ends_with_its_event() {
    let chunk = vec![b'x'; 16 << 10];
    for start in ["data: ", "data: a\ndata: ", "event: ", "foo"] {
        let mut scanner = SseScanner::default();
        scanner.feed(start.as_bytes(), |_| panic!("no event yet"));
        for _ in 0..1_000 {
            scanner.feed(&chunk, |_| panic!("no event yet"));
            let held = scanner.line.bytes.capacity() + scanner.data.capacity() + scanner.name.capacity();
            assert!(held <= 2 * EVENT_LIMIT, "{held} bytes held");
            assert!(!scanner.at_boundary());
        }
        let mut told = Vec::new();
        scanner.feed(b"\ndata: more\n\ndata: next\n\n", |frame| {
            told.push(match frame {
                Frame::Event(event) => text(event.data),
                Frame::Oversized => "oversized".into(),
                Frame::Skeleton(_) | Frame::Named(_) | Frame::Stray(_) => panic!("{frame:?}"),
            });
        });
        assert_eq!(told, ["oversized", "next"], "{start}");
        assert!(scanner.at_boundary());
        assert!(scanner.data.capacity() + scanner.line.bytes.capacity() <= 2 * KEPT_CAPACITY);
    }
}

#[test]
fn comments_without_end_are_no_event() {
    let mut scanner = SseScanner::default();
    for _ in 0..200_000 {
        scanner.feed(b": ping ping\n", |frame| panic!("{frame:?}"));
        assert!(scanner.at_boundary());
    }
    scanner.feed(b": ", |frame| panic!("{frame:?}"));
    scanner.feed(&vec![b'x'; 2 * EVENT_LIMIT], |frame| panic!("{frame:?}"));
    assert_eq!(scanner.line.bytes.capacity(), 0);
    let mut told = 0;
    scanner.feed(b"\ndata: x\n\n", |frame| told += usize::from(matches!(frame, Frame::Event(_))));
    assert_eq!(told, 1);
}

#[test]
fn of_an_event_over_the_limit_the_skeleton_is_told() {
    let picture = "A".repeat(EVENT_LIMIT);
    let kept = "A".repeat(512);
    let vectors = [
        (format!("{{\"b64\":\"{picture}\",\"usage\":1}}"), format!("{{\"b64\":\"{kept}\",\"usage\":1}}")),
        (format!("{{\"a\":\ndata:[\ndata: \"{picture}\",\ndata\ndata: 2]}}"), format!("{{\"a\":[\"{kept}\",2]}}")),
    ];
    for (data, skeleton) in vectors {
        let stream = format!("id: 7\nevent: done\nretry: 1\ndata: {data}\n: c\nfoo: bar\n\ndata: {{}}\n\n");
        for size in [stream.len(), 65_536, 4_096, 5] {
            let (mut scanner, mut told) = (SseScanner::default(), Vec::new());
            for piece in stream.as_bytes().chunks(size) {
                scanner.feed(piece, |frame| match frame {
                    Frame::Skeleton(event) => told.push((text(event.name), text(event.data), text(event.id))),
                    Frame::Event(event) => assert_eq!((text(event.data), told.len()), ("{}".into(), 1)),
                    _ => panic!("{frame:?}"),
                });
            }
            assert_eq!(told, [("done".into(), skeleton.clone(), "7".into())], "in pieces of {size}");
        }
    }
}

#[test]
fn the_limit_is_the_same_in_any_pieces() {
    for over in [0, 1] {
        let long = |len: usize| "x".repeat(len);
        let one_line = format!("data:{}\n\n", long(EVENT_LIMIT - 6 + over));
        let two_lines = format!("data:{}\ndata:{}\n\n", long(EVENT_LIMIT / 2 - 6), long(EVENT_LIMIT / 2 - 6 + over));
        for stream in [one_line, two_lines] {
            for size in [stream.len(), stream.len() - 1, stream.len() - 2, stream.len() - 3, 4096, 999] {
                let told = scan(stream.as_bytes().chunks(size));
                assert_eq!(told.iter().map(Option::is_some).collect::<Vec<_>>(), [over == 0], "in pieces of {size}");
            }
        }
    }
}

#[test]
fn the_limit_is_one_events_not_the_streams() {
    let stream = b"data: x\n\ndata: y\ndata: z\n\n".repeat(EVENT_LIMIT / 8);
    for size in [5, stream.len()] {
        let events = scan(stream.chunks(size));
        assert_eq!(events.len(), 2 * (EVENT_LIMIT / 8));
        assert!(events.iter().all(Option::is_some));
    }
}

#[test]
fn time_is_linear_in_the_bytes() {
    let one_line = [b"data: ".as_slice(), &vec![b'x'; EVENT_LIMIT / 2], b"\n\n"].concat();
    let many_lines = [b"data: x\n".repeat(EVENT_LIMIT / 16), b"\n".to_vec()].concat();
    for stream in [one_line, many_lines, b"data: x\n\n".repeat(1_000), b": \r".repeat(10_000)] {
        for size in [1, 2, 7, 1_000, stream.len()] {
            let (mut scanner, mut told) = (SseScanner::default(), 0);
            for piece in stream.chunks(size) {
                scanner.feed(piece, |_| told += 1);
            }
            assert!(told > 0 || stream.starts_with(b":"));
            assert!(scanner.work <= 4 * stream.len(), "{} for {} bytes by {size}", scanner.work, stream.len());
        }
    }
}

#[test]
fn whole_events_are_not_copied() {
    let stream = b"event: a\ndata: hello\n\n: c\n\ndata: world\n\n";
    let mut scanner = SseScanner::default();
    let within = |part: &[u8]| stream.as_ptr_range().contains(&part.as_ptr());
    scanner.feed(stream, |frame| match frame {
        Frame::Event(event) => assert!(within(event.data)),
        Frame::Skeleton(_) | Frame::Oversized | Frame::Named(_) | Frame::Stray(_) => panic!("{frame:?}"),
    });
    assert_eq!(scanner.work, stream.len());
    assert_eq!(scanner.data.capacity() + scanner.name.capacity() + scanner.line.bytes.capacity(), 0);
}

/// Streams of the bytes that matter, in any order.
fn streams() -> impl Strategy<Value = Vec<u8>> {
    let parts: Vec<&[u8]> = vec![
        b"\n",
        b"\n",
        b"\r",
        b"\r\n",
        b"\n\n",
        b"data",
        b"data: x",
        b"data:",
        b":",
        b" ",
        b"event: e",
        b"id: 7",
        b"id",
        b": c",
        b"\0",
        b"\xef\xbb\xbf",
        b"\xef",
        b"\xc3\xa4",
        b"retry: 1",
        b"data: y\n\n",
    ];
    (any::<bool>(), prop::collection::vec(prop::sample::select(parts), 0..40)).prop_map(|(bom, parts)| {
        let start: &[u8] = if bom { &BOM } else { &[] };
        [start, &parts.concat()].concat()
    })
}

proptest! {
    #[test]
    fn any_stream_in_any_pieces_reads_like_the_reference(
        stream in streams(),
        cuts in prop::collection::vec(1usize..9, 1..20),
    ) {
        let (mut scanner, mut events, mut at) = (SseScanner::default(), Vec::new(), 0);
        for cut in cuts.iter().cycle() {
            let (_, boundary) = reference(&stream[..at]);
            prop_assert_eq!(scanner.at_boundary(), boundary, "after {} bytes", at);
            if at == stream.len() {
                break;
            }
            let end = (at + cut).min(stream.len());
            scanner.feed(&stream[at..end], |frame| {
                if let Frame::Event(event) = frame {
                    events.push(Some((text(event.name), text(event.data), text(event.id))));
                }
            });
            at = end;
        }
        scanner.cut(|frame| {
            if let Frame::Event(event) = frame {
                events.push(Some((text(event.name), text(event.data), text(event.id))));
            }
        });
        prop_assert_eq!(events, reference(&stream).0);
    }

    #[test]
    fn what_is_put_in_at_a_boundary_harms_no_event(stream in streams()) {
        let (events, _) = reference(&stream);
        let mut scanner = SseScanner::default();
        for at in 0..=stream.len() {
            // A byte order mark works at the very start only, where nobody can know yet that one comes.
            let before_bom = at == 0 && stream.starts_with(&BOM);
            if scanner.at_boundary() && !before_bom {
                let (before, after) = stream.split_at(at);
                let with = |insert: &str| reference(&[before, insert.as_bytes(), after].concat()).0;
                prop_assert_eq!(&with(": keep-alive\n\n"), &events, "a comment at {}", at);
                let mut with_event = with("event: error\ndata: put in\n\n");
                let put = with_event.iter().position(|event| event.as_ref().is_some_and(|event| event.1 == "put in"));
                prop_assert!(put.is_some(), "the event at {} is lost", at);
                with_event.remove(put.unwrap());
                prop_assert_eq!(&with_event, &events, "an event at {}", at);
            }
            if let Some(byte) = stream.get(at) {
                scanner.feed(&[*byte], |_| {});
            }
        }
    }
}
