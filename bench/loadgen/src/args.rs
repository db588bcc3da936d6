//! `--name value` options. Each is taken once; one that no command asked for is an error.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::str::FromStr;

use crate::Error;

/// Options as given, taken out one by one.
#[derive(Debug)]
pub struct Args {
    left: RefCell<BTreeMap<String, String>>,
}

impl Args {
    /// Reads `--name value` pairs.
    ///
    /// # Errors
    /// A word that is no option, an option without value, or one given twice.
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, Error> {
        let mut left = BTreeMap::new();
        while let Some(word) = words.next() {
            let name = word.strip_prefix("--").ok_or_else(|| format!("{word:?} is not an option"))?;
            let value = words.next().ok_or_else(|| format!("--{name} needs a value"))?;
            if left.insert(name.to_owned(), value).is_some() {
                return Err(format!("--{name} is given twice").into());
            }
        }
        Ok(Self { left: RefCell::new(left) })
    }

    /// The option's value, if it was given.
    ///
    /// # Errors
    /// A value that is not a `T`.
    pub fn optional<T: FromStr>(&self, name: &str) -> Result<Option<T>, Error> {
        let Some(text) = self.left.borrow_mut().remove(name) else { return Ok(None) };
        match text.parse() {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(format!("--{name} cannot be {text:?}").into()),
        }
    }

    /// The option's value, or `default`.
    ///
    /// # Errors
    /// A value that is not a `T`.
    pub fn or<T: FromStr>(&self, name: &str, default: T) -> Result<T, Error> {
        Ok(self.optional(name)?.unwrap_or(default))
    }

    /// The option's value.
    ///
    /// # Errors
    /// The option is missing, or its value is not a `T`.
    pub fn required<T: FromStr>(&self, name: &str) -> Result<T, Error> {
        self.optional(name)?.ok_or_else(|| format!("--{name} is missing").into())
    }

    /// To be called when all known options were taken.
    ///
    /// # Errors
    /// Options are left over.
    pub fn finish(&self) -> Result<(), Error> {
        match self.left.borrow().keys().next() {
            None => Ok(()),
            Some(name) => Err(format!("--{name} is not an option of this command").into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Args, Error> {
        Args::parse(words.iter().map(|word| (*word).to_owned()))
    }

    #[test]
    fn options_are_taken_once_and_leftovers_are_named() {
        let args = parse(&["--rate", "50", "--wrong", "1"]).unwrap();
        assert_eq!(args.or("rate", 1_u32).unwrap(), 50);
        assert_eq!(args.or("streams", 7_u32).unwrap(), 7);
        assert!(args.required::<u32>("pid").is_err());
        assert!(args.finish().unwrap_err().to_string().contains("--wrong"));
    }

    #[test]
    fn bad_words_are_refused() {
        for words in [&["rate"][..], &["--rate"], &["--rate", "1", "--rate", "2"]] {
            assert!(parse(words).is_err(), "{words:?}");
        }
        assert!(parse(&["--rate", "fast"]).unwrap().or("rate", 1_u32).is_err());
    }
}
