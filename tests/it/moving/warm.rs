//! `vecho warm`.
