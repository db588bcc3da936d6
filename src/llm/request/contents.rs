//! What a request brings along beside text: tools, pictures, sound. Read only where a route's conditions ask.

use std::cell::Cell;

use super::lenient_json::fold;
use crate::llm::walk_texts::{Role, Sink, walk};

/// What a request brings along beside text, in any dialect.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Contents {
    /// The model is offered at least one tool.
    pub tools: bool,
    /// A picture is in the prompt, in any of its messages.
    pub images: bool,
    /// Sound is.
    pub audio: bool,
}

impl Contents {
    /// Reads a JSON body. Of one that is no JSON, what stands before its fault counts.
    pub fn read(body: &[u8]) -> Self {
        let mut finder = Finder::default();
        walk(body, Role::Through, &mut finder);
        finder.found
    }

    /// What the files of a form are is told by what is asked for under its path.
    pub fn of_form(operation: Option<&str>) -> Self {
        let is = |operations: [&str; 2]| operation.is_some_and(|operation| operations.contains(&operation));
        Self {
            tools: false,
            images: is(["image_edit", "image_variation"]),
            audio: is(["transcription", "translation"]),
        }
    }
}

#[derive(Default)]
struct Finder {
    found: Contents,
    /// What the value is that is read next.
    next: Cell<Option<Thing>>,
}

/// What stands under a key of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Thing {
    Tools,
    Picture,
    Sound,
}

impl Finder {
    fn note(&mut self, thing: Thing) {
        match thing {
            Thing::Tools => self.found.tools = true,
            Thing::Picture => self.found.images = true,
            Thing::Sound => self.found.audio = true,
        }
    }
}

/// What stands under `key`, and whether that is a thing by itself.
fn place(key: &str, depth: usize) -> (Role, Option<Thing>) {
    let thing = match key {
        "messages" | "contents" | "content" | "parts" | "inline_data" | "inlineData" | "inlinedata" | "file_data"
        | "fileData" | "filedata" => return (Role::Through, None),
        "input" | "inputs" if depth == 1 => return (Role::Through, None),
        "type" | "mime_type" | "mimeType" | "mimetype" if depth > 1 => return (Role::Kind, None),
        "tools" | "functions" | "toolConfig" | "toolconfig" if depth == 1 => Thing::Tools,
        "image_url" | "image" | "images" => Thing::Picture,
        "input_audio" | "audio_url" => Thing::Sound,
        // The body's own says how the answer is to sound.
        "audio" if depth > 1 => Thing::Sound,
        _ => return (Role::Skip, None),
    };
    (Role::Raw, Some(thing))
}

impl Sink for Finder {
    fn role(&self, key: &str, depth: usize) -> Role {
        let (role, thing) = match place(key, depth) {
            // Some backends read keys without regard to case.
            (Role::Skip, _) => fold(key).map_or((Role::Skip, None), |key| place(&key, depth)),
            known => known,
        };
        self.next.set(thing);
        role
    }

    /// A thing as it is written: an empty list of tools is none.
    fn text(&mut self, raw: &str) {
        let is_there = raw.bytes().any(|byte| byte.is_ascii_alphanumeric()) && !matches!(raw, "null" | "false");
        if let Some(thing) = self.next.take().filter(|_| is_there) {
            self.note(thing);
        }
    }

    fn kind(&mut self, word: &str) {
        match word {
            "image" | "image_url" | "input_image" => self.note(Thing::Picture),
            "audio" | "audio_url" | "input_audio" => self.note(Thing::Sound),
            mime if mime.starts_with("image/") => self.note(Thing::Picture),
            mime if mime.starts_with("audio/") => self.note(Thing::Sound),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(body: &str) -> (bool, bool, bool) {
        let Contents { tools, images, audio } = Contents::read(body.as_bytes());
        (tools, images, audio)
    }

    #[test]
    fn tools_are_seen_in_every_dialect_and_empty_ones_are_none() {
        for body in [
            r#"{"tools":[{"type":"function","function":{"name":"f"}}],"messages":[]}"#,
            r#"{"functions":[{"name":"f"}]}"#,
            r#"{"Tools":[{"name":"f"}]}"#,
            r#"{"contents":[],"tools":[{"functionDeclarations":[{"name":"f"}]}]}"#,
            r#"{"toolConfig":{"tools":[{"toolSpec":{"name":"f"}}]}}"#,
        ] {
            assert_eq!(found(body), (true, false, false), "{body}");
        }
        for body in [
            r#"{"tools":[],"messages":[]}"#,
            r#"{"tools":null}"#,
            r#"{"tools":[{}]}"#,
            r#"{"messages":[{"tools":["x"],"content":"tools"}]}"#,
        ] {
            assert_eq!(found(body), (false, false, false), "{body}");
        }
    }

    #[test]
    fn pictures_and_sound_are_seen_in_every_dialect() {
        for body in [
            r#"{"messages":[{"content":[{"type":"image_url","image_url":{"url":"data:x"}}]}]}"#,
            r#"{"messages":[{"content":[{"type":"tool_result","content":[{"type":"image","source":{"data":"x"}}]}]}]}"#,
            r#"{"input":[{"role":"user","content":[{"type":"input_image","file_id":"f"}]}]}"#,
            r#"{"contents":[{"parts":[{"inline_data":{"mime_type":"image/png","data":"x"}}]}]}"#,
            r#"{"contents":[{"parts":[{"fileData":{"mimeType":"image/png","fileUri":"x"}}]}]}"#,
            r#"{"messages":[{"content":"what is it","images":["QUJD"]}]}"#,
            r#"{"messages":[{"content":[{"image":{"format":"png","source":{"bytes":"x"}}}]}]}"#,
        ] {
            assert_eq!(found(body), (false, true, false), "{body}");
        }
        for body in [
            r#"{"messages":[{"content":[{"type":"input_audio","input_audio":{"data":"x","format":"wav"}}]}]}"#,
            r#"{"contents":[{"parts":[{"inlineData":{"mimeType":"audio/mp3","data":"x"}}]}]}"#,
            r#"{"messages":[{"role":"assistant","audio":{"id":"a1"}}]}"#,
        ] {
            assert_eq!(found(body), (false, false, true), "{body}");
        }
        for body in [
            r#"{"messages":[{"content":"image_url"}],"audio":{"voice":"alloy"},"type":"image"}"#,
            r#"{"messages":[{"content":"x","images":[]}]}"#,
            r#"{"messages":[{"content":[{"type":"tool_use","input":{"type":"image","image":"a"}}]}]}"#,
            r#"{"contents":[{"parts":[{"inline_data":{"mime_type":"application/pdf","data":"x"}}]}]}"#,
        ] {
            assert_eq!(found(body), (false, false, false), "{body}");
        }
    }

    #[test]
    fn a_form_brings_what_its_path_takes() {
        assert!(Contents::of_form(Some("transcription")).audio && Contents::of_form(Some("image_edit")).images);
        assert_eq!((Contents::of_form(Some("chat")), Contents::of_form(None)), Default::default());
    }

    proptest! {
        #[test]
        fn any_body_is_survived(body in prop::collection::vec(any::<u8>(), 0..200)) {
            Contents::read(&body);
        }
    }
}
