//! The documents against the program: every name in a document must exist in the program.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::Method;
use vecho::cache::export::ExportWriter;
use vecho::config::{KEYS, WELL_KNOWN, reference};
use vecho::observe::metrics::CATALOGUE;
use vecho::wire::Bypass;

use crate::harness::Vecho;
use crate::harness::client::{Client, raw};

/// Folders of documents; the first one is the root.
const DOCUMENT_FOLDERS: [&str; 7] = ["", "docs", "docs/design", "docs/guides", "benches", "fuzz", "charts/vecho"];

/// Folders whose files are named by path in documents.
const FOLDERS: [&str; 11] = [
    ".github/",
    "src/",
    "tests/",
    "benches/",
    "fuzz/",
    "config/",
    "docs/",
    "scripts/",
    "charts/",
    "examples/",
    "packaging/",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the paths of all documents from the root on.
fn documents() -> Vec<String> {
    let mut found = Vec::new();
    for folder in DOCUMENT_FOLDERS {
        for entry in fs::read_dir(root().join(folder)).expect("a folder of documents is readable") {
            let path = entry.expect("a document is readable").path();
            if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path.strip_prefix(root()).expect("it is below the root").to_string_lossy().into_owned());
            }
        }
    }
    assert!(found.len() > 30, "the project has more documents than {found:?}");
    found
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Returns the part of a document below a heading, up to the next heading of any level.
fn section(document: &str, heading: &str) -> String {
    let mut lines = document.lines().skip_while(|line| line.trim_start_matches('#').trim() != heading);
    assert!(lines.next().is_some(), "there is no section {heading:?}");
    let body: Vec<&str> = lines.take_while(|line| !line.starts_with('#')).collect();
    body.join("\n")
}

/// Returns the texts between single backticks, line by line.
fn code_spans(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.starts_with("```")).flat_map(|line| line.split('`').skip(1).step_by(2)).collect()
}

/// Returns the code in the first cell of each row of a section's tables.
fn first_cells(section: &str) -> Vec<&str> {
    let rows = section.lines().filter_map(|line| line.strip_prefix("| "));
    let cells: Vec<&str> = rows.filter_map(|row| row.split(" |").next()).flat_map(code_spans).collect();
    assert!(!cells.is_empty(), "there is no table in:\n{section}");
    cells
}

/// Returns the text of all `.rs` files under `src/`, concatenated.
fn sources() -> String {
    source_files().concat()
}

/// Returns the text of every `.rs` file under `src/`.
fn source_files() -> Vec<String> {
    let (mut texts, mut folders) = (Vec::new(), vec![root().join("src")]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a source folder is readable") {
            let path = entry.expect("a source file is readable").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                texts.push(fs::read_to_string(path).expect("a source file is text"));
            }
        }
    }
    texts
}

/// Splits a text into words of letters, digits and underscores.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'))
}

#[test]
fn the_first_block_of_the_readme_contains_make_run_and_make_test() {
    let readme = read("README.md");
    let block = readme.split("```").nth(1).expect("there is a block of code");
    let commands: Vec<&str> = block.lines().filter_map(|line| line.split("  ").next()).collect();
    assert!(commands.contains(&"make run") && commands.contains(&"make test"), "{commands:?}");
    let makefile = read("Makefile");
    assert!(makefile.contains("\nrun:") && makefile.contains("\ntest:"), "both are targets");
}

#[test]
fn headers_named_in_documents_exist() {
    let (caching, sources) = (read("docs/CACHING.md"), sources());
    for heading in ["Request controls", "Response headers"] {
        let section = section(&caching, heading);
        for cell in first_cells(&section) {
            let parts = cell.split([':', ' ', '=']).map(|part| part.trim_matches('*'));
            for part in parts.filter(|part| part.len() > 1) {
                assert!(
                    sources.contains(&format!("\"{part}")),
                    "{heading}: nothing in src/ knows {part:?} of {cell:?}"
                );
            }
        }
    }
    let documents: String = documents().iter().map(|document| read(document)).collect();
    let named: BTreeSet<&str> = documents
        .split(|letter: char| !(letter.is_ascii_lowercase() || letter == '-'))
        .filter(|word| word.starts_with("x-vecho-") && word.len() > "x-vecho-".len())
        .collect();
    for header in named {
        assert!(sources.contains(&format!("\"{header}\"")), "nothing in src/ knows {header}");
    }
}

#[test]
fn the_guides_name_every_vecho_header() {
    let (guides, sources) = (["docs/CACHING.md", "docs/OPS.md"].map(read).concat(), sources());
    let headers: BTreeSet<&str> = sources
        .split('"')
        .filter(|text| text.starts_with("x-vecho-") && text.len() > "x-vecho-".len() && !text.contains(' '))
        .collect();
    assert!(headers.len() >= 6, "the sources name their headers: {headers:?}");
    for header in headers {
        assert!(guides.contains(&format!("`{header}")), "docs/CACHING.md and docs/OPS.md do not name {header}");
    }
}

