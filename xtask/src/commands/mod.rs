//! The commands, and what two of them share: the service, and the story that is told with it.

pub(crate) mod bench;
pub(crate) mod demo;
pub(crate) mod test;
pub(crate) mod tools;
pub(crate) mod up;

mod service;
mod story;
