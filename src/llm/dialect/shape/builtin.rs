//! The shapes that are built in: rule files that a person can read.

use std::sync::{Arc, LazyLock};

use super::compiled::Shape;
use super::rules::ShapeRules;

/// The rule files. Those that stand inside of others come first; of two that fit the same event the first counts.
const FILES: &[&str] = &[
    include_str!("shapes/langchain-message.toml"),
    include_str!("shapes/langchain-usage.toml"),
    include_str!("shapes/langserve-log.toml"),
    include_str!("shapes/langserve-events.toml"),
    include_str!("shapes/ag-ui.toml"),
    include_str!("shapes/langserve-log-stream.toml"),
    include_str!("shapes/langgraph.toml"),
    include_str!("shapes/langgraph-app.toml"),
    include_str!("shapes/langserve.toml"),
    include_str!("shapes/openai-agents.toml"),
    include_str!("shapes/agno.toml"),
    include_str!("shapes/mastra.toml"),
    include_str!("shapes/crewai.toml"),
    include_str!("shapes/a2a.toml"),
    include_str!("shapes/google-adk.toml"),
    include_str!("shapes/llamaindex.toml"),
    include_str!("shapes/haystack.toml"),
    include_str!("shapes/assistants.toml"),
    include_str!("shapes/gemini-interactions.toml"),
    include_str!("shapes/cohere-v2.toml"),
    include_str!("shapes/cohere-v1.toml"),
    include_str!("shapes/bedrock-chunk.toml"),
    include_str!("shapes/bedrock-converse.toml"),
    include_str!("shapes/bedrock-invoke.toml"),
    include_str!("shapes/watsonx.toml"),
    include_str!("shapes/dashscope.toml"),
    include_str!("shapes/workers-ai.toml"),
    include_str!("shapes/replicate.toml"),
    include_str!("shapes/writer.toml"),
    include_str!("shapes/tgi.toml"),
    include_str!("shapes/fastapi-events.toml"),
];

/// All shapes that are built in.
pub fn shapes() -> &'static [Arc<Shape>] {
    static SHAPES: LazyLock<Vec<Arc<Shape>>> = LazyLock::new(|| {
        let mut known: Vec<Arc<Shape>> = Vec::new();
        for text in FILES {
            // A file that is wrong is left out: the tests of this room show it.
            let Ok(rules) = toml::from_str::<ShapeRules>(text) else { continue };
            let by_name = |name: &str| known.iter().find(|shape| shape.name() == name).cloned();
            if let Ok(shape) = Shape::compile(&rules, &by_name) {
                known.push(Arc::new(shape));
            }
        }
        known
    });
    &SHAPES
}

/// The shape of that name, where it is built in.
pub fn built_in(name: &str) -> Option<&'static Arc<Shape>> {
    shapes().iter().find(|shape| shape.name() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_right_and_named_once() {
        for text in FILES {
            let rules: ShapeRules = toml::from_str(text).unwrap_or_else(|error| panic!("{text}\n{error}"));
            let compiled = Shape::compile(&rules, &|name| built_in(name).cloned());
            assert!(compiled.is_ok(), "{}: {:?}", rules.name, compiled.err());
            assert!(!rules.about.is_empty(), "{} says what it is", rules.name);
        }
        let mut names: Vec<_> = shapes().iter().map(|shape| shape.name()).collect();
        assert_eq!(names.len(), FILES.len());
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), FILES.len(), "each name once");
    }
}
