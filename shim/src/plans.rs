//! Whether statements are prepared: the server then parses and plans each of them once a connection, and not each time.
//!
//! A pooler in transaction mode may run each transaction in another of the server's sessions. Most keep no prepared
//! statements; worse, the name that was given to one may be another client's there. So statements are prepared only on
//! connections that are known to end in a session of their own: the server answers with a word that was sent when the
//! connection was opened, and that a pooler refuses or keeps to itself. `prepared_statements` in `DATABASE_URL` decides
//! instead, for poolers that keep prepared statements.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use deadpool_postgres::Connect;
use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Config, Error};
use tokio_postgres_rustls::MakeRustlsConnect;
use uuid::Uuid;

use crate::config::PreparedStatements;
use crate::telemetry::with_causes;

/// The server's setting that holds the word.
const SETTING: &str = "stripe_credits_shim.session";

/// Whether statements are prepared. Once they are not, they never are again in this process.
#[derive(Debug)]
pub(crate) struct Plans {
    are_kept: AtomicBool,
    /// What each connection is opened with; none if the configuration decides.
    word: Option<String>,
}

impl Plans {
    /// As configured.
    pub(crate) fn new(configured: PreparedStatements) -> Arc<Self> {
        let word = (configured == PreparedStatements::Detect).then(|| Uuid::new_v4().simple().to_string());
        Arc::new(Self { are_kept: AtomicBool::new(configured != PreparedStatements::Never), word })
    }

    /// Whether statements are prepared.
    pub(crate) fn are_kept(&self) -> bool {
        self.are_kept.load(Ordering::Relaxed)
    }

    /// Prepares no statements from now on.
    pub(crate) fn give_up(&self, reason: &str) {
        if self.are_kept.swap(false, Ordering::Relaxed) {
            tracing::info!(reason, "statements are not prepared");
        }
    }
}

/// Whether an error says that a prepared statement is not the session's, or not the one that was prepared in it.
pub(crate) fn is_not_kept(error: &Error) -> bool {
    let lost = [SqlState::INVALID_SQL_STATEMENT_NAME, SqlState::DUPLICATE_PSTATEMENT];
    error.code().is_some_and(|code| lost.contains(code))
}

/// Whether an error says that a prepared statement would return other columns than it did: the extension was updated.
pub(crate) fn is_outdated(error: &Error) -> bool {
    error.code() == Some(&SqlState::FEATURE_NOT_SUPPORTED)
}

/// A connection, and the task that serves it.
type Opened = Result<(Client, JoinHandle<()>), Error>;

/// Opens the connections of a pool.
pub(crate) struct Connector {
    pub(crate) tls: MakeRustlsConnect,
    pub(crate) plans: Arc<Plans>,
}

impl Connect for Connector {
    fn connect(&self, config: &Config) -> Pin<Box<dyn Future<Output = Opened> + Send + '_>> {
        let config = config.clone();
        Box::pin(async move {
            let Some(word) = self.plans.word.as_deref().filter(|_| self.plans.are_kept()) else {
                return self.open(&config).await;
            };
            let mut with_word = config.clone();
            with_word.options(format!("{} -c {SETTING}={word}", config.get_options().unwrap_or_default()));
            match self.open(&with_word).await {
                Err(error) if may_be_of_the_word(&error) => {
                    let opened = self.open(&config).await?;
                    self.plans.give_up("a connection pooler takes no options of connections");
                    Ok(opened)
                }
                Err(error) => Err(error),
                Ok((client, task)) => {
                    if !has_word(&client, word).await? {
                        self.plans.give_up("a connection pooler shares its sessions");
                    }
                    Ok((client, task))
                }
            }
        })
    }
}

impl Connector {
    async fn open(&self, config: &Config) -> Opened {
        let (client, connection) = config.connect(self.tls.clone()).await?;
        let task = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::warn!(error = with_causes(&error), "a connection to the database ended");
            }
        });
        Ok((client, task))
    }
}

/// Whether a connection ends in the session that was opened with this word.
async fn has_word(client: &Client, word: &str) -> Result<bool, Error> {
    let sql = "select coalesce(current_setting($1, true), '')";
    let rows = client.query_typed(sql, &[(&SETTING, Type::TEXT)]).await?;
    Ok(rows.first().and_then(|row| row.try_get::<_, &str>(0).ok()) == Some(word))
}

/// Whether a server may have refused a connection because of the word. Not if it has no place for another one, does not
/// know who connects, or is just starting or stopping.
fn may_be_of_the_word(error: &Error) -> bool {
    let class = error.code().and_then(|code| code.code().get(..2));
    class.is_some_and(|class| !matches!(class, "28" | "3D" | "53" | "57"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_prepared_until_one_is_lost_unless_the_configuration_says_never() {
        for (configured, are_kept) in [
            (PreparedStatements::Detect, true),
            (PreparedStatements::Always, true),
            (PreparedStatements::Never, false),
        ] {
            let plans = Plans::new(configured);
            assert_eq!(plans.are_kept(), are_kept, "{configured:?}");
            assert_eq!(plans.word.is_some(), configured == PreparedStatements::Detect);
            plans.give_up("a test");
            assert!(!plans.are_kept());
        }
    }
}
