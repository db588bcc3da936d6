//! Enums of words: of labels, logs, files, addresses and requests.

/// Declares an enum whose variants each have a word, which stands beside it.
macro_rules! worded {
    ($(#[$about:meta])* $vis:vis enum $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$about])*
        $vis enum $name { $($(#[$doc])* $variant),+ }

        impl $name {
            /// All of them, in the order of their declaration.
            $vis const ALL: [Self; [$($word),+].len()] = [$(Self::$variant),+];

            /// The word for it.
            #[must_use]
            $vis fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            /// Which of them a word means, letter by letter.
            #[must_use]
            $vis fn of_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

pub(crate) use worded;
