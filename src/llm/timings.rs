//! A backend's own timings.

use std::time::Duration;

/// What a backend says of its own time: vLLM's `metrics`, llama.cpp's `timings`, Ollama's `*_duration`, Groq's `*_time`. It
/// splits the time that we see into network, queue, prefill and decoding. What the backend did not tell is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ServerTimings {
    /// The wait for a place.
    pub queue: Option<Duration>,
    /// The loading of the model.
    pub load: Option<Duration>,
    /// The reading of the prompt; of vLLM from the end of the queue to the first token.
    pub prefill: Option<Duration>,
    /// The writing of the answer.
    pub generation: Option<Duration>,
}

impl ServerTimings {
    /// Each by its name.
    pub fn named(&self) -> [(&'static str, Option<Duration>); 4] {
        [("queue", self.queue), ("load", self.load), ("prefill", self.prefill), ("generation", self.generation)]
    }

    /// Takes over what `later` tells.
    pub(super) fn update(&mut self, later: Self) {
        self.queue = later.queue.or(self.queue);
        self.load = later.load.or(self.load);
        self.prefill = later.prefill.or(self.prefill);
        self.generation = later.generation.or(self.generation);
    }
}
