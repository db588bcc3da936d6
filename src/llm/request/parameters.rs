//! The parameters of a header's value, as `charset=utf-8` of a `Content-Type`.

/// Names, in lower case, and values of `text`, which is what stands behind the first semicolon. `None`: it is broken, or has an
/// escape, in which readers differ.
pub(super) fn parameters(text: &str) -> Option<Vec<(String, &str)>> {
    let (mut found, mut rest) = (Vec::new(), text);
    loop {
        rest = rest.trim_start_matches([' ', '\t', ';']);
        if rest.is_empty() {
            return Some(found);
        }
        let (name, after) = rest.split_once('=')?;
        let after = after.trim_start();
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_at(after.find(';').unwrap_or(after.len())),
        };
        let after = after.trim_start();
        if name.contains(['"', ';']) || value.contains('\\') || !(after.is_empty() || after.starts_with(';')) {
            return None;
        }
        found.push((name.trim().to_ascii_lowercase(), value.trim_end()));
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_be_quoted_and_hold_semicolons() {
        let read =
            |text| parameters(text).map(|found| found.into_iter().map(|(name, value)| name + "=" + value).collect());
        let some = |all: &[&str]| Some(all.iter().map(|one| (*one).to_owned()).collect::<Vec<String>>());
        assert_eq!(read(""), some(&[]));
        assert_eq!(read(" Charset=utf-8; boundary=\"a;b\" ;"), some(&["charset=utf-8", "boundary=a;b"]));
        assert_eq!(read("x=\"; boundary=b\""), some(&["x=; boundary=b"]));
        assert_eq!(read("x = y"), some(&["x=y"]));
        for broken in ["x", "x=\"y", "x=\"y\"z", "x=\"\\\"; boundary=b\"", "x; y=z"] {
            assert_eq!(read(broken), None, "{broken}");
        }
    }
}
