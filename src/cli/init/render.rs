//! The configuration of what was chosen, and what to type next.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::json;

use super::found::Found;
use super::sample_request::Sample;
use super::server_kind::{Kind, Software};
use crate::config::defaults::DEFAULT_FILE;

/// Names of models that are told; the rest is counted.
const MODELS_TOLD: usize = 3;

/// Where the proxy will be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Places {
    /// The port on loopback for clients.
    pub(super) listen: u16,
    /// The same of the admin address.
    pub(super) admin: u16,
}

/// What a server is, in words.
pub(super) fn words(kind: &Kind) -> String {
    match kind {
        Kind::App { title, operations, .. } => format!("app {title:?} with {operations} operations (/openapi.json)"),
        Kind::Models { software, models } => match models.get(MODELS_TOLD..).unwrap_or_default().len() {
            0 if models.is_empty() => format!("{}, without a model", software.words()),
            0 => format!("{}: {}", software.words(), models.join(", ")),
            more => {
                format!(
                    "{}: {} and {more} more",
                    software.words(),
                    models.get(..MODELS_TOLD).unwrap_or_default().join(", ")
                )
            }
        },
        Kind::Streamgauge => "Streamgauge itself".to_owned(),
        Kind::OtherHttp => "speaks HTTP, neither an app with /openapi.json nor a server of models".to_owned(),
    }
}

/// A server with the names that it has in the file.
struct Named<'a> {
    found: &'a Found,
    upstream: String,
    /// What stands before its paths; empty of the first, which has all other requests.
    prefix: String,
}

fn named(chosen: &[Found]) -> Vec<Named<'_>> {
    let mut named: Vec<Named<'_>> = Vec::new();
    for found in chosen {
        let name = base_name(found);
        let before = chosen.iter().take(named.len()).filter(|other| base_name(other) == name).count();
        let upstream = if before == 0 { name.to_owned() } else { format!("{name}-{}", before + 1) };
        let prefix = if named.is_empty() { String::new() } else { format!("/{upstream}") };
        named.push(Named { found, upstream, prefix });
    }
    named
}

fn base_name(found: &Found) -> &'static str {
    match &found.kind {
        Kind::Models { software, .. } => software.name(),
        _ => "app",
    }
}

/// The file: one upstream for each server, all requests to the first, those below a prefix to the others.
pub(super) fn config(chosen: &[Found], places: Places) -> String {
    let named = named(chosen);
    let mut out = format!(
        "\
# Streamgauge's configuration, written by `streamgauge init`.
# Lines that start with # and no space are examples: remove the # to use them. The file is reloaded when it changes, and
# `streamgauge check` reports all problems in it; `streamgauge schema` is for editors.

[server]
# Where clients connect.
listen = \"127.0.0.1:{}\"
# The live view, metrics, health and the admin API.
admin = \"127.0.0.1:{}\"
",
        places.listen, places.admin
    );
    for server in &named {
        upstream(&mut out, server);
    }
    out.push_str("\n# The first route that matches a request is used.\n");
    for server in named.iter().skip(1) {
        let Named { upstream, prefix, .. } = server;
        let _ = write!(
            out,
            "[[route]]\nname = \"{upstream}\"\npath = \"{prefix}/*\"\n# Without the prefix: {prefix}/v1/models is /v1/models there.\n\
             targets = [{{ upstream = \"{upstream}\", path = \"/\" }}]\n\n"
        );
    }
    for first in named.iter().take(1) {
        let _ = write!(
            out,
            "[[route]]\nname = \"{0}\"\npath = \"*\"\ntargets = [{{ upstream = \"{0}\" }}]\n\
             # How long a client waits for the first token, and for the next one.\n#timeouts = {{ first_token = \"60s\", stall = \"2m\" }}\n\
             # A limit for each user: it needs [[limit]] below.\n#limits = [\"per-user\"]\n",
            first.upstream
        );
    }
    out.push_str("\n#[[limit]]\n#name = \"per-user\"\n#tokens_per_minute = 60_000\n#concurrent = 10\n");
    out
}

