//! What the database asks for, gotten from Stripe.

use serde::Serialize;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use crate::clock::unix_now;
use crate::database::DatabaseError;
use crate::error::Error;
use crate::stripe::client::{Answer, StripeApi, StripeError};
use crate::stripe::pages::going_on;

/// The most objects fetched for one event.
const MAX_FETCHES: usize = 16;
/// The most pages read of one list; a list that goes on after them stays one with more.
const MAX_PAGES: usize = 50;

/// What was fetched, for the database: the objects in the order asked for, and Stripe's clock at the last of them.
#[derive(Serialize)]
struct Fetched {
    as_of: u64,
    objects: Vec<Box<RawValue>>,
}

/// Gets the objects at `paths`; without a Stripe key the answer is that there is none.
pub(crate) async fn fetch(stripe: Option<&StripeApi>, paths: &[String]) -> Result<String, Error> {
    let Some(stripe) = stripe else {
        return Ok("{}".to_owned());
    };
    if paths.len() > MAX_FETCHES {
        return Err(unexpected(format!("it asks for more than {MAX_FETCHES} objects")));
    }
    let mut fetched = Fetched { as_of: unix_now(), objects: Vec::new() };
    for path in paths {
        if !path.starts_with("/v1/") {
            return Err(unexpected("it asks for a path outside of /v1/".to_owned()));
        }
        match whole(stripe, path).await {
            Ok(answer) => {
                fetched.as_of = answer.as_of;
                fetched.objects.push(answer.object);
            }
            // What Stripe does not have, the database decides without.
            Err(StripeError::NotFound) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(serde_json::to_string(&fetched).expect("a number and objects that were JSON"))
}

fn unexpected(question: String) -> Error {
    DatabaseError::UnexpectedAnswer(question).into()
}

/// Gets the object at a path; a list with all of its pages.
async fn whole(stripe: &StripeApi, path: &str) -> Result<Answer, StripeError> {
    let first = stripe.get(path).await?;
    let mut joined: Value = first.read()?;
    if joined["has_more"] != true {
        return Ok(first);
    }
    let mut as_of = first.as_of;
    for _ in 1..MAX_PAGES {
        let last = joined["data"].as_array().and_then(|data| data.last()?["id"].as_str());
        let Some(last) = last.filter(|_| joined["has_more"] == true) else { break };
        let page = stripe.get(&going_on(path, last)).await?;
        let mut page_of: Value = page.read()?;
        as_of = page.as_of;
        if let (Some(data), Some(more)) = (joined["data"].as_array_mut(), page_of["data"].as_array_mut()) {
            data.append(more);
        }
        joined["has_more"] = page_of["has_more"].take();
    }
    let object = to_raw_value(&joined).map_err(|fault| StripeError::Malformed(fault.to_string()))?;
    Ok(Answer { object, as_of })
}
