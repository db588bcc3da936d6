//! Who runs the models of an upstream, by the names of OpenTelemetry's GenAI conventions (`gen_ai.provider.name`), and for
//! those without one there by a name in the same style.

use super::price::names::fits;

/// A provider that is known.
struct Known {
    name: &'static str,
    /// What the price catalogue calls it, where it lists its prices.
    catalogue: Option<&'static str>,
    /// The hosts of its API, as patterns.
    hosts: &'static [&'static str],
}

const fn known(name: &'static str, catalogue: Option<&'static str>, hosts: &'static [&'static str]) -> Known {
    Known { name, catalogue, hosts }
}

/// All that are known. Of two that share a host the first is taken for it.
const KNOWN: [Known; 35] = [
    known("openai", Some("openai"), &["api.openai.com", "*.api.openai.com"]),
    known("anthropic", Some("anthropic"), &["api.anthropic.com"]),
    known("azure.ai.openai", Some("azure"), &["*.openai.azure.com", "*.openai.azure.us"]),
    known(
        "azure.ai.inference",
        Some("azure"),
        &[
            "*.services.ai.azure.com",
            "*.models.ai.azure.com",
            "*.inference.ai.azure.com",
            "*.cognitiveservices.azure.com",
        ],
    ),
    known("aws.bedrock", Some("aws"), &["bedrock-runtime.*.amazonaws.com", "bedrock-runtime-fips.*.amazonaws.com"]),
    known("gcp.gemini", Some("google"), &["generativelanguage.googleapis.com"]),
    known("gcp.vertex_ai", Some("google"), &["aiplatform.googleapis.com", "*-aiplatform.googleapis.com"]),
    known("gcp.gen_ai", Some("google"), &[]),
    known("cohere", Some("cohere"), &["api.cohere.com", "api.cohere.ai"]),
    known("deepseek", Some("deepseek"), &["api.deepseek.com"]),
    known("groq", Some("groq"), &["api.groq.com"]),
    known("ibm.watsonx.ai", None, &["*.ml.cloud.ibm.com"]),
    known("mistral_ai", Some("mistral"), &["api.mistral.ai", "codestral.mistral.ai"]),
    known("moonshot_ai", Some("moonshotai"), &["api.moonshot.ai", "api.moonshot.cn"]),
    known("perplexity", Some("perplexity"), &["api.perplexity.ai"]),
    known("x_ai", Some("x-ai"), &["api.x.ai", "*.api.x.ai"]),
    known("alibaba_cloud", None, &["dashscope.aliyuncs.com", "dashscope-*.aliyuncs.com"]),
    known("baseten", Some("baseten"), &["inference.baseten.co"]),
    known("cerebras", Some("cerebras"), &["api.cerebras.ai"]),
    known("cloudflare", Some("cloudflare"), &["api.cloudflare.com"]),
    known(
        "databricks",
        Some("databricks"),
        &["*.cloud.databricks.com", "*.azuredatabricks.net", "*.gcp.databricks.com"],
    ),
    known("deepinfra", None, &["api.deepinfra.com"]),
    known("fireworks", Some("fireworks"), &["api.fireworks.ai"]),
    known("github", None, &["models.github.ai", "models.inference.ai.azure.com"]),
    known("github.copilot", Some("github-copilot"), &["api.githubcopilot.com"]),
    known("huggingface", None, &["router.huggingface.co", "*.endpoints.huggingface.cloud"]),
    known("minimax", Some("minimax"), &["api.minimax.io", "api.minimaxi.com"]),
    known("novita", Some("novita"), &["api.novita.ai"]),
    known("nvidia", None, &["integrate.api.nvidia.com"]),
    known("openrouter", Some("openrouter"), &["openrouter.ai", "api.openrouter.ai"]),
    known("replicate", None, &["api.replicate.com"]),
    known("together", Some("together"), &["api.together.xyz", "api.together.ai"]),
    known("voyage_ai", Some("voyageai"), &["api.voyageai.com"]),
    known("z_ai", Some("zai"), &["api.z.ai"]),
    known("zhipu_ai", Some("zhipuai"), &["open.bigmodel.cn"]),
];

/// Whose API answers at `host`, where that is known. `host` has no port.
pub fn at_host(host: &str) -> Option<&'static str> {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    // A pattern that takes all of a cloud stands behind the exact names in it.
    let exact = KNOWN.iter().find(|known| known.hosts.contains(&host.as_str()));
    let known = exact.or_else(|| KNOWN.iter().find(|known| known.hosts.iter().any(|pattern| fits(pattern, &host))))?;
    Some(known.name)
}

/// What the price catalogue calls `provider`; a name that is not known is taken for one of the catalogue's own.
pub(super) fn in_catalogue(provider: &str) -> Option<&str> {
    KNOWN.iter().find(|known| known.name == provider).map_or(Some(provider), |known| known.catalogue)
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
        let mut names: Vec<_> = KNOWN.iter().map(|known| known.name).collect();
        assert!(names.iter().all(|name| is_name(name)), "{names:?}");
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), KNOWN.len());
        for known in KNOWN.iter().filter(|known| known.catalogue.is_some()) {
            assert!(crate::llm::price::catalogue().lists_models_of(known.name), "{}", known.name);
        }
        assert!(!is_name("") && !is_name("Azure") && !is_name("a b") && !is_name(&"x".repeat(65)));
    }
}
