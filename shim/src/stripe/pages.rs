//! One of Stripe's lists, page by page: a page is all of it that is ever in memory.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::stripe::client::{Answer, StripeApi, StripeError};

/// How many objects a page has at most; Stripe gives no more.
const PAGE_SIZE: usize = 100;

/// A list that is being read, newest object first.
pub(crate) struct Pages<'a> {
    stripe: &'a StripeApi,
    path: String,
    /// The last object read.
    after: Option<String>,
    is_at_end: bool,
}

/// Some of a list's objects.
pub(crate) struct Page {
    /// The objects, as of the same time.
    pub(crate) objects: Vec<Listed>,
    /// The last of them, after which the list goes on; none at the end.
    pub(crate) goes_on_after: Option<String>,
}

/// An object of a list.
pub(crate) struct Listed {
    pub(crate) id: String,
    pub(crate) answer: Answer,
}

impl<'a> Pages<'a> {
    /// The list at a path, with its query, from its beginning or after an object.
    pub(crate) fn of(stripe: &'a StripeApi, path: String, after: Option<String>) -> Self {
        Self { stripe, path, after, is_at_end: false }
    }

    /// The next page; none after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<Page>, StripeError> {
        #[derive(Deserialize)]
        struct List {
            data: Vec<Box<RawValue>>,
            has_more: bool,
        }
        if self.is_at_end {
            return Ok(None);
        }
        let answer = self.stripe.get(&self.question()).await?;
        let list: List = answer.read()?;
        let listed = |object| Listed::read(Answer { object, as_of: answer.as_of });
        let objects: Vec<Listed> = list.data.into_iter().map(listed).collect::<Result<_, _>>()?;
        let end = objects.last().map(|listed| listed.id.clone());
        if list.has_more && end.is_none() {
            return Err(StripeError::Malformed("a page without objects is not the last".to_owned()));
        }
        self.is_at_end = !list.has_more;
        let goes_on_after = end.filter(|_| list.has_more);
        self.after.clone_from(&goes_on_after);
        Ok(Some(Page { objects, goes_on_after }))
    }

    fn question(&self) -> String {
        let first = with(&self.path, &format!("limit={PAGE_SIZE}"));
        self.after.as_ref().map_or_else(|| first.clone(), |id| going_on(&first, id))
    }
}

/// The path of a list's page that begins after an object.
pub(crate) fn going_on(path: &str, id: &str) -> String {
    with(path, &format!("starting_after={id}"))
}

fn with(path: &str, parameter: &str) -> String {
    let separator = if path.contains('?') { '&' } else { '?' };
    format!("{path}{separator}{parameter}")
}

impl Listed {
    fn read(answer: Answer) -> Result<Self, StripeError> {
        #[derive(Deserialize)]
        struct Named {
            id: String,
        }
        let Named { id } = answer.read()?;
        Ok(Self { id, answer })
    }
}
