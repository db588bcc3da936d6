//! Decisions. Pure: each takes the facts and the time, and returns what to do.
