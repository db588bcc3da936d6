//! Token counts by modality, as Google tells them: `[{"modality": "AUDIO", "tokenCount": 9}]`.

use serde::Deserialize;
use serde::de::SeqAccess;

use crate::llm::json::{Loose, Number, each, loose};

/// The tokens of sound among those that are told by modality; `None`: none of them are.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sound(pub(super) Option<u64>);

#[derive(Default, Deserialize)]
#[serde(default)]
struct OfModality {
    modality: IsSound,
    #[serde(alias = "tokenCount")]
    token_count: Number,
}

/// Whether a modality is sound: `AUDIO`, of Vertex AI also the number that stands for it.
#[derive(Default)]
struct IsSound(bool);

impl<'de> Loose<'de> for Sound {
    fn array<A: SeqAccess<'de>>(items: A) -> Result<Self, A::Error> {
        let mut sound = None;
        each(items, |OfModality { modality, token_count }| {
            let tokens = token_count.count().filter(|_| modality.0);
            sound = tokens.map(|tokens| tokens.saturating_add(sound.unwrap_or(0))).or(sound);
        })?;
        Ok(Self(sound))
    }
}

impl<'de> Loose<'de> for IsSound {
    fn text(text: &str) -> Self {
        Self(text == "AUDIO")
    }

    /// `Modality` of `google/cloud/aiplatform/v1/content.proto`.
    fn number(value: f64) -> Self {
        Self(value == 4.0)
    }
}

loose!(Sound, IsSound);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sound_is_told_from_the_rest() {
        for (json, sound) in [
            (r#"[{"modality":"TEXT","tokenCount":4},{"modality":"AUDIO","tokenCount":9}]"#, Some(9)),
            (r#"[{"modality":"AUDIO","token_count":9},{"modality":4,"tokenCount":2}]"#, Some(11)),
            (r#"[{"modality":"TEXT","tokenCount":4}]"#, None),
            (r#"[{"modality":"AUDIO","tokenCount":-1},{"modality":"AUDIO"},7,null]"#, None),
            (r#"{"modality":"AUDIO","tokenCount":9}"#, None),
        ] {
            assert_eq!(serde_json::from_str::<Sound>(json).unwrap().0, sound, "{json}");
        }
    }
}
