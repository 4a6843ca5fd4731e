//! Cycles between the files of one folder. A subfolder counts as one file, and the folder's own `mod.rs` as a door: a
//! name that it re-exports leads to the file that defines it.

use std::collections::{BTreeMap, BTreeSet};

use super::code::{File, words};
use super::map::{Edge, cycle, named};

/// Files that name the modules beside them.
const DOORS: [&str; 3] = ["mod.rs", "lib.rs", "main.rs"];

/// Returns a cycle for each folder that has one.
pub(super) fn file_cycles(files: &[File]) -> Vec<String> {
    let doors = files.iter().filter_map(|file| Some((file, folder_of_mod_file(&file.path)?)));
    doors
        .filter_map(|(door, folder)| {
            let found = cycle(&Folder::new(door, folder, files).edges())?;
            Some(format!("{folder}: {}", found.join(" -> ")))
        })
        .collect()
}

/// Returns the folder that this file is the door of, with a slash at its end unless it is the root.
fn folder_of_mod_file(path: &str) -> Option<&str> {
    let start = path.rfind('/').map_or(0, |slash| slash + 1);
    DOORS.contains(&&path[start..]).then(|| &path[..start])
}

/// One folder with its files.
struct Folder<'a> {
    path: &'a str,
    /// The files below it, each with its unit: the file itself, or the subfolder that it is in.
    files: Vec<(&'a str, &'a File)>,
    /// Units by the names that the door re-exports.
    exported: BTreeMap<String, &'a str>,
}

impl<'a> Folder<'a> {
    fn new(door: &'a File, path: &'a str, files: &'a [File]) -> Self {
        let inside = files.iter().filter(|file| file.path.starts_with(path) && file.path != door.path);
        let files: Vec<_> = inside.map(|file| (unit_of(&file.path[path.len()..]), file)).collect();
        let units: BTreeSet<&str> = files.iter().map(|(unit, _)| *unit).collect();
        let mut exported: BTreeMap<String, &str> = units.iter().map(|unit| ((*unit).to_owned(), *unit)).collect();
        for unit in units {
            for at in words(&door.code, unit).filter(|at| door.code[..*at].ends_with("use ")) {
                exported.extend(named(&door.code[at + unit.len()..]).into_iter().map(|name| (name, unit)));
            }
        }
        Self { path, files, exported }
    }

    /// Returns the uses of one unit by another.
    fn edges(&self) -> Vec<Edge> {
        let mut edges = Vec::new();
        for (unit, file) in &self.files {
            for (at, prefix) in self.prefixes(file) {
                let used = named(&file.code[at + prefix..]);
                let used = used.iter().filter_map(|name| self.exported.get(name)).filter(|used| *used != unit);
                edges.extend(used.map(|used| Edge::new(unit, used, file.at(at))));
            }
        }
        edges
    }

    /// Returns the places where a file names this folder's module, with the lengths of the names.
    fn prefixes(&self, file: &File) -> Vec<(usize, usize)> {
        let inner = &file.path[self.path.len()..];
        let depth = inner.split('/').count() - usize::from(inner.ends_with("/mod.rs"));
        let by_super = vec!["super"; depth].join("::");
        let from_root = ["crate", self.path.trim_end_matches('/')].join("::").replace('/', "::");
        let names = [by_super, from_root.trim_end_matches(':').to_owned()];
        let places = |name: &String| {
            let found: Vec<_> = words(&file.code, name).filter(|at| !file.code[..*at].ends_with("::")).collect();
            found.into_iter().map(|at| (at, name.len())).collect::<Vec<_>>()
        };
        names.iter().flat_map(places).collect()
    }
}

fn unit_of(inner: &str) -> &str {
    let first = inner.split('/').next().unwrap_or_default();
    first.strip_suffix(".rs").unwrap_or(first)
}
