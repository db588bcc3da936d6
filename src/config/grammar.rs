//! Grammar of HTTP that the file and the requests must both obey.

/// Whether a text is a token (RFC 9110, 5.6.2), as methods and the names of headers are.
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

/// A text without its percent-encoding. `None`: a `%` without two hexadecimal digits, or what is decoded is no UTF-8.
pub fn percent_decoded(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let digits = part.get(..2).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(part.get(2..)?.as_bytes());
    }
    String::from_utf8(bytes).ok()
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
