//! The model against the vectors and the scenarios.

mod changes;
mod invoices;
mod money_back;
mod requests;
mod stripe;
mod vectors;