#[test]
fn the_caching_guide_lists_every_bypass_reason() {
    let caching = read("docs/CACHING.md");
    let known: BTreeSet<&str> = Bypass::ALL.iter().map(|reason| reason.label()).collect();
    let section = section(&caching, "Reasons for a bypass");
    let (_, table) = section.split_once("| `x-vecho-bypass-reason` |").expect("there is a table of reasons");
    let named: BTreeSet<&str> = first_cells(table).into_iter().collect();
    assert_eq!(named, known);
}

#[tokio::test]
async fn the_ops_guide_lists_exactly_the_existing_routes() {
    let vecho = Vecho::start_with("mock:", &[]);
    let (client, base) = (Client::new(), format!("http://{}", vecho.admin()));
    let guide = read("docs/OPS.md");
    let section = section(&guide, "Routes");
    let routes: BTreeSet<(&str, &str)> =
        first_cells(&section).into_iter().filter_map(|cell| cell.split_once(' ')).collect();
    for (method, path) in &routes {
        let body = match path.rsplit('/').next() {
            Some("log-level") => Bytes::from_static(b"info"),
            Some("import") => exported_nothing(),
            Some("charge") => Bytes::from_static(br#"{"model":"tiny","tokens":1}"#),
            Some("forget") => Bytes::from_static(br#"{"model":"tiny","input":"a"}"#),
            _ => Bytes::new(),
        };
        // The event stream never ends, so only its head is requested.
        let method = if *path == "/api/events" { "HEAD" } else { method };
        let method = Method::from_bytes(method.as_bytes()).expect("the guide names a method");
        let answer = client.send(raw(method, &format!("{base}{path}"), body)).await.expect("an answer must arrive");
        assert!((200..300).contains(&answer.status), "{path} answers {}", answer.status);
    }
    let index = client.get(&format!("{base}/")).await;
    let index = String::from_utf8(index.body.to_vec()).expect("the index is text");
    let answered = index.lines().filter(|line| line.contains(" /")).map(|line| {
        let mut words = line.split_whitespace();
        (words.next().unwrap_or_default(), words.next().unwrap_or_default())
    });
    assert_eq!(routes, answered.collect());
}

/// Returns the export file of an empty cache.
fn exported_nothing() -> Bytes {
    let mut file = Vec::new();
    ExportWriter::begin(&mut file).end(&mut file);
    file.into()
}

#[test]
fn metrics_named_in_documents_exist() {
    let names: BTreeSet<&str> = CATALOGUE.iter().map(|family| family.name).collect();
    for document in &documents() {
        let text = read(document);
        for word in words(&text).filter(|word| word.starts_with("vecho_")) {
            assert!(names.contains(word), "{document}: there is no metric {word}");
        }
    }
}

#[test]
fn configuration_keys_named_in_documents_exist() {
    let known: BTreeSet<&str> = KEYS.iter().map(|key| key.name).collect();
    let sections: BTreeSet<&str> = KEYS.iter().filter_map(|key| key.split().0).collect();
    for document in documents().iter().filter(|document| !document.starts_with("charts/")) {
        let text = read(document);
        for span in code_spans(&text) {
            let key = span.split(" =").next().unwrap_or_default();
            let is_key = key.split_once('.').is_some_and(|(section, name)| {
                sections.contains(section) && name.chars().all(|letter| letter.is_ascii_lowercase() || letter == '_')
            });
            // The file name `config.rs` and attributes of clients can look like keys. Only names in a known section
            // are checked.
            assert!(!is_key || known.contains(key), "{document}: there is no key {key}");
        }
    }
}

#[test]
fn the_reference_file_has_every_key_in_its_section() {
    let text = read("config/vecho.toml");
    assert_eq!(text, reference());
    let mut said = BTreeSet::new();
    let mut section = None;
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = Some(name);
        } else if let Some((name, _)) = line.trim_start_matches("# ").split_once(" =") {
            said.insert(section.map_or_else(|| name.to_owned(), |section| format!("{section}.{name}")));
        }
    }
    for key in KEYS {
        assert!(said.contains(key.name), "config/vecho.toml lacks {}", key.name);
    }
}

#[test]
fn the_configuration_guide_lists_live_keys_and_well_known_variables() {
    let guide = read("docs/CONFIGURATION.md");
    let list = guide.split("<!-- live keys -->").nth(1).and_then(|rest| rest.split("<!-- end").next());
    let listed: BTreeSet<&str> = code_spans(list.expect("there is a list of live keys")).into_iter().collect();
    let live: BTreeSet<&str> = KEYS.iter().filter(|key| key.live).map(|key| key.name).collect();
    assert_eq!(listed, live);
    for (variable, key) in WELL_KNOWN {
        assert!(guide.contains(&format!("| `{variable}` | `{key}` |")), "docs/CONFIGURATION.md lacks {variable}");
    }
}

#[test]
fn no_document_mentions_a_file_that_does_not_exist() {
    for document in &documents() {
        let text = read(document);
        let folder = root().join(document).parent().map(Path::to_owned).expect("a file is in a folder");
        for link in links(&text) {
            assert!(folder.join(link).exists(), "{document}: there is no {link}");
        }
        for path in code_spans(&text).into_iter().filter(|span| is_path(span)) {
            assert!(root().join(path).exists(), "{document}: there is no {path}");
        }
    }
}

