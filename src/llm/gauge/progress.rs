//! What a chunk contained: tokens, other signs of work, the end.

/// The contents of one chunk, as far as timeouts and phases need them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// A token frame ended in this chunk.
    pub token: bool,
    /// An event ended in this chunk that is a sign of work: of a tool, a web search, a sub-agent.
    pub work: bool,
    /// An event ended in this chunk that the dialect does not have.
    pub unknown: bool,
    /// A frame ended in this chunk that is no token's.
    pub other: bool,
}

impl std::ops::BitOrAssign for Progress {
    fn bitor_assign(&mut self, more: Self) {
        self.token |= more.token;
        self.work |= more.work;
        self.unknown |= more.unknown;
        self.other |= more.other;
    }
}

impl Progress {
    /// Adds the progress of a chunk that came right after.
    pub fn add(&mut self, more: Self) {
        self.token |= more.token;
        self.work |= more.work;
        self.unknown |= more.unknown;
        self.other |= more.other;
    }

    /// Whether anything came that shows that work goes on. Pings, comments and empty deltas do not: a backend that hangs
    /// sends them too.
    pub fn tells_of_work(self) -> bool {
        self.token || self.work || self.unknown
    }
}
