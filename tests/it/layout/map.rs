//! The layers of the crate as `lib.rs` declares them, and the edges between its modules in the sources.

use std::collections::{BTreeMap, BTreeSet};

use super::code::{File, is_word, words};

/// The layer of every top-level module.
#[derive(Debug, Default)]
pub(super) struct Map {
    layers: BTreeMap<String, u32>,
}

/// One module's use of another, and its position.
pub(super) struct Edge {
    from: String,
    to: String,
    at: String,
}

impl Edge {
    pub(super) fn new(from: &str, to: &str, at: String) -> Self {
        Self { from: from.to_owned(), to: to.to_owned(), at }
    }
}

impl Map {
    /// Reads the headings `// Layer N: ...` and the modules below each.
    pub(super) fn read(lib: &str) -> Self {
        let (mut map, mut layer) = (Self::default(), None);
        for line in lib.lines() {
            if let Some(rest) = line.strip_prefix("// Layer ") {
                layer = rest.split(':').next().and_then(|number| number.parse().ok());
            } else if let Some(name) = line.strip_prefix("pub mod ").and_then(|rest| rest.strip_suffix(';')) {
                let layer = layer.unwrap_or_else(|| panic!("the module {name} is in no layer"));
                map.layers.insert(name.to_owned(), layer);
            }
        }
        map
    }

    pub(super) fn modules(&self) -> BTreeSet<&str> {
        self.layers.keys().map(String::as_str).collect()
    }

    /// Returns the edges that lead up or sideways.
    pub(super) fn wrong_edges(&self, edges: &[Edge]) -> Vec<String> {
        let wrong = edges.iter().filter(|edge| match (self.layers.get(&edge.from), self.layers.get(&edge.to)) {
            (Some(from), Some(to)) => to >= from,
            // A name outside the map would be an item of the crate's root, which has none.
            (from, _) => from.is_some(),
        });
        wrong.map(|edge| format!("{}: {} must not use {}", edge.at, edge.from, edge.to)).collect()
    }
}

/// Returns every use of one top-level module by another.
pub(super) fn edges(files: &[File]) -> Vec<Edge> {
    let mut edges = Vec::new();
    for file in files.iter().filter(|file| !matches!(file.module(), "lib" | "main")) {
        for start in words(&file.code, "crate") {
            for to in named(&file.code[start + "crate".len()..]) {
                if to != file.module() {
                    edges.push(Edge { from: file.module().to_owned(), to, at: file.at(start) });
                }
            }
        }
    }
    edges
}

/// Returns the modules behind one `crate`: a single one, or those of a list in braces.
pub(super) fn named(rest: &str) -> Vec<String> {
    let Some(path) = rest.strip_prefix("::") else {
        return Vec::new();
    };
    let Some(list) = path.strip_prefix('{') else {
        return vec![leading_word(path)];
    };
    let (mut names, mut depth, mut fresh) = (Vec::new(), 1_usize, true);
    for (at, letter) in list.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => fresh = true,
            _ if fresh && !letter.is_whitespace() => {
                names.push(leading_word(&list[at..]));
                fresh = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    names
}

fn leading_word(text: &str) -> String {
    text.bytes().take_while(|byte| is_word(*byte)).map(char::from).collect()
}

/// Returns a cycle, if there is one.
pub(super) fn cycle(edges: &[Edge]) -> Option<Vec<String>> {
    let mut uses: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for edge in edges {
        uses.entry(&edge.from).or_default().insert(&edge.to);
    }
    let mut done = BTreeSet::new();
    uses.keys().find_map(|module| follow(module, &uses, &mut Vec::new(), &mut done))
}

fn follow<'a>(
    module: &'a str,
    uses: &BTreeMap<&'a str, BTreeSet<&'a str>>,
    way: &mut Vec<&'a str>,
    done: &mut BTreeSet<&'a str>,
) -> Option<Vec<String>> {
    if let Some(start) = way.iter().position(|passed| *passed == module) {
        return Some(way[start..].iter().chain([&module]).map(|name| (*name).to_owned()).collect());
    }
    if !done.insert(module) {
        return None;
    }
    way.push(module);
    let found = uses.get(module).into_iter().flatten().find_map(|next| follow(next, uses, way, done));
    way.pop();
    found
}
