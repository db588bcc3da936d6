//! Grammar of HTTP that the file and the requests must both obey.

/// Whether a text is a token (RFC 9110, 5.6.2), as methods and the names of headers are.
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens() {
        for text in ["GET", "x-user-id", "x_y", "!#$%&'*+-.^_`|~"] {
            assert!(is_token(text.as_bytes()), "{text}");
        }
        for text in ["", "a b", "a:", "a\n", "ä", "a,b", "\"a\"", "a/b", "\u{7f}"] {
            assert!(!is_token(text.as_bytes()), "{text}");
        }
    }
}
