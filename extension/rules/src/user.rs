//! How a text names a user (rule 11): what the app's server writes into Stripe's metadata, a buyer's
//! `client_reference_id`, a token's `sub`.

use sha1_smol::Sha1;
use uuid::{Builder, Uuid};

/// The keys of Stripe's metadata by which apps name their user, the first one first.
pub const METADATA_KEYS: [&str; 3] = ["user_id", "userId", "supabase_user_id"];

/// The user that a text names: a UUID names itself; any other text names version 5 of it in the namespace, if there is
/// one. Blanks around it do not count, and a blank text names nobody.
#[must_use]
pub fn user_id(text: &str, namespace: Option<Uuid>) -> Option<Uuid> {
    let text = text.trim();
    if text.is_empty() {
        return None;
    }
    Uuid::try_parse(text).ok().or_else(|| namespace.map(|namespace| version_5(namespace, text)))
}

/// RFC 9562: the first 16 bytes of SHA-1 over the namespace and the name, with version and variant set.
fn version_5(namespace: Uuid, name: &str) -> Uuid {
    let mut hash = Sha1::from(namespace.as_bytes());
    hash.update(name.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.digest().bytes()[..16]);
    Builder::from_sha1_bytes(bytes).into_uuid()
}

/// The texts of one object that may name its user, the preferred one first. Which user they name depends on the
/// catalog's namespace, so an object is read without knowing it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserNames(Vec<String>);

impl UserNames {
    /// These names, then others.
    #[must_use]
    pub fn then(mut self, others: UserNames) -> UserNames {
        self.0.extend(others.0);
        self
    }

    /// The user of the first text that names one.
    #[must_use]
    pub fn user(&self, namespace: Option<Uuid>) -> Option<Uuid> {
        self.0.iter().find_map(|text| user_id(text, namespace))
    }
}

impl<T: Into<String>> FromIterator<T> for UserNames {
    fn from_iter<I: IntoIterator<Item = T>>(texts: I) -> UserNames {
        UserNames(texts.into_iter().map(Into::into).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_names_itself_in_every_namespace() {
        let user = Uuid::from_u128(0xa);
        for text in [user.to_string(), user.simple().to_string(), format!(" {user}\n")] {
            assert_eq!(user_id(&text, None), Some(user));
            assert_eq!(user_id(&text, Some(Uuid::NAMESPACE_URL)), Some(user));
        }
    }

    #[test]
    fn any_other_text_names_a_user_in_a_namespace_only() {
        assert_eq!(user_id("user_2abc", None), None);
        // RFC 9562, appendix A.4.
        let example = Uuid::try_parse("2ed6657d-e927-568b-95e1-2665a8aea6a2").ok();
        assert_eq!(user_id(" www.example.com", Some(Uuid::NAMESPACE_DNS)), example);
        assert_eq!(user_id(" \t ", Some(Uuid::NAMESPACE_DNS)), None);
    }

    #[test]
    fn the_first_name_that_names_anybody_counts() {
        let user = Uuid::from_u128(0xa);
        let names: UserNames = [" ".to_owned(), "bob".to_owned(), user.to_string()].into_iter().collect();
        assert_eq!(names.user(None), Some(user));
        assert_eq!(names.user(Some(Uuid::NAMESPACE_DNS)), user_id("bob", Some(Uuid::NAMESPACE_DNS)));
        assert_eq!(UserNames::default().user(Some(Uuid::NAMESPACE_DNS)), None);
    }
}
