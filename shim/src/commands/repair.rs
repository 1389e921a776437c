//! What the commands share that ask Stripe what it has and repair the books: the two connections, and the way of one
//! page of objects into the database, several at once.

use std::pin::pin;

use futures_util::{StreamExt as _, stream};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::app::check_mode;
use crate::config::{Environment, RepairConfig, StripeMode};
use crate::database::{Database, DatabaseError};
use crate::delivery;
use crate::error::Error;
use crate::event::Event;
use crate::outcome::Outcome;
use crate::stripe::client::StripeApi;
use crate::stripe::pages::{Listed, Page, Pages};

/// Stripe on the one side, the books on the other.
pub(crate) struct Repair {
    pub(crate) database: Database,
    pub(crate) stripe: StripeApi,
    pub(crate) mode: StripeMode,
    /// How many objects are applied at once.
    width: usize,
}

impl Repair {
    /// Reads the configuration, and refuses to go on where the key and the books are of different modes.
    pub(crate) async fn open(environment: &Environment) -> Result<Self, Error> {
        let config = RepairConfig::read(environment)?;
        let database = Database::new(&config.database);
        let mode = config.stripe.mode;
        check_mode(&database, mode).await?;
        Ok(Self {
            database,
            stripe: StripeApi::patient(&config.stripe),
            mode,
            width: config.database.pool_size,
        })
    }

    /// Refuses to go on while every event would be parked.
    pub(crate) async fn needs_catalog(&self) -> Result<(), Error> {
        self.database.livemode().await?.map(drop).ok_or(Error::NoCatalog)
    }

    /// Applies an event, with what it lacks.
    pub(crate) async fn apply(&self, event: &Event) -> Result<Outcome, Error> {
        delivery::apply(&self.database, Some(&self.stripe), event).await
    }

    /// What applying it would come to.
    pub(crate) async fn explain(&self, event: &Event) -> Result<Outcome, Error> {
        delivery::explain(&self.database, &self.stripe, event).await
    }

    /// How far a command came through Stripe's lists; none where it came to their end or never ran.
    pub(crate) async fn cursor<T: DeserializeOwned>(&self, command: &str) -> Result<Option<T>, Error> {
        let kept = self.database.cursor(command).await?;
        let read = |text: String| serde_json::from_str(&text);
        kept.map(read).transpose().map_err(|fault| DatabaseError::UnexpectedAnswer(fault.to_string()).into())
    }

    /// Keeps how far a command has come.
    pub(crate) async fn keep<T: Serialize>(&self, command: &str, cursor: &T) -> Result<(), Error> {
        let position = serde_json::to_string(cursor).map_err(|fault| Error::Internal(fault.to_string()))?;
        Ok(self.database.move_cursor(command, Some(&position)).await?)
    }

    /// Does something with each object, several at once, and passes on what came of it as it comes. A fault that lies in
    /// one object is its result; where Stripe or the database is away, nothing goes on.
    pub(crate) async fn each(
        &self,
        objects: impl IntoIterator<Item = Listed>,
        act: impl AsyncFn(&Listed) -> Result<Outcome, Error>,
        mut done: impl FnMut(&str, &Result<Outcome, Error>),
    ) -> Result<(), Error> {
        let act = &act;
        let acts = stream::iter(objects).map(async |listed| {
            let result = act(&listed).await;
            (listed.id, result)
        });
        let mut results = pin!(acts.buffer_unordered(self.width));
        while let Some((id, result)) = results.next().await {
            match result {
                Err(error) if !error.is_of_one_object() => return Err(error),
                result => done(&id, &result),
            }
        }
        Ok(())
    }
}

/// Goes through a list; the next page is asked for while one is worked on.
pub(crate) async fn each_page(
    mut pages: Pages<'_>,
    mut work: impl AsyncFnMut(Page) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut next = pages.next().await?;
    while let Some(page) = next {
        let (worked, after) = tokio::join!(work(page), pages.next());
        worked?;
        next = after?;
    }
    Ok(())
}
