//! Credentials among the subprotocols of a WebSocket: browsers can send none in another header.

use crate::config::identity::KEY_PREFIX;

pub const HEADER: &str = "sec-websocket-protocol";

/// What stands before a credential: OpenAI's, and what apps took over from each other.
const PREFIXES: [&str; 5] = [
    "openai-insecure-api-key.",
    "bearer.",
    "authorization.bearer.",
    "access_token.",
    "base64url.bearer.authorization.",
];

/// The credential in one subprotocol.
fn credential(offer: &str) -> Option<&str> {
    let after = |prefix: &&str| {
        let (start, rest) = offer.split_at_checked(prefix.len())?;
        start.eq_ignore_ascii_case(prefix).then_some(rest)
    };
    PREFIXES.iter().find_map(after).or_else(|| offer.starts_with(KEY_PREFIX).then_some(offer))
}

/// The credentials in the values of the header.
pub fn credentials<'a>(values: impl Iterator<Item = &'a str>) -> impl Iterator<Item = &'a str> {
    values.flat_map(offers).filter_map(credential)
}

/// The other subprotocols, as one value; `None` where there is no other.
pub fn without_credentials<'a>(values: impl Iterator<Item = &'a str>) -> Option<String> {
    let rest: Vec<&str> = values.flat_map(offers).filter(|offer| credential(offer).is_none()).collect();
    (!rest.is_empty()).then(|| rest.join(", "))
}

fn offers(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|offer| !offer.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_told_from_protocols() {
        let values = || {
            ["realtime, openai-insecure-api-key.sg-abc", "Bearer.x.y.z,sg-own , openai-beta.realtime-v1"].into_iter()
        };
        assert_eq!(credentials(values()).collect::<Vec<_>>(), ["sg-abc", "x.y.z", "sg-own"]);
        assert_eq!(without_credentials(values()).as_deref(), Some("realtime, openai-beta.realtime-v1"));
        assert_eq!(without_credentials(["sg-own"].into_iter()), None);
        assert_eq!(without_credentials(["graphql-ws,é"].into_iter()).as_deref(), Some("graphql-ws, é"));
    }
}
