//! What the database asks for, gotten from Stripe.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::clock::unix_now;
use crate::error::Error;
use crate::stripe_api::{StripeApi, StripeError};

/// The most objects fetched for one event.
const MAX_FETCHES: usize = 16;

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
        return Err(Error::UnexpectedAnswer(format!("it asks for more than {MAX_FETCHES} objects")));
    }
    let mut fetched = Fetched { as_of: unix_now(), objects: Vec::new() };
    for path in paths {
        if !path.starts_with("/v1/") {
            return Err(Error::UnexpectedAnswer("it asks for a path outside of /v1/".to_owned()));
        }
        match stripe.get(path).await {
            Ok(answer) => {
                fetched.as_of = answer.as_of;
                fetched.objects.push(answer.object);
            }
            // What Stripe does not have, the database decides without.
            Err(StripeError::NotFound) => {}
            Err(error) => return Err(error.into()),
        }
    }
    serde_json::to_string(&fetched).map_err(|fault| Error::Internal(fault.to_string()))
}
