//! What is said on a terminal, or to a program.

use std::io::Write;

use crate::telemetry::json;

/// Our own words with others' names in them, for a terminal: nothing but line breaks and tabs steers it.
fn plain(text: &str) -> String {
    let harmless = |character: char| matches!(character, '\n' | '\t') || !json::steers_terminals(character);
    text.chars().map(|character| if harmless(character) { character } else { '\u{fffd}' }).collect()
}

/// On stdout.
pub(super) fn say(text: &str) {
    let text = plain(text);
    // A closed pipe (`| head`) is no error of ours.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

/// On stderr, with a line break.
pub(super) fn complain(problem: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", plain(problem.trim_end()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_said_steers_a_terminal() {
        let said = plain("a\u{1b}[2Jb\u{9b}31mc\rd\u{202e}e\u{7}f\n\tg\u{2066}\u{61c}");
        assert_eq!(said, "a\u{fffd}[2Jb\u{fffd}31mc\u{fffd}d\u{fffd}e\u{fffd}f\n\tg\u{fffd}\u{fffd}");
        assert_eq!(plain("Grüße, 世界 ✓"), "Grüße, 世界 ✓");
    }
}
