//! What a backend says of its own time.

use std::time::Duration;

/// What a backend says of its own time: vLLM's `metrics`, llama.cpp's `timings`, Ollama's `*_duration`. It splits the time
/// that we see into network, queue and prefill. What the backend did not tell is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ServerTimings {
    /// The wait before the prompt was looked at.
    pub queue: Option<Duration>,
    /// The reading of the prompt.
    pub prefill: Option<Duration>,
    pub time_to_first_token: Option<Duration>,
    /// The writing of the answer.
    pub generation: Option<Duration>,
}

impl ServerTimings {
    /// Takes over what `later` tells.
    pub(super) fn update(&mut self, later: Self) {
        self.queue = later.queue.or(self.queue);
        self.prefill = later.prefill.or(self.prefill);
        self.time_to_first_token = later.time_to_first_token.or(self.time_to_first_token);
        self.generation = later.generation.or(self.generation);
    }
}
