//! The tests of the whole, one file for each stage.

mod serve;
