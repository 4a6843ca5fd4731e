//! `vecho import-batch`.
