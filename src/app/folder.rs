//! The cache of a vecho that does not run: the folder of its disk tier.
//! (stub until the disk tier is here)

use crate::admin::{Imported, Pieces};
use crate::config::Config;

/// A folder.
#[derive(Debug)]
pub struct Folder;

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum NoFolder {
    /// No disk tier.
    #[error("without one there is no disk tier to open")]
    Disabled,
}

impl Folder {
    /// Opens.
    pub fn open(_config: &Config) -> Result<Self, NoFolder> {
        Err(NoFolder::Disabled)
    }

    /// Records.
    pub fn records(&self) -> u64 {
        0
    }

    /// Export.
    pub async fn export(&self) -> Pieces<'static> {
        unreachable!()
    }

    /// Import.
    pub async fn import(&self, _file: Pieces<'_>) -> Result<Imported, String> {
        unreachable!()
    }

    /// Close.
    pub fn close(self) -> Result<(), String> {
        Ok(())
    }
}