fn upstream(out: &mut String, server: &Named<'_>) {
    let Named { found, upstream, .. } = server;
    let _ = write!(
        out,
        "\n# {}\n[[upstream]]\nname = \"{upstream}\"\nurl = \"{}\"\n",
        words(&found.kind).replace(char::is_control, " "),
        found.url()
    );
    match &found.kind {
        Kind::Models { software: Software::Other, .. } => {
            out.push_str("# Who runs its models, by OpenTelemetry's name.\n#provider = \"vllm\"\n");
        }
        Kind::Models { software, .. } => {
            let _ = writeln!(out, "# Who runs its models: its prices are no hosted API's.\nprovider = \"{}\"", software.name());
        }
        _ => out.push_str(
            "# If its stream's format is not recognised: where in each event the text is, and what ends it. `streamgauge read` tells.\n\
             #stream = { text = \"/token\", done = \"[DONE]\" }\n\
             # Taken out of service while this is not answered with 2xx or 3xx.\n#health = { path = \"/health\", interval = \"5s\" }\n",
        ),
    }
}

/// What to type next, with `file` as the configuration: start, one request, and the places where others are told of the proxy.
pub(super) fn next_steps(chosen: &[Found], places: Places, file: &Path) -> String {
    let (url, admin) = (format!("http://127.0.0.1:{}", places.listen), format!("127.0.0.1:{}", places.admin));
    let named = named(chosen);
    let run = if file == Path::new(DEFAULT_FILE) {
        "streamgauge run".to_owned()
    } else {
        format!("streamgauge run --config {}", quoted(&file.display().to_string()))
    };
    let mut out = format!("\nStart it\n  {run}\n");
    if let Some(first) = named.first() {
        let _ = write!(out, "One request, of which http://{admin} then shows the anatomy\n  {}\n", curl(&url, first));
    }
    let sdk = named.iter().find(|server| matches!(server.found.kind, Kind::Models { .. }));
    let prefix = sdk.map_or("", |server| &server.prefix);
    let _ = write!(
        out,
        "\nnext.config.js\n  module.exports = {{ rewrites: async () => [{{ source: \"/api/:path*\", destination: \"{url}/api/:path*\" }}] }};\n\
         OpenAI's SDK\n  client = OpenAI(base_url=\"{url}{prefix}/v1\", api_key=\"unused\")\n\
         prometheus.yml\n  scrape_configs: [{{ job_name: streamgauge, static_configs: [{{ targets: [\"{admin}\"] }}] }}]\n"
    );
    out
}

fn curl(url: &str, server: &Named<'_>) -> String {
    let at = |path: &str| format!("curl -N {url}{}{path}", server.prefix);
    let with = |path: &str, body: &serde_json::Value| {
        format!("{} -H 'content-type: application/json' -d {}", at(path), quoted(&body.to_string()))
    };
    match &server.found.kind {
        Kind::Models { models, .. } => {
            let model = models.first().map_or("MODEL", String::as_str);
            let messages = json!([{"role": "user", "content": "hello"}]);
            with("/v1/chat/completions", &json!({"model": model, "stream": true, "messages": messages}))
        }
        Kind::App { sample: Some(Sample::Post { path, body: Some(body) }), .. } => with(path, body),
        Kind::App { sample: Some(Sample::Post { path, body: None }), .. } => format!("{} -X POST", at(path)),
        Kind::App { sample: Some(Sample::Get { path }), .. } => at(path),
        _ => at("/"),
    }
}

