//! Fetches the Stripe objects that the database asks for.

use serde::Serialize;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use crate::clock::unix_now;
use crate::database::DatabaseError;
use crate::error::Error;
use crate::stripe::client::{StripeClient, StripeError, StripeObject};
use crate::stripe::pages::next_page_path;
use crate::stripe::path::{is_id, is_path};

/// The maximum number of objects fetched for one event.
const MAX_FETCHES: usize = 16;
/// The maximum number of pages read of one list; a longer list keeps its `has_more`.
const MAX_PAGES: usize = 50;

/// The database's argument: the objects in the order asked for, and Stripe's clock when the last was read.
#[derive(Serialize)]
struct Fetched {
    as_of: u64,
    objects: Vec<Box<RawValue>>,
}

/// Fetches the objects at `paths`. Without a Stripe key the result is `{}`, which the database parks as unfetched.
pub(crate) async fn fetch(stripe: Option<&StripeClient>, paths: &[String]) -> Result<String, Error> {
    let Some(stripe) = stripe else {
        return Ok("{}".to_owned());
    };
    if paths.len() > MAX_FETCHES {
        return Err(unexpected(format!("it asks for more than {MAX_FETCHES} objects")));
    }
    let mut fetched = Fetched { as_of: unix_now(), objects: Vec::new() };
    for path in paths {
        if !is_path(path) {
            return Err(unexpected("it asks for what is no path of Stripe's API".to_owned()));
        }
        match get_complete(stripe, path).await {
            Ok(object) => {
                fetched.as_of = object.as_of;
                fetched.objects.push(object.json);
            }
            // The database decides without an object that Stripe does not have.
            Err(StripeError::NotFound) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(serde_json::to_string(&fetched).expect("a number and objects that were JSON"))
}

fn unexpected(question: String) -> Error {
    DatabaseError::UnexpectedAnswer(question).into()
}

/// The object at a path; a list with all its pages.
async fn get_complete(stripe: &StripeClient, path: &str) -> Result<StripeObject, StripeError> {
    let first = stripe.get(path).await?;
    let mut list: Value = first.read()?;
    if list["has_more"] != true {
        return Ok(first);
    }
    let mut as_of = first.as_of;
    for _ in 1..MAX_PAGES {
        let last_id = list["data"].as_array().and_then(|data| data.last()?["id"].as_str());
        let Some(last_id) = last_id.filter(|id| list["has_more"] == true && is_id(id)) else { break };
        let page = stripe.get(&next_page_path(path, last_id)).await?;
        let mut page_json: Value = page.read()?;
        as_of = page.as_of;
        if let (Some(data), Some(more)) = (list["data"].as_array_mut(), page_json["data"].as_array_mut()) {
            data.append(more);
        }
        list["has_more"] = page_json["has_more"].take();
    }
    let object = to_raw_value(&list).map_err(|fault| StripeError::Malformed(fault.to_string()))?;
    Ok(StripeObject { json: object, as_of })
}
