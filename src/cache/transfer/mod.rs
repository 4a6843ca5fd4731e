//! Transfer of records between instances: the tiers are exported as a file in the format of [`super::export`], and such a
//! file is imported into the tiers.

mod export;
mod import;

pub use export::{ExportFile, Pieces, export, file_of};
pub use import::{ImportRules, Imported, import};