/// One word of a shell, whatever is in it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    const PLACES: Places = Places { listen: 8080, admin: 9090 };

    fn found(port: u16, kind: Kind) -> Found {
        Found { address: ([127, 0, 0, 1], port).into(), kind }
    }

    fn app(title: &str, sample: Option<Sample>) -> Kind {
        Kind::App { title: title.to_owned(), operations: 3, sample }
    }

    fn models(software: Software, models: &[&str]) -> Kind {
        Kind::Models { software, models: models.iter().map(|model| (*model).to_owned()).collect() }
    }

    fn all() -> Vec<Found> {
        vec![
            found(8000, app("Chat\n[[upstream]]\u{7}\"", None)),
            found(8001, models(Software::Vllm, &["a", "b", "c", "d", "e"])),
            found(8002, models(Software::Vllm, &["a"])),
            found(11_434, models(Software::Ollama, &[])),
            found(9000, models(Software::Other, &["it's"])),
            found(3000, Kind::OtherHttp),
        ]
    }

    fn checked(text: &str) -> config::Settings {
        let none = |_: &str| None;
        let no_file = |_: &Path| Err(std::io::ErrorKind::NotFound.into());
        config::parse(text, "streamgauge.toml", &none, &no_file).unwrap_or_else(|problems| panic!("{problems}\n{text}"))
    }

    #[test]
    fn the_file_is_good_whatever_was_found_and_so_are_its_examples() {
        let all = all();
        for count in 1..=all.len() {
            for skipped in 0..all.len() {
                let chosen: Vec<Found> = all.iter().cycle().skip(skipped).take(count).cloned().collect();
                let text = config(&chosen, PLACES);
                let settings = checked(&text);
                assert_eq!((settings.upstreams.len(), settings.routes.len()), (count, count));
                let uncommented: String = text
                    .lines()
                    .map(|line| {
                        line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line).to_owned() + "\n"
                    })
                    .collect();
                assert!(uncommented.lines().count() == text.lines().count() && uncommented != text);
                checked(&uncommented);
            }
        }
    }

    #[test]
    fn the_first_gets_all_and_each_other_has_a_prefix() {
        let text = config(&all(), PLACES);
        for line in [
            "url = \"http://127.0.0.1:8000\"",
            "path = \"/vllm/*\"",
            "path = \"/vllm-2/*\"",
            "name = \"app-2\"",
            "provider = \"ollama\"",
            "# vLLM: a, b, c and 2 more",
            "# Ollama, without a model",
        ] {
            assert!(text.lines().any(|other| other == line), "no {line} in:\n{text}");
        }
        assert_eq!(checked(&text).routes.last().unwrap().name.to_string(), "app");
    }

    #[test]
    fn the_next_steps_can_be_typed() {
        let sample = Sample::Post { path: "/api/chat".to_owned(), body: Some(json!({"message": "it's"})) };
        let told = next_steps(
            &[found(8000, app("Chat", Some(sample))), found(8001, models(Software::Vllm, &["m"]))],
            PLACES,
            Path::new("a b.toml"),
        );
        for line in [
            "  streamgauge run --config 'a b.toml'",
            r#"  curl -N http://127.0.0.1:8080/api/chat -H 'content-type: application/json' -d '{"message":"it'\''s"}'"#,
            r#"  module.exports = { rewrites: async () => [{ source: "/api/:path*", destination: "http://127.0.0.1:8080/api/:path*" }] };"#,
            r#"  client = OpenAI(base_url="http://127.0.0.1:8080/vllm/v1", api_key="unused")"#,
            r#"  scrape_configs: [{ job_name: streamgauge, static_configs: [{ targets: ["127.0.0.1:9090"] }] }]"#,
        ] {
            assert!(told.lines().any(|other| other == line), "no {line} in:\n{told}");
        }
        let told = next_steps(
            &[found(11_434, models(Software::Ollama, &["llama3.2:1b"]))],
            PLACES,
            Path::new("streamgauge.toml"),
        );
        assert!(told.contains("\n  streamgauge run\n") && told.contains("8080/v1/chat/completions -H"), "{told}");
        assert!(
            told.contains(r#""model":"llama3.2:1b""#) && told.contains("base_url=\"http://127.0.0.1:8080/v1\""),
            "{told}"
        );
        let other = next_steps(&[found(3000, Kind::OtherHttp)], PLACES, Path::new("streamgauge.toml"));
        assert!(other.contains("  curl -N http://127.0.0.1:8080/\n"), "{other}");
    }
}
