//! Server-sent events: finds event boundaries and `data` fields in bytes that come in any pieces.
