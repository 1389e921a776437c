//! The pages of examples/return-flow in a real browser, before the real shim.

mod pricing;
mod return_flow;
