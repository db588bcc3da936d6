//! Counts prompts so that nobody else waits: long ones off the threads that serve, and only so many at once.

use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::llm::request::contents::Contents;
use crate::llm::token_count::{PromptSize, count_prompt};
use crate::llm::{Dialect, RequestFacts};

/// Longer bodies are counted off the serving threads: what a core does in half a millisecond.
const LONG_BYTES: usize = 16 << 10;

/// Long counts at one time. Beyond them a prompt goes by its bytes: waiting would cost it more than the exact number is worth.
static LONG_COUNTS: Semaphore = Semaphore::const_new(4);

/// The tokens of the prompt in a JSON body; `None` where its bytes must tell.
pub(crate) async fn prompt_tokens(dialect: Dialect, model: Option<&str>, body: &Bytes) -> Option<u64> {
    count_within(&LONG_COUNTS, dialect, model, body).await
}

/// What a JSON body brings along beside text, and how large its prompt is, where that is asked for.
pub(crate) async fn measure(
    facts: &RequestFacts,
    body: &Bytes,
    contents: bool,
    size: bool,
) -> (Contents, Option<PromptSize>) {
    let (dialect, model) = (facts.dialect, facts.model.as_deref());
    let read = move |model: Option<&str>, body: &[u8]| {
        let contents = if contents { Contents::read(body) } else { Contents::default() };
        (contents, size.then(|| PromptSize::of(dialect, model, body)))
    };
    if body.len() <= LONG_BYTES {
        return read(model, body);
    }
    let (kept, text) = (model.map(str::to_owned), body.clone());
    // There is no thread to be had, or the process ends.
    let read_here = |_| read(model, body);
    tokio::task::spawn_blocking(move || read(kept.as_deref(), &text)).await.unwrap_or_else(read_here)
}

async fn count_within(places: &'static Semaphore, dialect: Dialect, model: Option<&str>, body: &Bytes) -> Option<u64> {
    if body.len() <= LONG_BYTES {
        return count_prompt(dialect, model, body).map(|count| count.tokens);
    }
    let place = places.try_acquire().ok()?;
    let (model, body) = (model.map(str::to_owned), body.clone());
    // The place is free again when the count has ended, even where its client has gone.
    let counted = tokio::task::spawn_blocking(move || {
        let count = count_prompt(dialect, model.as_deref(), &body);
        drop(place);
        count
    });
    counted.await.ok()?.map(|count| count.tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn long_prompts_are_counted_while_there_is_a_place_and_go_by_their_bytes_beyond() {
        static PLACES: Semaphore = Semaphore::const_new(1);
        let prompt = |words: usize| Bytes::from(format!(r#"{{"prompt":"{}"}}"#, "river ".repeat(words)));
        let (short, long) = (prompt(10), prompt(4_000));
        assert!(long.len() > LONG_BYTES);
        let count = async |body: &Bytes| count_within(&PLACES, Dialect::OpenAiChat, Some("gpt-4o"), body).await;
        let whole = count_prompt(Dialect::OpenAiChat, Some("gpt-4o"), &long).map(|count| count.tokens);
        assert_eq!(count(&long).await, whole);
        let taken = PLACES.acquire().await.unwrap();
        assert_eq!(count(&long).await, None);
        assert!(count(&short).await.is_some());
        drop(taken);
        assert_eq!(count(&long).await, whole, "the place was given back");
    }
}
