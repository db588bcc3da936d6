//! The SSE scanner beside another reader of the same standard, the crate `sse-core`, over generated streams.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use proptest::prelude::*;
use sse_core::{SseDecoder, SseEvent};
use streamgauge::llm::sse::{Frame, SseScanner};

/// Name, data and last event id.
type Told = (String, String, String);

fn ours(pieces: &[&[u8]]) -> Vec<Told> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (mut scanner, mut told) = (SseScanner::default(), Vec::new());
    let mut tell = |frame: Frame<'_>| match frame {
        Frame::Event(event) => {
            let name = if event.name.is_empty() { "message".to_owned() } else { text(event.name) };
            told.push((name, text(event.data), text(event.id)));
        }
        // Lines of no field and names without data are ours to notice, and nothing to others.
        Frame::Named(_) | Frame::Stray(_) => {}
        Frame::Skeleton(_) | Frame::Oversized => panic!("no event is that long"),
    };
    for piece in pieces {
        scanner.feed(piece, &mut tell);
    }
    // The LF of a last CRLF may still be on its way: an event that ended with the CR is told when the stream is over.
    scanner.cut(&mut tell);
    told
}

fn theirs(pieces: &[&[u8]]) -> Vec<Told> {
    let (mut decoder, mut told) = (SseDecoder::new(), Vec::new());
    for piece in pieces {
        let mut rest = *piece;
        while let Some(event) = decoder.next(&mut rest) {
            if let SseEvent::Message(message) = event.expect("no event is that long") {
                let id = message.last_event_id.as_deref().unwrap_or_default().to_owned();
                told.push((message.event.into_owned(), message.data, id));
            }
        }
    }
    told
}

/// Lines as servers, and those who mean harm, write them.
fn line() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "data: ?[ -~äß€🌍\t]{0,20}",
        2 => "event: ?[a-z_.]{0,12}",
        2 => "id: ?[a-z0-9]{0,6}",
        1 => "retry: ?[0-9]{0,6}",
        2 => ":[ -~]{0,12}",
        1 => "[a-zA-Z_ -]{1,9}:[ -~]{0,9}",
        1 => Just("id: a\0b".to_owned()),
        1 => Just("data:  two spaces".to_owned()),
        1 => Just("\u{feff}data: late mark".to_owned()),
        2 => prop::sample::select(vec!["data", "event", "id", "retry", "dat", "database", "ID"]).prop_map(str::to_owned),
        4 => Just(String::new()),
    ]
}

fn stream() -> impl Strategy<Value = Vec<u8>> {
    let ending = prop::sample::select(vec!["\n", "\n", "\r\n", "\r"]);
    (any::<bool>(), prop::collection::vec((line(), ending), 0..40)).prop_map(|(marked, lines)| {
        let mut stream = if marked { "\u{feff}".to_owned() } else { String::new() };
        stream.extend(lines.into_iter().flat_map(|(line, ending)| [line, ending.to_owned()]));
        stream.into_bytes()
    })
}

/// The stream in pieces of the given sizes, over and over.
fn pieces<'a>(stream: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
    let (mut found, mut rest) = (Vec::new(), stream);
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, after) = rest.split_at((*size).min(rest.len()));
        found.push(piece);
        rest = after;
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn both_read_any_stream_alike(stream in stream(), sizes in prop::collection::vec(1usize..24, 1..8)) {
        let pieces = pieces(&stream, &sizes);
        prop_assert_eq!(ours(&pieces), theirs(&pieces), "{:?}", String::from_utf8_lossy(&stream));
    }
}
