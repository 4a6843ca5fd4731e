//! The default configuration: vecho as a user starts it, with the disk tier at its default size.

use std::ops::Deref;
use std::path::PathBuf;

use super::Stage;
use crate::Outcome;
use crate::bench::Bench;
use crate::shape::Shape;
use crate::vectors::Grid;

/// One kind of vectors in the default configuration.
pub(super) struct DefaultCase {
    /// Shape of the requests.
    pub(super) shape: Shape,
    kind: &'static str,
}

impl DefaultCase {
    /// Returns both kinds of vectors: those that the lossless codec packs, and those that it keeps as f32.
    pub(super) fn each() -> [Self; 2] {
        let of = |grid, kind| Self { shape: Shape { grid, ..Shape::default() }, kind };
        [of(Grid::Halves, "halves"), of(Grid::Any, "any f32")]
    }

    /// Returns the name of a row.
    pub(super) fn named(&self, what: &str) -> String {
        format!("{what}; default configuration, vectors of {}", self.kind)
    }
}

/// An upstream, and vecho in front of it with a disk tier in a new folder.
pub(super) struct DefaultStage {
    stage: Stage,
    _folder: Folder,
}

impl DefaultStage {
    pub(super) async fn start(bench: &Bench) -> Outcome<Self> {
        let folder = Folder::new(bench);
        let path = format!("disk.path={}", folder.0.display());
        Ok(Self { stage: Stage::start(bench, 0, &["--set", &path]).await?, _folder: folder })
    }
}

impl Deref for DefaultStage {
    type Target = Stage;

    fn deref(&self) -> &Stage {
        &self.stage
    }
}

/// Folder of a disk tier, removed on drop.
struct Folder(PathBuf);

impl Folder {
    fn new(bench: &Bench) -> Self {
        let path = bench.out.join(format!("default-disk-{}", std::process::id()));
        // An earlier process with the same id may have left a folder behind.
        std::fs::remove_dir_all(&path).ok();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}
