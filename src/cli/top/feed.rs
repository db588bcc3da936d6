//! Reads the feed of a running proxy, again and again.

use std::io::{BufRead, Read};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::super::admin;
use super::model::{Frame, Overview};
use super::text;

/// Before another try.
const PAUSE: Duration = Duration::from_secs(1);

/// Longest line that is read, in bytes: a frame of 200 streams with the longest names has less.
const LINE_MAX: u64 = 4 << 20;

/// What the proxy told.
pub(super) enum Told {
    /// The feed begins anew.
    Hello {
        version: String,
        minutes: u64,
    },
    Overview(Box<Overview>),
    Streams(Box<Frame>),
    /// The feed is lost, and why. It is tried again.
    Lost(String),
}

/// Hands on what is told at a path, until `tell` wants no more.
pub(super) fn follow(admin: &str, path: &str, token: Option<&str>, tell: impl Fn(Told) -> bool) {
    loop {
        let why = read(admin, path, token, &tell);
        let Err(why) = why else { return };
        if !tell(Told::Lost(why)) {
            return;
        }
        thread::sleep(PAUSE);
    }
}

/// `Ok` when nobody listens any more.
fn read(admin: &str, path: &str, token: Option<&str>, tell: &impl Fn(Told) -> bool) -> Result<(), String> {
    let mut source = admin::stream(admin, path, token)?;
    let gone = |_| format!("{admin} went away or fell silent");
    let (mut name, mut line) = (String::new(), Vec::new());
    loop {
        line.clear();
        let read = (&mut source).take(LINE_MAX).read_until(b'\n', &mut line).map_err(gone)?;
        if read == 0 {
            return Err(format!("{admin} ended the feed: the proxy exits or restarts"));
        }
        let line = String::from_utf8_lossy(&line);
        if let Some(word) = line.strip_prefix("event: ") {
            word.trim_end().clone_into(&mut name);
        } else if let Some(data) = line.strip_prefix("data: ") {
            let told = parse(&name, data).ok_or("the proxy is of another version: its feed cannot be read")?;
            let told = told.map_err(|why| format!("{admin} ended the feed: {why}"))?;
            if told.is_some_and(|told| !tell(told)) {
                return Ok(());
            }
        }
    }
}

/// What an event tells, or why the feed ends; `Ok(None)`: it is of a later version. `None`: it cannot be read.
fn parse(name: &str, data: &str) -> Option<Result<Option<Told>, String>> {
    let mut data: Value = serde_json::from_str(data).ok()?;
    text::make_plain(&mut data);
    let word = |key: &str| data.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    Some(Ok(Some(match name {
        "hello" => Told::Hello {
            version: word("version"),
            minutes: data.get("percentiles_minutes").and_then(Value::as_u64).unwrap_or(5),
        },
        "end" => return Some(Err(word("why"))),
        "overview" => Told::Overview(serde_json::from_value(data).ok()?),
        "streams" => Told::Streams(serde_json::from_value(data).ok()?),
        _ => return Some(Ok(None)),
    })))
}
