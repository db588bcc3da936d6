//! The names of operations, as OpenTelemetry's GenAI conventions and this gateway have them (`gen_ai.operation.name`).

pub(super) const CHAT: &str = "chat";
pub(super) const TEXT_COMPLETION: &str = "text_completion";
pub(super) const EMBEDDINGS: &str = "embeddings";
pub(super) const GENERATE_CONTENT: &str = "generate_content";
pub(super) const COMPACTION: &str = "compaction";
pub(super) const MODERATION: &str = "moderation";
pub(super) const RERANK: &str = "rerank";
pub(super) const COUNT_TOKENS: &str = "count_tokens";
pub(super) const INVOKE_AGENT: &str = "invoke_agent";
/// An answer that was made before is asked for, or resumed; or ended before its time.
pub(super) const RETRIEVE: &str = "retrieve_response";
pub(super) const CANCEL: &str = "cancel_response";
/// What a tool found is given to an answer that waits for it.
pub(super) const CONTINUE: &str = "continue_response";
