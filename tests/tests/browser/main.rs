//! The pages of examples/return-flow in a real browser, before the real shim.

mod return_flow;
