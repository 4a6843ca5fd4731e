//! The structure of the crate: layers without upward or sideways edges, dependencies with owners, limits on size.
//!
//! The layers are parsed from `src/lib.rs` itself, so the map and this test cannot diverge.

mod code;
mod cycles;
mod map;
mod names;
mod rules;

use std::collections::BTreeSet;

use code::{File, read_folder};
use cycles::file_cycles;
use map::{Map, cycle, edges};

fn sources() -> Vec<File> {
    let files: Vec<File> = read_folder("src").into_iter().filter(|file| !file.is_test()).collect();
    assert!(files.len() > 50, "the sources must have been found");
    files
}

fn map() -> Map {
    Map::read(&sources().into_iter().find(|file| file.path == "lib.rs").expect("lib.rs is there").text)
}

fn none(complaints: impl IntoIterator<Item = String>) {
    let complaints: Vec<String> = complaints.into_iter().collect();
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn every_module_is_in_a_layer_of_the_map() {
    let files = sources();
    let on_disk: BTreeSet<&str> =
        files.iter().map(File::module).filter(|name| !matches!(*name, "lib" | "main")).collect();
    assert_eq!(map().modules(), on_disk);
}

#[test]
fn modules_use_only_lower_layers() {
    none(map().wrong_edges(&edges(&sources())));
}

#[test]
fn modules_have_no_cycles() {
    assert_eq!(cycle(&edges(&sources())), None);
}

#[test]
fn every_package_with_a_level_in_the_release_profile_has_one_in_dist() {
    let text = std::fs::read_to_string("Cargo.toml").expect("it can be read");
    let manifest: toml::Table = text.parse().expect("cargo reads it, too");
    let packages = |profile: &str| -> BTreeSet<String> {
        let levels = manifest["profile"][profile]["package"].as_table().expect("it is a table");
        levels.keys().filter(|name| *name != "*").cloned().collect()
    };
    let release = packages("release");
    assert!(release.len() > 10, "the list must have been found");
    // Dist inherits the levels of release, which are for a quick build.
    none(release.difference(&packages("dist")).map(|name| format!("Cargo.toml: dist has no level for {name}")));
}

#[test]
fn files_have_no_cycles() {
    none(file_cycles(&sources()));
    none(
        ["benches/codings", "benches/compare", "benches/counts", "benches/disk", "benches/load"]
            .into_iter()
            .flat_map(|bench| file_cycles(&read_folder(bench))),
    );
}

#[test]
fn each_dependency_is_used_only_by_its_owner() {
    none(sources().iter().flat_map(rules::strays));
    let manifest = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).unwrap();
    for (name, _) in rules::OWNERS {
        let lines = [name.replace('_', "-"), (*name).to_owned()].map(|name| format!("\n{name} = "));
        assert!(lines.iter().any(|line| manifest.contains(line)), "{name} has an owner and is no dependency");
    }
}

#[test]
fn forbidden_constructs_are_not_used() {
    none(sources().iter().flat_map(rules::forbidden));
    none(["src", "tests", "benches"].into_iter().flat_map(read_folder).flat_map(|file| rules::allows(&file)));
}

#[test]
fn mod_files_hold_only_documentation_and_names() {
    none(read_folder("src").iter().flat_map(rules::code_in_door));
}

#[test]
fn no_type_name_is_defined_twice() {
    none(names::defined_twice(&sources(), names::SHARED_NAMES));
}

#[test]
fn files_and_functions_stay_within_their_limits() {
    none(["src", "tests", "benches"].into_iter().flat_map(read_folder).filter_map(|file| rules::overlong_file(&file)));
    none(sources().iter().flat_map(rules::overlong_functions));
}

/// Tests that each of the checks above can fail.
mod the_checks {
    use super::rules::{allows, code_in_door, forbidden, overlong_file, overlong_functions, strays};
    use super::*;

    const LIB: &str = "//! Docs.\n\n// Layer 2: the parts.\npub mod up;\npub mod beside;\n\n// Layer 1: keys.\npub mod down;\n\n\
                       // Layer 0: the ground.\npub mod deep;\n";

    fn wrong(path: &str, text: &str) -> usize {
        Map::read(LIB).wrong_edges(&edges(&[File::new(path, text)])).len()
    }

    #[test]
    fn layers_are_read_from_headings() {
        assert_eq!(Map::read(LIB).modules(), BTreeSet::from(["beside", "deep", "down", "up"]));
        assert!(std::panic::catch_unwind(|| Map::read("pub mod lost;")).is_err());
    }

    #[test]
    fn only_upward_and_sideways_edges_are_reported() {
        assert_eq!(wrong("up.rs", "use crate::down::X;\nuse crate::up::Y;"), 0);
        assert_eq!(wrong("up/part.rs", "use crate::beside::X;"), 1, "sideways");
        assert_eq!(wrong("down.rs", "fn f() { crate::up::g() }"), 1, "upward, by a path in an expression");
        assert_eq!(wrong("down.rs", "use crate::{deep::{X, up}, beside};"), 1, "one of a list");
        assert_eq!(wrong("down.rs", "pub(crate) use crate::nowhere::X;"), 1, "a module that the map does not know");
    }

    #[test]
    fn comments_texts_and_unit_tests_are_no_edges() {
        let text = "// crate::up\n/* crate::up /* */ crate::up */ const A: &str = \"crate::up\";\nconst B: &str = \
                    r#\"\" crate::up\"#;\nfn f<'a>(c: char) -> bool { c == '\"' }\n#[cfg(test)]\nmod tests {\n use \
                    crate::up::X;\n fn g() {}\n}\n#[cfg(test)]\n#[path = \"x.rs\"]\nmod more;\nuse crate::deep::Y;\n";
        assert_eq!(wrong("down.rs", text), 0);
        assert_eq!(wrong("down.rs", &format!("{text}use crate::up::X;")), 1, "what follows them is");
    }