#[test]
fn links_to_sections_resolve() {
    for document in &documents() {
        let text = read(document);
        let folder = root().join(document).parent().map(Path::to_owned).expect("a file is in a folder");
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for (file, anchor) in
            targets.filter(|target| !target.contains("://")).filter_map(|target| target.split_once('#'))
        {
            let there = if file.is_empty() { root().join(document) } else { folder.join(file) };
            let there = fs::read_to_string(&there).unwrap_or_else(|error| panic!("{document}: {file}: {error}"));
            assert!(anchors(&there).any(|name| name == anchor), "{document}: {file} has no section #{anchor}");
        }
    }
}

/// Returns the link anchors of all headings.
fn anchors(text: &str) -> impl Iterator<Item = String> {
    let headings = text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let is_kept = |letter: &char| letter.is_alphanumeric() || " -_".contains(*letter);
    headings.map(move |heading| heading.to_lowercase().chars().filter(is_kept).collect::<String>().replace(' ', "-"))
}

#[test]
fn code_places_named_in_design_documents_exist() {
    let files = source_files();
    let is_design = |document: &&String| *document == "ARCHITECTURE.md" || document.starts_with("docs/design/");
    for document in documents().iter().filter(is_design) {
        let text = read(document);
        let places: BTreeSet<(&str, &str)> =
            code_spans(&text).into_iter().filter_map(|span| span.split_once("::")).collect();
        let least = if document == "ARCHITECTURE.md" { 10 } else { 0 };
        assert!(places.len() >= least, "the invariants name their places: {places:?}");
        for (owner, function) in places {
            // In one file: a function of that name elsewhere is another one.
            let starts = ["(", "<"].map(|next| format!("fn {function}{next}"));
            let is_there = |file: &String| {
                starts.iter().any(|start| file.contains(start)) && words(file).any(|word| word == owner)
            };
            assert!(files.iter().any(is_there), "{document}: there is no {owner}::{function}");
        }
    }
}

/// A name counts as defined by `fn`, `struct` and the like; of `Type::method` the file must also name the type.
#[test]
fn names_are_defined_in_the_file_that_the_document_states() {
    let mut found = 0;
    for document in &documents() {
        let text = read(document);
        for (name, path) in placed_names(&text) {
            let file = read(&path);
            let (owner, item) = name.rsplit_once("::").unwrap_or((&name, &name));
            let defines = |keyword: &str| {
                let definition = format!("{keyword} {item}");
                file.match_indices(&definition)
                    .any(|(at, _)| words(&file[at + keyword.len() + 1..]).next() == Some(item))
            };
            let is_defined = ["fn", "struct", "enum", "trait", "type", "const", "static"].into_iter().any(defines);
            let owner_is_named = owner == item || words(&file).any(|word| word == owner);
            assert!(is_defined && owner_is_named, "{document}: {path} does not define {name}");
            found += 1;
        }
    }
    assert!(found > 40, "the documents state the files of names: {found}");
}

/// Returns the names of each list "`A`, `B` and `C` in `src/file.rs`", with the path.
fn placed_names(text: &str) -> Vec<(String, String)> {
    let outside_fences: String = text.split("```").step_by(2).collect();
    let text = outside_fences.split_whitespace().collect::<Vec<&str>>().join(" ");
    let parts: Vec<&str> = text.split('`').collect();
    let is_file = |part: &str| is_path(part) && Path::new(part).extension().is_some_and(|kind| kind == "rs");
    let mut placed = Vec::new();
    for at in (3..parts.len()).step_by(2).filter(|at| is_file(parts[*at]) && parts[at - 1] == " in ") {
        let mut place = at - 2;
        while !is_path(parts[place]) {
            placed.push((parts[place].to_owned(), parts[at].to_owned()));
            if place < 3 || ![", ", " and ", ", and "].contains(&parts[place - 1]) {
                break;
            }
            place -= 2;
        }
    }
    placed
}

#[test]
fn every_name_of_a_list_is_placed_in_the_file_after_it() {
    let text = "x `A` in `src/a.rs` and `B`,\n`C::d` in `src/b.rs`, as `e` and\n```\n`F` in `src/f.rs`\n```\n`G` of `h` in `src/h.rs`";
    let placed = placed_names(text);
    let placed: Vec<(&str, &str)> = placed.iter().map(|(name, path)| (&**name, &**path)).collect();
    assert_eq!(placed, [("A", "src/a.rs"), ("C::d", "src/b.rs"), ("B", "src/b.rs"), ("h", "src/h.rs")]);
}

/// Returns the targets of relative links, without their anchors.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
    targets.filter(|target| !target.is_empty() && !target.contains("://"))
}

fn is_path(span: &str) -> bool {
    FOLDERS.iter().any(|folder| span.starts_with(folder)) && !span.contains([' ', '*'])
}
