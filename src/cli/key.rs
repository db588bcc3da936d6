//! Makes API keys. The key is printed once; what stays is its hash.

use rustls::crypto::SecureRandom;

use crate::config::identity::{KEY_PREFIX, KeyHash};

/// Letters and digits of a key after its prefix: 256 random bits.
const LETTERS: usize = 43;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Longest name, in bytes: what the configuration takes.
const NAME_MAX: usize = 256;

/// A new key and the configuration's entry for it, as text for a terminal.
///
/// # Errors
/// A name that the configuration would refuse, or a system without randomness.
pub(super) fn new(user: Option<&str>, team: Option<&str>) -> Result<String, String> {
    for name in [user, team].into_iter().flatten() {
        if name.trim().is_empty() || name.len() > NAME_MAX || name.chars().any(char::is_control) {
            return Err(format!("a name is 1 to {NAME_MAX} bytes long, without control characters"));
        }
    }
    let key = random_key(rustls::crypto::ring::default_provider().secure_random)?;
    let line = |name: &str, value: Option<&str>| {
        value.map_or(String::new(), |value| format!("{name} = {}\n", toml::Value::from(value)))
    };
    Ok(format!(
        "# The key. It is shown this once: hand it over, and keep no copy.\n{key}\n\n\
         # Its entry in the configuration file. Taking the entry out again revokes the key.\n\
         [[identity.key]]\n{}{}hash = \"{}\"\n",
        line("user", user),
        line("team", team),
        KeyHash::of(&key),
    ))
}

fn random_key(random: &dyn SecureRandom) -> Result<String, String> {
    let mut key = KEY_PREFIX.to_owned();
    let mut bytes = [0; 64];
    while key.len() < KEY_PREFIX.len() + LETTERS {
        random.fill(&mut bytes).map_err(|_| "this system gives no random numbers".to_owned())?;
        // Bytes past the last whole multiple of 62 would make some letters more likely than others.
        let letters = bytes.iter().filter(|byte| **byte < 248).filter_map(|byte| ALPHABET.get(usize::from(byte % 62)));
        let missing = KEY_PREFIX.len() + LETTERS - key.len();
        key.extend(letters.take(missing).map(|letter| char::from(*letter)));
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn key_of(text: &str) -> &str {
        text.lines().find(|line| line.starts_with(KEY_PREFIX)).unwrap()
    }

    #[test]
    fn what_is_printed_is_the_entry_of_the_key() {
        let odd = "al\"ice\\ é";
        let text = new(Some(odd), Some("search")).unwrap();
        let key = key_of(&text);
        assert_eq!(key.len(), 46);
        assert!(key[3..].bytes().all(|byte| byte.is_ascii_alphanumeric()));
        let entry = &text[text.find("[[").unwrap()..];
        assert!(!entry.contains(key), "the entry holds the hash alone");
        let file = format!("{entry}\n[[upstream]]\nurl = \"http://h\"\n");
        let settings =
            config::parse(&file, "t.toml", &|_| None, &|_| Err(std::io::ErrorKind::NotFound.into())).unwrap();
        let rules = settings.identity.unwrap();
        let known = &rules.keys[&KeyHash::of(key)];
        assert_eq!((known.user.as_deref(), known.team.as_deref()), (Some(odd), Some("search")));
    }

    #[test]
    fn no_two_keys_are_alike_and_every_letter_comes() {
        let keys: std::collections::BTreeSet<String> =
            (0..200).map(|_| key_of(&new(Some("a"), None).unwrap()).to_owned()).collect();
        assert_eq!(keys.len(), 200);
        let letters: std::collections::BTreeSet<char> = keys.iter().flat_map(|key| key[3..].chars()).collect();
        assert_eq!(letters.len(), 62);
    }

    #[test]
    fn names_that_the_configuration_would_refuse_make_no_key() {
        for wrong in ["", " ", "a\nb", &"x".repeat(257)] {
            assert!(new(Some(wrong), None).is_err());
            assert!(new(Some("a"), Some(wrong)).is_err());
        }
    }
}
