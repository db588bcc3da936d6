//! What goes over the wire: OpenAI-chat requests, answers and events, with a time stamp in each token event.

/// Body of a request for a whole JSON answer.
pub const ASK_JSON: &str = r#"{"model":"bench","messages":[{"role":"user","content":"How high is the river today?"}]}"#;

/// Stands in a prompt before what is wanted of a stream.
const PLAN_MARK: &[u8] = b"events=";

/// The JSON answer, status line to body.
pub const ANSWER_JSON: &str = concat!(
    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 266\r\n\r\n",
    r#"{"id":"chatcmpl-bench","object":"chat.completion","created":1700000000,"model":"bench","choices":[{"index":0,"#,
    r#""message":{"role":"assistant","content":"Two metres and ten."},"finish_reason":"stop"}],"#,
    r#""usage":{"prompt_tokens":14,"completion_tokens":5,"total_tokens":19}}"#,
);

/// Head of a streamed answer.
pub const STREAM_HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n";

const CHUNK_OPEN: &str = r#"{"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1700000000,"model":"bench","system_fingerprint":"fp_bench","#;
/// Stands before the 20 digits of a stamp, in token events only. No more of the event: some gateways write it anew, with other spaces.
const STAMP_MARK: &[u8] = br#"" @"#;
const STAMP_DIGITS: usize = 20;

/// Asks for a WebSocket. Key and accept are the example of RFC 6455.
pub fn ask_websocket(host: &str, path: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .into_bytes()
}

/// The answer to [`ask_websocket`].
pub const ANSWER_WEBSOCKET: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
    sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// A short text message of a client, masked with zeros, and one of a server.
pub const MESSAGE_OF_CLIENT: &[u8] = b"\x81\x85\0\0\0\0river";
pub const MESSAGE_OF_SERVER: &[u8] = b"\x81\x05river";

/// A request with a JSON body. `headers` are whole lines.
pub fn request(host: &str, path: &str, headers: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\naccept: */*\r\n\
         user-agent: loadgen\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Body of a request for a stream of `events`, `rate` a second. It is in the prompt, which every gateway passes on; a query is not.
pub fn ask_stream(events: u64, rate: f64) -> String {
    format!(
        r#"{{"model":"bench","messages":[{{"role":"user","content":"How high is the river? events={events}&rate={rate};"}}],"stream":true}}"#
    )
}

/// Which stream a request's body asks for, as events and events a second.
pub fn asked_stream(body: &[u8]) -> Option<(u64, f64)> {
    let plan = body.get(memchr::memmem::find(body, PLAN_MARK)? + PLAN_MARK.len()..)?;
    let plan = std::str::from_utf8(plan.get(..memchr::memchr(b';', plan)?)?).ok()?;
    let (events, rate) = plan.split_once("&rate=")?;
    Some((events.parse().ok()?, rate.parse().ok().filter(|rate| (0.0..=1e6).contains(rate))?))
}

/// The first event, which names the role and holds no token: one HTTP chunk.
pub fn role_event() -> String {
    event(r#""choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]"#)
}

/// A token event of some 200 bytes that holds `stamp` (nanoseconds of `CLOCK_MONOTONIC`): one HTTP chunk.
pub fn token_event(stamp: u64) -> String {
    event(&format!(r#""choices":[{{"index":0,"delta":{{"content":" @{stamp:020}"}},"finish_reason":null}}]"#))
}

/// What ends a stream: finish reason, usage if it was asked for, `[DONE]`, the last chunk.
pub fn end_events(usage: bool) -> String {
    let mut end = event(r#""choices":[{"index":0,"delta":{},"finish_reason":"stop"}]"#);
    if usage {
        end += &event(r#""choices":[],"usage":{"prompt_tokens":14,"completion_tokens":5,"total_tokens":19}"#);
    }
    end + &chunk("data: [DONE]\n\n") + "0\r\n\r\n"
}

/// Calls `on_stamp` with each stamp in `text` and returns how many bytes were dealt with; the rest is an event that has
/// not come whole. Whether `[DONE]` came is said too.
pub fn read_events(text: &[u8], mut on_stamp: impl FnMut(u64)) -> (usize, bool) {
    let mut at = 0;
    let mut done = false;
    while let Some(event) = text.get(at..).and_then(|rest| Some(rest.split_at(memchr::memmem::find(rest, b"\n\n")?).0))
    {
        done |= event == b"data: [DONE]";
        if let Some(stamp) = stamp(event) {
            on_stamp(stamp);
        }
        at += event.len() + 2;
    }
    (at, done)
}

fn stamp(event: &[u8]) -> Option<u64> {
    let digits = event.get(memchr::memmem::find(event, STAMP_MARK)? + STAMP_MARK.len()..)?.get(..STAMP_DIGITS)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn event(rest: &str) -> String {
    chunk(&format!("data: {CHUNK_OPEN}{rest}}}\n\n"))
}

fn chunk(data: &str) -> String {
    format!("{:x}\r\n{data}\r\n", data.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_as_long_as_it_says() {
        let (head, body) = ANSWER_JSON.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{}", body.len());
    }

    #[test]
    fn a_prompt_asks_for_a_stream() {
        assert_eq!(asked_stream(ask_stream(3, 0.5).as_bytes()), Some((3, 0.5)));
        assert_eq!(asked_stream(ask_stream(100, 0.0).as_bytes()), Some((100, 0.0)));
        assert_eq!(asked_stream(ASK_JSON.as_bytes()), None);
        for broken in ["events=3&rate=-1;", "events=3&rate=NaN;", "events=3", "events=x&rate=1;"] {
            assert_eq!(asked_stream(broken.as_bytes()), None, "{broken}");
        }
    }

    #[test]
    fn stamps_come_back_wherever_the_stream_is_cut() {
        let data = |chunk: String| chunk.split_once("\r\n").unwrap().1.trim_end_matches("\r\n").to_owned();
        let text = data(role_event()) + &data(token_event(7)) + &data(token_event(u64::MAX)) + "data: [DONE]\n\n";
        for cut in 0..text.len() {
            let mut stamps = Vec::new();
            let (used, early) = read_events(&text.as_bytes()[..cut], |stamp| stamps.push(stamp));
            let (_, late) = read_events(&text.as_bytes()[used..], |stamp| stamps.push(stamp));
            assert_eq!((stamps, early, late), (vec![7, u64::MAX], false, true), "cut at {cut}");
        }
    }
}
