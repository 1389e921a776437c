//! Shared by the commands that read Stripe's lists and repair the database: the two connections, and the concurrent
//! processing of a page of objects.

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
use crate::stripe::client::StripeClient;
use crate::stripe::pages::{Listed, Page, Pages};

/// The connections to Stripe and to the database.
pub(crate) struct Repair {
    pub(crate) database: Database,
    pub(crate) stripe: StripeClient,
    pub(crate) mode: StripeMode,
    /// How many objects are processed at once.
    concurrency: usize,
}

impl Repair {
    /// Reads the configuration, and fails if the key and the database have different modes.
    pub(crate) async fn open(environment: &Environment) -> Result<Self, Error> {
        let config = RepairConfig::read(environment)?;
        let database = Database::new(&config.database);
        let mode = config.stripe.mode;
        check_mode(&database, mode).await?;
        Ok(Self {
            database,
            stripe: StripeClient::with_retries(&config.stripe),
            mode,
            concurrency: config.database.pool_size,
        })
    }

    /// Fails without a catalog, because every event would be parked.
    pub(crate) async fn needs_catalog(&self) -> Result<(), Error> {
        self.database.livemode().await?.map(drop).ok_or(Error::NoCatalog)
    }

    /// The time of `--since`, in seconds since 1970.
    pub(crate) async fn since(&self, written: &str) -> Result<u64, Error> {
        match self.database.time(written).await {
            Ok(time) => Ok(u64::try_from(time).unwrap_or(0)),
            Err(DatabaseError::Data(_)) => Err(Error::Input(format!(
                "--since {written:?}: it is neither a time (2026-01-31, 2026-01-31T12:00Z) nor how long ago (3 days, 12h)"
            ))),
            Err(error) => Err(error.into()),
        }
    }

    /// Applies an event, with the objects it needs.
    pub(crate) async fn apply(&self, event: &Event) -> Result<Outcome, Error> {
        delivery::apply(&self.database, Some(&self.stripe), event).await
    }

    /// The outcome that applying an event would have.
    pub(crate) async fn explain(&self, event: &Event) -> Result<Outcome, Error> {
        delivery::explain(&self.database, &self.stripe, event).await
    }

    /// A command's saved position; none if it finished or never ran.
    pub(crate) async fn cursor<T: DeserializeOwned>(&self, command: &str) -> Result<Option<T>, Error> {
        let position = self.database.cursor(command).await?;
        let read = |text: String| serde_json::from_str(&text);
        position
            .map(read)
            .transpose()
            .map_err(|fault| DatabaseError::UnexpectedAnswer(fault.to_string()).into())
    }

    /// Saves a command's position.
    pub(crate) async fn save_cursor<T: Serialize>(&self, command: &str, cursor: &T) -> Result<(), Error> {
        let position = serde_json::to_string(cursor).map_err(|fault| Error::Internal(fault.to_string()))?;
        Ok(self.database.move_cursor(command, Some(&position)).await?)
    }

    /// Processes objects concurrently and passes on each result as it arrives. A failure that concerns one object is
    /// its result; if Stripe or the database is down, processing ends.
    pub(crate) async fn each(
        &self,
        objects: impl IntoIterator<Item = Listed>,
        process: impl AsyncFn(&Listed) -> Result<Outcome, Error>,
        mut on_result: impl FnMut(&str, &Result<Outcome, Error>),
    ) -> Result<(), Error> {
        let process = &process;
        let tasks = stream::iter(objects).map(async |listed| {
            let result = process(&listed).await;
            (listed.id, result)
        });
        let mut results = pin!(tasks.buffer_unordered(self.concurrency));
        while let Some((id, result)) = results.next().await {
            match result {
                Err(error) if !error.concerns_one_object() => return Err(error),
                result => on_result(&id, &result),
            }
        }
        Ok(())
    }
}

/// Processes a list page by page; the next page is read while one is processed.
pub(crate) async fn each_page(
    mut pages: Pages<'_>,
    mut process: impl AsyncFnMut(Page) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut next = pages.next().await?;
    while let Some(page) = next {
        let (result, following) = tokio::join!(process(page), pages.next());
        result?;
        next = following?;
    }
    Ok(())
}
