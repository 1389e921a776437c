//! The shim as a process of its own: real HTTP before it, a real database and a Stripe of the tests behind it.

mod auth;
mod backfill;
mod before_books;
mod checkout;
mod checks;
mod commands;
mod cors;
mod credits;
mod database_away;
mod hostile_bodies;
mod lifecycle;
mod monitoring;
mod needs_fetch;
mod one_of_many;
mod payloads;
mod plan_changes;
mod reconcile;
mod reconcile_plans;
mod redis;
mod signature_golden;
mod slow_clients;
mod strangers;
mod subscription;
mod sweep;
mod torture;
mod webhooks;
