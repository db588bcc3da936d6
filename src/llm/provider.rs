//! Who runs the models of an upstream, by the names of OpenTelemetry's GenAI conventions (`gen_ai.provider.name`), and for
//! those without one there by a name in the same style.

use std::str::SplitWhitespace;

use super::price::names::fits;

const FILE: &str = include_str!("providers.txt");

/// A provider that is known.
struct Known {
    name: &'static str,
    /// What the price catalogue calls it, where it lists its prices.
    catalogue: Option<&'static str>,
    /// The hosts of its API, as patterns.
    hosts: SplitWhitespace<'static>,
}

fn known() -> impl Iterator<Item = Known> {
    FILE.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let mut words = line.split_whitespace();
        Some(Known { name: words.next()?, catalogue: words.next().filter(|word| *word != "-"), hosts: words })
    })
}

/// Whose API answers at `host`, where that is known. `host` has no port.
pub fn at_host(host: &str) -> Option<&'static str> {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    // A pattern that takes all of a cloud stands behind the exact names in it.
    let exact = known().find(|known| known.hosts.clone().any(|name| name == host));
    let known = exact.or_else(|| known().find(|known| known.hosts.clone().any(|pattern| fits(pattern, &host))))?;
    Some(known.name)
}

/// What the price catalogue calls `provider`; a name that is not known is taken for one of the catalogue's own.
pub(super) fn in_catalogue(provider: &str) -> Option<&str> {
    known().find(|known| known.name == provider).map_or(Some(provider), |known| known.catalogue)
}

/// The longest name of a provider.
const NAME_MAX: usize = 64;

/// Whether `name` may be a provider's: it becomes a label.
pub fn is_name(name: &str) -> bool {
    (1..=NAME_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_tell_their_provider() {
        for (host, name) in [
            ("api.openai.com", Some("openai")),
            ("API.OpenAI.com.", Some("openai")),
            ("eu.api.openai.com", Some("openai")),
            ("team.openai.azure.com", Some("azure.ai.openai")),
            ("team.services.ai.azure.com", Some("azure.ai.inference")),
            ("models.inference.ai.azure.com", Some("github")),
            ("bedrock-runtime.eu-central-1.amazonaws.com", Some("aws.bedrock")),
            ("europe-west4-aiplatform.googleapis.com", Some("gcp.vertex_ai")),
            ("generativelanguage.googleapis.com", Some("gcp.gemini")),
            ("api.groq.com", Some("groq")),
            ("api.deepseek.com", Some("deepseek")),
            ("api.openai.com.evil.example", None),
            ("notapi.openai.com", None),
            ("127.0.0.1", None),
            ("fastapi", None),
            ("", None),
        ] {
            assert_eq!(at_host(host), name, "{host}");
        }
    }

    #[test]
    fn all_known_are_names_and_in_the_catalogue() {
        let mut names: Vec<_> = known().map(|known| known.name).collect();
        assert!(names.len() > 30 && names.iter().all(|name| is_name(name)), "{names:?}");
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), known().count());
        for known in known().filter(|known| known.catalogue.is_some()) {
            assert!(crate::llm::price::catalogue().lists_models_of(known.name), "{}", known.name);
        }
        assert!(!is_name("") && !is_name("Azure") && !is_name("a b") && !is_name(&"x".repeat(65)));
    }
}
