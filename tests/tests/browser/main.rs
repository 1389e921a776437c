//! The console and the pages of examples/return-flow in a real browser, before the real shim.

mod console;
mod pricing;
mod return_flow;
