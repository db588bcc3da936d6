//! `[cors]`.

use regex_lite::{Regex, RegexBuilder};

use super::super::defaults;
use super::super::file::CorsTable;
use super::super::grammar::is_token;
use super::super::read::Readable;
use super::super::settings::{Cors, OriginPattern};
use super::super::units::{At, Table};
use super::Checker;

impl Checker<'_> {
    pub(super) fn cors(&mut self, table: &Table<CorsTable>, readable: &Readable) -> Cors {
        let file = &table.value;
        let credentials = file.credentials.as_ref().is_some_and(|at| at.value);
        let is_lost = readable.is_lost(&table.span, "origins") || readable.is_lost(&table.span, "origin_patterns");
        if file.origins.is_empty() && file.origin_patterns.is_empty() && !is_lost {
            let message = "[cors] names nobody who may call: give `origins`, as [\"https://app.example.com\"], or \
                           `origin_patterns`; or remove [cors], and the backend's own CORS passes";
            self.problem(&table.span, message);
        }
        for at in &file.origins {
            self.origin(at, file.origins.len(), credentials);
        }
        let patterns = file.origin_patterns.iter().filter_map(|at| self.checked(&at.span, pattern(&at.value)));
        let origin_patterns = patterns.collect();
        Cors {
            origins: file.origins.iter().map(|at| at.value.clone()).collect(),
            origin_patterns,
            credentials,
            headers: self.cors_headers(file.headers.as_ref()),
            max_age: self.duration(file.max_age.as_ref(), defaults::CORS_MAX_AGE),
        }
    }

    fn origin(&mut self, at: &At<String>, origins: usize, credentials: bool) {
        if at.value != "*" {
            self.checked(&at.span, check_origin(&at.value));
        } else if origins > 1 {
            self.problem(&at.span, "\"*\" means every origin, so it stands alone");
        } else if credentials {
            let message = "every origin with `credentials = true` would let any web page read answers as its visitor: \
                           list the origins";
            self.problem(&at.span, message);
        }
    }

    fn cors_headers(&mut self, written: Option<&At<Vec<At<String>>>>) -> Vec<String> {
        let Some(list) = written else { return vec!["*".to_owned()] };
        for at in &list.value {
            if at.value == "*" && list.value.len() > 1 {
                self.problem(&at.span, "\"*\" means every header, so it stands alone");
            } else if !is_token(at.value.as_bytes()) {
                self.problem(&at.span, "not the name of a header, as \"content-type\"");
            }
        }
        list.value.iter().map(|at| at.value.to_ascii_lowercase()).collect()
    }
}

/// An origin is a scheme, a host and perhaps a port, as browsers write it.
fn check_origin(text: &str) -> Result<(), String> {
    let (scheme, authority) = text
        .split_once("://")
        .ok_or_else(|| "an origin starts with its scheme, as \"https://app.example.com\"".to_owned())?;
    if let Some((host, _)) = authority.split_once('/') {
        return Err(format!("an origin has no path and no slash at its end: write \"{scheme}://{host}\""));
    }
    if authority.contains('*') {
        return Err("`origins` are written out in full; for a pattern use `origin_patterns`".to_owned());
    }
    if text != text.to_ascii_lowercase() {
        return Err(format!("browsers write origins in lower case: \"{}\"", text.to_ascii_lowercase()));
    }
    // Extensions and apps have schemes of their own, as chrome-extension:// and capacitor://.
    if scheme.is_empty() || !scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b)) {
        return Err("an origin starts with its scheme, as \"https://app.example.com\"".to_owned());
    }
    let (_, port) = super::super::address::host_and_port(authority)?;
    match (scheme, port) {
        ("http", Some(80)) | ("https", Some(443)) => {
            Err("browsers leave the scheme's own port out: remove it".to_owned())
        }
        _ => Ok(()),
    }
}

/// Compiles a pattern that must match a whole origin.
fn pattern(source: &str) -> Result<OriginPattern, String> {
    // Alone first: `a)|(b` is a pattern only between the parentheses put around it.
    let compile =
        |text: &str| -> Result<Regex, regex_lite::Error> { RegexBuilder::new(text).size_limit(1 << 20).build() };
    let alone = compile(source).and_then(|_| compile(&format!("^(?:{source})$")));
    let regex = alone.map_err(|error| format!("not a regular expression: {error}"))?;
    Ok(OriginPattern { source: source.to_owned(), regex })
}
