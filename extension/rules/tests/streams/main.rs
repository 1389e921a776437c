//! Plan credits: what every grant holds, by the vectors of the rules, by their sentences, and in every order of the facts.

mod account; // an account in memory: facts, draws and settlements
mod build; // histories in a few words
mod stripe; // events to facts, for histories in Stripe's JSON
mod lines; // rule 7: what lines are worth
mod time; // what opens, stays, is set aside and ends
mod vectors; // histories with the numbers that must stand after each step
mod properties; // what must hold in every history
mod windows; // how far back facts must be loaded
