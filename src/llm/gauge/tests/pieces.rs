//! However a stream is cut into pieces, it reads the same.

use proptest::prelude::*;

use super::*;

/// Events and lines of all dialects, and what is between and beside them.
const PARTS: [&str; 41] = [
    "data: {\"id\":\"c\",\"model\":\"m\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\"}}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hällo\\n\"}}]}\r\n\r\n",
    "data: {\"choices\":[{\"index\":1,\"delta\":{\"reasoning\":\"x\"},\"finish_reason\":\"stop\"}]}\r\r",
    "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
    "data: {\"choices\":[],\ndata: \"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4}}\n\n",
    "data: [DONE]\n\n",
    "data: {\"error\":{\"message\":\"broken\"}}\n\n",
    "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m1\",\"usage\":{\"input_tokens\":5,\"cache_read_input_tokens\":2}}}\n\n",
    "event: ping\ndata: {\"type\":\"ping\"}\n\n",
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"thinking_delta\",\"thinking\":\"a\"}}\n\n",
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"b\"}}\n\n",
    "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":9}}\n\n",
    "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
    "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"t\",\"message\":\"m\"}}\n\n",
    "{\"model\":\"l\",\"message\":{\"content\":\"a\"},\"done\":false}\n",
    "{\"model\":\"l\",\"response\":\"a\",\"thinking\":\"b\",\"done\":false}\r\n",
    "{\"model\":\"l\",\"done\":true,\"done_reason\":\"stop\",\"prompt_eval_count\":1,\"eval_count\":2}\n",
    "{\"error\":\"gone\"}\n",
    "data: {\"type\":\"response.created\",\"response\":{\"id\":\"r\",\"model\":\"m\"}}\n\n",
    "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"a\"}\n\n",
    "data: {\"type\":\"response.incomplete\",\"response\":{\"status\":\"incomplete\",\"usage\":{\"output_tokens\":4}}}\n\n",
    "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"a\"}]}}],\"modelVersion\":\"g\"}\r\n\r\n",
    "[{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"}\\\"\",\"thought\":true}]}}]\n}",
    ",\r\n{\"candidates\":[{\"finishReason\":\"STOP\"}],\"usageMetadata\":{\"candidatesTokenCount\":1}}",
    "]",
    "{\n \"error\": {\n  \"message\": \"m\"\n }\n}\n",
    "data: {\"type\":\"start\",\"messageId\":\"m\"}\n\n",
    "data: {\"type\":\"text-start\",\"id\":\"1\"}\n\ndata: {\"type\":\"text-delta\",\"id\":\"1\",\"delta\":\"a\"}\n\n",
    "data: {\"type\":\"finish\"}\n\n",
    "f:{\"messageId\":\"m\"}\n",
    "0:\"a\"\n",
    "d:{\"finishReason\":\"stop\",\"usage\":{\"promptTokens\":1,\"completionTokens\":2}}\n",
    "3:\"gone\"\n",
    "data: plain text\n\n",
    "data: {\"token\":\"x\"}\n\n",
    ": comment\n\n",
    "\u{feff}",
    "\n",
    "\r",
    "data: half",
    "x",
];

const FRAMINGS: [Framing; 4] = [Framing::Sse, Framing::JsonLines, Framing::JsonValues, Framing::Json];

/// All that stands in a reading but times: each byte came at zero.
fn whole(mut gauge: Gauge, bytes: &[u8], end: StreamEnd) -> Reading {
    gauge.feed(bytes, Duration::ZERO);
    gauge.finish(end, Duration::ZERO);
    gauge.reading().clone()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn pieces_do_not_matter(
        parts in prop::collection::vec(prop::sample::select(PARTS.to_vec()), 1..14),
        dialect in prop::sample::select(Dialect::ALL.to_vec()),
        framing in prop::sample::select(FRAMINGS.to_vec()),
        with_rules in any::<bool>(),
        is_cut in any::<bool>(),
        cuts in prop::collection::vec(1usize..50, 1..30),
    ) {
        let bytes = parts.concat().into_bytes();
        let end = if is_cut { StreamEnd::Cut } else { StreamEnd::Clean };
        let rules = if with_rules {
            StreamRules::read("text = '/token'\ndone = 'half'").unwrap()
        } else {
            StreamRules::default()
        };
        let new = || gauge_with(dialect, framing, rules.clone());

        let (mut gauge, mut at, mut tokens) = (new(), 0, 0);
        for cut in cuts.iter().cycle() {
            let stop = (at + cut).min(bytes.len());
            let (before, was) = (gauge.reading().token_frames, gauge.dialect());
            let token = gauge.feed(&bytes[at..stop], Duration::ZERO).token;
            let after = gauge.reading().token_frames;
            // What was taken for tokens by guess is taken back once the stream shows what it is.
            tokens = if was != gauge.dialect() || after < before { u64::from(after > 0) } else { tokens + u64::from(token) };
            at = stop;

            let mut at_once = new();
            at_once.feed(&bytes[..at], Duration::ZERO);
            prop_assert_eq!(gauge.at_boundary(), at_once.at_boundary(), "after {} bytes", at);
            prop_assert_eq!(gauge.reading(), at_once.reading(), "after {} bytes", at);
            prop_assert_eq!(gauge.closing(), at_once.closing(), "after {} bytes", at);
            if at == bytes.len() {
                break;
            }
        }
        prop_assert!(tokens <= gauge.reading().token_frames);
        prop_assert_eq!(tokens > 0, gauge.reading().token_frames > 0, "progress tells of tokens");
        gauge.finish(end, Duration::ZERO);
        prop_assert_eq!(gauge.reading(), &whole(new(), &bytes, end));
        prop_assert_eq!(gauge.reading().bytes, bytes.len() as u64);
        prop_assert!(gauge.reading().error.is_none() || !gauge.reading().normal_end);
        prop_assert_eq!(gauge.reading().usage.is_known(), gauge.reading().usage_source == UsageSource::Reported);
    }

    #[test]
    fn no_bytes_are_too_odd(
        bytes in prop::collection::vec(any::<u8>(), 0..3_000),
        dialect in prop::sample::select(Dialect::ALL.to_vec()),
        framing in prop::sample::select([FRAMINGS.as_slice(), &[Framing::Opaque]].concat()),
        size in 1usize..500,
    ) {
        let mut gauge = gauge(dialect, framing);
        for piece in bytes.chunks(size) {
            gauge.feed(piece, Duration::ZERO);
        }
        gauge.finish(StreamEnd::Clean, Duration::ZERO);
        prop_assert_eq!(gauge.reading().bytes, bytes.len() as u64);
    }
}
