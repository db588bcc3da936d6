//! The kind of a request's body: by its headers and by its first bytes, since backends differ in which of the two they
//! use.

use super::form::FormKind;
use super::parameters::parameters;

/// What `Content-Type` says of a body. Each of several values counts: backends differ in which they take.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels {
    pub json: bool,
    pub form: Option<FormKind>,
    /// A form, and something else or another form beside it, or one whose parts cannot be told apart.
    pub is_torn: bool,
    /// An encoding in which JSON's own signs are others than in ASCII and Unicode.
    pub odd_charset: bool,
}

/// Encodings that leave JSON's signs alone, or that are known by their first bytes.
const CHARSETS: [&str; 9] =
    ["utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "latin1", "windows-1252", "utf-16", "utf-32"];

impl Labels {
    pub fn read<'a>(content_types: impl Iterator<Item = &'a str>) -> Self {
        let mut labels = Self::default();
        let mut count = 0;
        for label in content_types {
            count += 1;
            let (essence, labelled) = label.split_once(';').unwrap_or((label, ""));
            let essence = essence.trim();
            labels.json |= essence.eq_ignore_ascii_case("application/json")
                || essence.eq_ignore_ascii_case("text/json")
                || essence.len() > 5 && essence.to_ascii_lowercase().ends_with("+json");
            let form = FormKind::of_label(label);
            labels.is_torn |= form.is_none() && essence.eq_ignore_ascii_case("multipart/form-data");
            labels.form = labels.form.or(form);
            labels.odd_charset |= !labelled.is_empty() && has_odd_charset(labelled);
        }
        labels.is_torn |= labels.form.is_some() && count > 1;
        labels
    }
}

fn has_odd_charset(labels: &str) -> bool {
    let Some(found) = parameters(labels) else { return labels.to_ascii_lowercase().contains("charset") };
    let is_known = |value: &str| {
        let name = value.trim_matches(['"', '\'']).to_ascii_lowercase();
        let name = name.strip_suffix("le").or_else(|| name.strip_suffix("be")).unwrap_or(&name);
        CHARSETS.contains(&name)
    };
    // Some readers understand `charset*`, too.
    let mut charsets = found.iter().filter(|(name, _)| name.starts_with("charset"));
    charsets.any(|(name, value)| name != "charset" || !is_known(value))
}

/// How a body begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beginning {
    /// As a JSON object does, in whatever encoding.
    Json,
    Other,
    /// Only with spaces so far.
    Open,
}

impl Beginning {
    /// Looks at the first bytes of a body. Spaces, marks of byte order, and the zeros of wide characters say nothing.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let says_nothing =
            |byte: &&u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | 0 | 0xef | 0xbb | 0xbf | 0xfe | 0xff);
        match bytes.iter().find(|byte| !says_nothing(byte)) {
            Some(b'{') => Self::Json,
            Some(_) => Self::Other,
            None => Self::Open,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(labels: &[&str]) -> Labels {
        Labels::read(labels.iter().copied())
    }

    #[test]
    fn every_label_counts() {
        assert_eq!(read(&[]), Labels::default());
        assert!(read(&["text/plain", "Application/JSON; charset=UTF-8"]).json);
        assert!(read(&["application/vnd.x+json"]).json && !read(&["+json"]).json);
        let form = "application/x-www-form-urlencoded";
        assert_eq!(read(&[form]).form, Some(FormKind::UrlEncoded));
        assert!(!read(&[form]).is_torn && read(&[form, "text/plain"]).is_torn);
        assert!(read(&["multipart/form-data"]).is_torn, "without a boundary");
    }

    #[test]
    fn charsets_that_hide_json_are_odd() {
        for (charset, odd) in [
            ("utf-8", false),
            ("\"UTF-8\"", false),
            ("utf-16le", false),
            ("UTF-32", false),
            ("utf-7", true),
            ("ibm500", true),
            ("", true),
        ] {
            assert_eq!(read(&[&format!("application/json; charset={charset}")]).odd_charset, odd, "{charset}");
        }
        for (label, odd) in [
            ("application/json; x=utf-7", false),
            ("application/json; x=\"; charset=utf-7\"", false),
            ("application/json; charset*=utf-8''utf-7", true),
            ("application/json; charset=utf-8; charset=utf-7", true),
            ("application/json; charset", true),
        ] {
            assert_eq!(read(&[label]).odd_charset, odd, "{label}");
        }
    }

    #[test]
    fn json_begins_with_a_brace_in_any_encoding() {
        for (bytes, expected) in [
            (&b"{"[..], Beginning::Json),
            (b" \r\n\t{", Beginning::Json),
            (b"\xef\xbb\xbf{", Beginning::Json),
            (b"\xff\xfe{\0", Beginning::Json),
            (b"\0\0\0{", Beginning::Json),
            (b"", Beginning::Open),
            (b"  ", Beginning::Open),
            (b"[1]", Beginning::Other),
            (b"hello", Beginning::Other),
            (b"\x1f\x8b", Beginning::Other),
        ] {
            assert_eq!(Beginning::of(bytes), expected, "{bytes:?}");
        }
    }
}
