use flate2::{Compress, Compression, FlushCompress};
use proptest::prelude::*;

use super::*;

/// A frame of a client or a server.
fn frame(first: u8, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let masked = if mask.is_some() { 0x80 } else { 0 };
    let mut bytes = vec![first, masked | 127];
    bytes.extend((payload.len() as u64).to_be_bytes());
    bytes.extend(mask.iter().flatten());
    bytes.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask.map_or(0, |mask| mask[at % 4])));
    bytes
}

/// A sender that deflates, with or without what it sent before.
struct Deflate {
    stream: Compress,
    resets: bool,
}

impl Deflate {
    fn new(resets: bool) -> Self {
        Self { stream: Compress::new(Compression::default(), false), resets }
    }

    fn message(&mut self, text: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(text.len() + 1_024);
        self.stream.compress_vec(text, &mut out, FlushCompress::Sync).unwrap();
        assert!(out.ends_with(&[0, 0, 0xff, 0xff]));
        out.truncate(out.len() - 4);
        if self.resets {
            self.stream.reset();
        }
        out
    }
}

fn agreed(extensions: &str) -> Extensions {
    Extensions::read([extensions].into_iter())
}

fn read(messages: &mut Messages, bytes: &[u8], size: usize) -> Vec<String> {
    let mut texts = Vec::new();
    for chunk in bytes.chunks(size.max(1)) {
        messages.feed(chunk, &mut |text| texts.push(String::from_utf8_lossy(text).into_owned()));
    }
    texts
}

#[test]
fn extensions_are_understood_or_nothing_is_read() {
    assert_eq!(agreed(""), Extensions::default());
    let deflate = agreed("permessage-deflate; server_no_context_takeover; client_max_window_bits=12");
    assert_eq!(deflate, Extensions { deflates: true, server_resets: true, ..Extensions::default() });
    assert!(agreed("permessage-bzip").unknown && agreed("permessage-deflate, x-webkit").unknown);
    let mut messages = Messages::default();
    messages.read(Side::Server, agreed("x-mystery"));
    assert_eq!(read(&mut messages, &frame(0x81, None, b"{}"), 100), [""; 0]);
    assert_eq!(messages.frames().messages(), 1, "they are counted all the same");
}

#[test]
fn deflated_messages_are_read_with_what_came_before() {
    for (extensions, resets) in
        [("permessage-deflate", false), ("permessage-deflate; client_no_context_takeover", true)]
    {
        let mut sender = Deflate::new(resets);
        let texts: Vec<String> =
            (0..20).map(|at| format!(r#"{{"type":"response.done","n":{at},"text":"the river rises"}}"#)).collect();
        let mut bytes = Vec::new();
        for (at, text) in texts.iter().enumerate() {
            let deflated = sender.message(text.as_bytes());
            let (head, tail) = deflated.split_at(deflated.len() / 2);
            // A binary message between them, which later ones may refer back to, and a ping inside a fragmented one.
            let binary = sender.message(&[7; 300]);
            bytes.extend(frame(0x80 | 0x40 | 2, Some([9, 8, 7, 6]), &binary));
            if at % 2 == 0 {
                bytes.extend(frame(0x40 | 1, Some([1, 2, 3, 4]), head));
                bytes.extend(frame(0x89, Some([1, 1, 1, 1]), b"ping"));
                bytes.extend(frame(0x80, Some([5, 6, 7, 8]), tail));
            } else {
                bytes.extend(frame(0xc1, Some([1, 2, 3, 4]), &deflated));
            }
        }
        // One that is not deflated may stand among them.
        bytes.extend(frame(0x81, Some([1, 2, 3, 4]), b"plain"));
        for size in [1, 7, 1_000, bytes.len()] {
            let mut messages = Messages::default();
            messages.read(Side::Client, agreed(extensions));
            let read = read(&mut messages, &bytes, size);
            assert_eq!(read.split_last().unwrap(), (&"plain".to_owned(), texts.as_slice()), "{extensions} {size}");
        }
    }
}

#[test]
fn what_grows_without_measure_is_given_up_and_long_texts_are_passed_over() {
    let mut sender = Deflate::new(false);
    let bomb = sender.message(&vec![b'x'; 64 << 20]);
    let mut messages = Messages::default();
    messages.read(Side::Server, agreed("permessage-deflate"));
    assert_eq!(read(&mut messages, &frame(0xc1, None, &bomb), 4_096), [""; 0]);
    assert!(messages.text.is_none(), "nothing after it is read");
    assert_eq!(messages.hidden(), Some(Hidden::Deflated));

    let mut messages = Messages::default();
    messages.read(Side::Server, Extensions::default());
    let mut bytes = frame(0x81, None, &vec![b'x'; TEXT_MAX + 1]);
    bytes.extend(frame(0x81, None, b"next"));
    assert_eq!(read(&mut messages, &bytes, 9_000), ["next"]);
    assert_eq!(messages.hidden(), None, "no JSON begins so");
    assert!(messages.text.as_ref().unwrap().bytes.capacity() <= KEPT_MAX);
    messages.feed(&frame(0x81, None, &[b" {", &*vec![b' '; TEXT_MAX]].concat()), &mut |_| panic!("it is too long"));
    assert_eq!(messages.hidden(), Some(Hidden::TooLong));
}

#[test]
fn binary_messages_that_begin_as_json_are_read_in_any_pieces() {
    let mut sender = Deflate::new(false);
    let json = b" \r\n{\"type\":\"response.create\"}";
    let mut bytes = frame(0x82, Some([1, 2, 3, 4]), json);
    bytes.extend(frame(0x82, Some([1, 2, 3, 4]), &[0, 0, 7, b'{']));
    bytes.extend(frame(0x02, Some([9, 9, 9, 9]), &json[..7]));
    bytes.extend(frame(0x80, Some([5, 6, 7, 8]), &json[7..]));
    bytes.extend(frame(0xc2, Some([1, 2, 3, 4]), &sender.message(b"RIFF")));
    bytes.extend(frame(0xc2, Some([1, 2, 3, 4]), &sender.message(json)));
    let expected = [&json[..]; 3].map(|json| String::from_utf8_lossy(json).into_owned());
    for size in [1, 2, 5, bytes.len()] {
        let mut messages = Messages::default();
        messages.read(Side::Client, agreed("permessage-deflate"));
        assert_eq!(read(&mut messages, &bytes, size), expected, "{size}");
        assert_eq!((messages.hidden(), messages.frames().messages()), (None, 5));
    }
}

#[test]
fn of_what_a_client_offers_the_known_is_left() {
    let left = |offer: &str| Extensions::understood([offer].into_iter());
    let deflate = "permessage-deflate; client_max_window_bits";
    assert_eq!(left(&format!("x-bzip, {deflate}")).as_deref(), Some(deflate));
    assert_eq!(
        left("permessage-deflate; a, permessage-deflate").as_deref(),
        Some("permessage-deflate; a, permessage-deflate")
    );
    assert_eq!((left("x-webkit-deflate-frame"), left("")), (None, None));
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..2_000), size in 1_usize..300) {
        let mut messages = Messages::default();
        messages.read(Side::Client, agreed("permessage-deflate"));
        read(&mut messages, &bytes, size);
    }
}
