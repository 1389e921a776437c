//! Reads one of Stripe's lists page by page, so that only a page is in memory.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::stripe::client::{StripeClient, StripeError, StripeObject};
use crate::stripe::path::is_id;

/// Stripe's maximum number of objects in a page.
const PAGE_SIZE: usize = 100;

/// A list that is being read, newest objects first.
pub(crate) struct Pages<'a> {
    stripe: &'a StripeClient,
    path: String,
    /// The id of the last object read.
    starting_after: Option<String>,
    is_at_end: bool,
}

/// A page of a list.
pub(crate) struct Page {
    /// All as of the same time.
    pub(crate) objects: Vec<Listed>,
    /// The id after which the next page starts; none on the last page.
    pub(crate) starting_after: Option<String>,
}

/// An object of a list.
pub(crate) struct Listed {
    pub(crate) id: String,
    pub(crate) object: StripeObject,
}

impl<'a> Pages<'a> {
    /// The list at a path, with its query, from the beginning or after an object.
    pub(crate) fn of(stripe: &'a StripeClient, path: String, starting_after: Option<String>) -> Self {
        Self { stripe, path, starting_after, is_at_end: false }
    }

    /// The next page; none after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<Page>, StripeError> {
        #[derive(Deserialize)]
        struct ListObject {
            data: Vec<Box<RawValue>>,
            has_more: bool,
        }
        if self.is_at_end {
            return Ok(None);
        }
        if self.starting_after.as_ref().is_some_and(|id| !is_id(id)) {
            return Err(StripeError::Malformed("a list goes on after something that is no id".to_owned()));
        }
        let page = self.stripe.get(&self.page_path()).await?;
        let list: ListObject = page.read()?;
        let listed = |json| Listed::read(StripeObject { json, as_of: page.as_of });
        let objects: Vec<Listed> = list.data.into_iter().map(listed).collect::<Result<_, _>>()?;
        let end = objects.last().map(|listed| listed.id.clone());
        if list.has_more && end.is_none() {
            return Err(StripeError::Malformed("a page without objects is not the last".to_owned()));
        }
        self.is_at_end = !list.has_more;
        let starting_after = end.filter(|_| list.has_more);
        self.starting_after.clone_from(&starting_after);
        Ok(Some(Page { objects, starting_after }))
    }

    fn page_path(&self) -> String {
        let first = with(&self.path, &format!("limit={PAGE_SIZE}"));
        self.starting_after.as_ref().map_or_else(|| first.clone(), |id| next_page_path(&first, id))
    }
}

/// The path of the page after an object.
pub(crate) fn next_page_path(path: &str, id: &str) -> String {
    with(path, &format!("starting_after={id}"))
}

fn with(path: &str, parameter: &str) -> String {
    let separator = if path.contains('?') { '&' } else { '?' };
    format!("{path}{separator}{parameter}")
}

impl Listed {
    fn read(object: StripeObject) -> Result<Self, StripeError> {
        #[derive(Deserialize)]
        struct Named {
            id: String,
        }
        let Named { id } = object.read()?;
        Ok(Self { id, object })
    }
}
