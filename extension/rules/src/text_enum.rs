//! Enums that are text in JSON and in the tables, each spelled once.

/// Declares an enum whose variants are text in JSON and in the tables.
macro_rules! text_enum {
    ($(#[$meta:meta])+ $name:ident { $($(#[$about:meta])+ $variant:ident => $text:literal,)+ }) => {
        $(#[$meta])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Deserialize)]
        pub enum $name {
            $($(#[$about])+ #[serde(rename = $text)] $variant,)+
        }

        impl $name {
            /// Its text in JSON and in the tables.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text,)+ }
            }

            /// The variant of this text, if there is one.
            #[must_use]
            pub fn parse(text: &str) -> Option<$name> {
                match text { $($text => Some($name::$variant),)+ _ => None }
            }
        }
    };
}

pub(crate) use text_enum;
