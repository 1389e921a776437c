//! The one error type of this crate; its text is what a person sees.

use std::path::PathBuf;
use std::process::{Command, ExitStatus};

/// What can go wrong while installing, starting, playing and stopping.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program could not be started at all, most often because it is not installed.
    #[error("could not start `{command}`: {source}")]
    Start {
        /// The command line.
        command: String,
        /// Why not.
        source: std::io::Error,
    },
    /// A program ended with a status other than 0.
    #[error("`{command}` failed, {status}")]
    Failed {
        /// The command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
    },
    /// A server ended, or did not get ready in time, instead of serving.
    #[error("{server} did not start: {reason}\n{log}")]
    NotServing {
        /// Which server.
        server: &'static str,
        /// What happened instead.
        reason: String,
        /// Its output.
        log: String,
    },
    /// A file or folder could not be read, written or removed.
    #[error("{}: {source}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The database refused a statement or a connection.
    #[error("the database: {}", database_text(.0))]
    Database(#[from] postgres::Error),
    /// No HTTP answer was had (an answer with any status is not an error).
    #[error("HTTP: {0}")]
    Http(#[from] ureq::Error),
    /// Something else in the world is not as it has to be.
    #[error("{0}")]
    Unmet(String),
    /// Ctrl-C, or SIGTERM from the parent process.
    #[error("interrupted")]
    Interrupted,
}

/// `std::result::Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// For `map_err`: an I/O error that names its file.
    pub fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }

    /// For `map_err`: a start that failed, naming the command.
    pub(crate) fn start(command: &Command) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let command = command_line(command);
        move |source| Self::Start { command, source }
    }
}

/// The program and its arguments as one would type them.
pub(crate) fn command_line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// A Postgres error with its DETAIL, which the crate's own Display leaves out.
fn database_text(error: &postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => match db.detail() {
            Some(detail) => format!("{} ({detail})", db.message()),
            None => db.message().to_owned(),
        },
        None => error.to_string(),
    }
}