    #[test]
    fn cycles_between_modules_are_found() {
        let files = [
            File::new("a.rs", "use crate::b::X;"),
            File::new("b/x.rs", "use crate::{c, a as other};"),
            File::new("c.rs", "use crate::d::X;"),
        ];
        assert_eq!(cycle(&edges(&files)), Some(vec!["a".to_owned(), "b".to_owned(), "a".to_owned()]));
        assert_eq!(cycle(&edges(&files[..1])), None);
        assert_eq!(cycle(&edges(&files[1..])), None);
    }

    #[test]
    fn cycles_between_files_are_found() {
        let door = File::new("a/mod.rs", "mod b;\nmod c;\npub use b::B;\npub use c::{C, D as E};\n");
        let cycles = |b: &str, c: &str| {
            file_cycles(&[door.clone(), File::new("a/b.rs", b), File::new("a/c/mod.rs", c), File::new("a/c/d.rs", c)])
        };
        assert_eq!(cycles("use super::C;", ""), Vec::<String>::new());
        assert_eq!(cycles("use super::c::C;", "use super::Other;"), Vec::<String>::new());
        assert_eq!(cycles("use super::{C, B};", "use super::b::B;"), ["a/: b -> c -> b"]);
        assert_eq!(cycles("fn f() { super::c::C }", "use crate::a::B;"), ["a/: b -> c -> b"]);
        assert_eq!(cycles("use super::C;", "use super::super::B;"), ["a/: b -> c -> b"], "from a subfolder");
    }

    #[test]
    fn dependencies_outside_their_owner_are_found() {
        assert_eq!(strays(&File::new("cache/memory.rs", "use quick_cache::sync::Cache;")).len(), 1);
        assert_eq!(strays(&File::new("cache/bounded/map.rs", "use quick_cache::sync::Cache;")).len(), 0);
        assert_eq!(strays(&File::new("config/x.rs", "fn f() { toml::from_str(x); blake3::hash(y) }")).len(), 1);
        assert_eq!(strays(&File::new("flow.rs", "use crate::toml::X; use mytoml::Y; // toml::Z")).len(), 0);
    }

    #[test]
    fn forbidden_words_are_found() {
        let found = |path: &str, text: &str| forbidden(&File::new(path, text)).len();
        assert_eq!(found("a.rs", "fn f() { x.unwrap(); todo!(); println!(); tokio::spawn(y); unsafe { z } }"), 5);
        assert_eq!(found("a.rs", "x.unwrap_or(1); y.expect_err(2); #![deny(unsafe_code)] // .unwrap()"), 0);
        assert_eq!(found("process/tasks.rs", "tokio::spawn(x)"), 0);
        assert_eq!(found("process/tasks.rs", "unsafe { x }"), 1);
        assert_eq!(found("a.rs", "#[cfg(test)]\nmod tests { fn f() { x.unwrap() } }"), 0);
        assert_eq!(allows(&File::new("a.rs", "#[cfg(test)]\nmod tests { #[allow(unused)] fn f() {} }")).len(), 1);
    }

    #[test]
    fn a_name_that_is_defined_twice_is_found() {
        let twice = |one: &str, other: &str, allowed| {
            let files = [File::new("a.rs", one), File::new("b.rs", other)];
            names::defined_twice(&files, allowed).len()
        };
        assert_eq!(twice("pub struct A;", "enum A {}\ntrait B {}", &[]), 1);
        assert_eq!(twice("type A = u8;", "impl X for Y { type A = u8; }", &[]), 0, "an associated type");
        assert_eq!(twice("struct A;", "#[cfg(test)]\nmod tests { struct A; }\n// struct A", &[]), 0);
        assert_eq!(twice("labels! {\n    /// Doc.\n    A { B = \"b\", }\n}", "struct A;", &[]), 1, "by a macro");
        assert_eq!(twice("struct A;", "struct A;", &[("A", "reason")]), 0);
        assert_eq!(twice("struct A;", "struct B;", &[("A", "reason")]), 1, "an exception that is not needed");
    }

    #[test]
    fn code_in_a_mod_file_is_found() {
        let found = |path: &str, text: &str| code_in_door(&File::new(path, text)).len();
        assert_eq!(found("a/mod.rs", "//! fn\nmod b;\npub use b::{self, C};\n#[cfg(test)]\nmod tests;\n"), 0);
        assert_eq!(found("a/mod.rs", "pub const X: u8 = 0;\nstruct Y;\nimpl Y { fn z() {} }\n"), 4);
        assert_eq!(found("a/mod.rs", "#[cfg(test)]\nmod tests { fn f() {} }\n"), 1);
        assert_eq!(found("a/b.rs", "fn f() {}"), 0);
    }

    #[test]
    fn overlong_files_and_functions_are_found() {
        let body = "    x();\n".repeat(58);
        let short = format!("fn f(a: [u8; 2]) {{\n{body}}}\n");
        let long = format!("fn f(a: [u8; 2]) {{\n    x();\n{body}}}\n");
        let excused = format!("#[expect(clippy::too_many_lines, reason = \"one table\")]\n{long}");
        let found = |text: &str| overlong_functions(&File::new("a.rs", text)).len();
        assert_eq!((found(&short), found(&long), found(&excused)), (0, 1, 0));
        assert_eq!(found(&format!("{excused}{long}")), 1, "an excuse holds for one function");
        assert!(overlong_file(&File::new("a.rs", &"\n".repeat(400))).is_none());
        assert!(overlong_file(&File::new("a.rs", &"\n".repeat(401))).is_some());
    }
}
