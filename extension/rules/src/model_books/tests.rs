//! The model against the vectors and the scenarios.

mod vectors;
