//! Closed lists of words: an enum here, a checked text column in the tables, one spelling.

/// Declares an enum whose variants have one word each, in JSON and in the tables.
macro_rules! words {
    ($(#[$meta:meta])+ $name:ident { $($(#[$about:meta])+ $variant:ident => $word:literal,)+ }) => {
        $(#[$meta])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Deserialize)]
        pub enum $name {
            $($(#[$about])+ #[serde(rename = $word)] $variant,)+
        }

        impl $name {
            /// The word in JSON and in the tables.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word,)+ }
            }

            /// What the word says, where it is one of them.
            #[must_use]
            pub fn parse(word: &str) -> Option<$name> {
                match word { $($word => Some($name::$variant),)+ _ => None }
            }
        }
    };
}

pub(crate) use words;
