//! The commands, and what several of them share: the service, the demo's story and its transcript.

pub(crate) mod bench;
pub(crate) mod checklist;
pub(crate) mod demo;
pub(crate) mod install;
pub(crate) mod package;
pub(crate) mod test;
pub(crate) mod tools;
pub(crate) mod torture;
pub(crate) mod try_images;
pub(crate) mod try_packages;
pub(crate) mod up;

mod service;
mod story;
mod transcript;
