//! The maps of the request path.

use std::collections::HashMap;

/// A map that a request looks into: by a hash that is keyed by chance, as the standard one's, and takes a fifth of the time. Callers
/// may choose its keys.
pub type Map<K, V> = HashMap<K, V, ahash::RandomState>;
