//! The packages of a release, and the workflows that publish them. Each check is a function of a script in
//! `tests/packages/`, and installs the packages of the tests' own program without a network.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap_complete::Shell;
use vecho::cli;

/// The checks by script.
const CHECKS: &[(&str, &[&str])] = &[
    (
        "installing",
        &[
            "the_archive_has_a_program_that_serves",
            "the_wheel_installs_a_command_and_a_module_that_serve",
            "the_module_finds_the_program_of_a_target_folder",
            "the_npm_packages_install_a_command_that_serves_and_stops_in_order",
            "the_launcher_names_the_missing_package",
        ],
    ),
    (
        "contents",
        &[
            "make_dist_writes_the_same_bytes_again",
            "programs_for_other_machines_are_refused",
            "the_bill_of_materials_is_valid_and_names_the_linked_crates",
            "the_notices_have_the_licence_of_every_linked_crate",
            "the_crate_has_every_file_that_its_build_reads",
            "a_new_version_reaches_every_file_that_names_it",
            "every_version_is_that_of_the_crate",
            "cargo_packs_the_crate",
            "the_published_chart_names_its_image_and_its_project",
            "the_release_notes_are_the_section_of_the_version",
        ],
    ),
    (
        "workflows",
        &[
            "the_linters_accept_every_workflow",
            "publishing_needs_a_tag_and_all_other_jobs",
            "the_release_builds_every_target_with_make_dist",
        ],
    ),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// Runs all checks of a script, and panics with the error output of those that fail.
fn check(script: &str) {
    let python = root().join("target/test-env/packages/bin/python");
    assert!(python.exists(), "the environment of this test is not installed: run `bash scripts/setup-tests` first");
    let (_, names) = CHECKS.iter().find(|(name, _)| *name == script).expect("the script has checks");
    let mut command = Command::new(python);
    // One process for all of them: what they share is made once.
    command.arg(root().join(format!("tests/packages/{script}.py"))).args(*names);
    command.env("VECHO", env!("CARGO_BIN_EXE_vecho")).env("PYTHONDONTWRITEBYTECODE", "1");
    let output = command.output().expect("the interpreter must run");
    assert!(output.status.success(), "{script}.py:\n{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn packages_install_without_a_network_and_serve() {
    check("installing");
}

#[test]
fn packages_are_complete_and_reproducible() {
    check("contents");
}

#[test]
fn workflows_are_valid_and_publish_only_tags() {
    check("workflows");
}

#[test]
fn every_check_of_the_scripts_is_run() {
    for (script, names) in CHECKS {
        let text = std::fs::read_to_string(root().join(format!("tests/packages/{script}.py"))).expect("it is there");
        let lines = text.lines().filter_map(|line| line.strip_prefix("def ")?.strip_suffix("():"));
        // Checks have names of several words; their helper functions have names of one word.
        let written: BTreeSet<&str> = lines.filter(|name| name.contains('_')).collect();
        assert_eq!(written, names.iter().copied().collect(), "{script}");
    }
}

/// Returns completions and manual pages by file.
fn generated() -> Vec<(String, Vec<u8>)> {
    let shells = [("vecho.bash", Shell::Bash), ("_vecho", Shell::Zsh), ("vecho.fish", Shell::Fish)];
    let mut files: Vec<(String, Vec<u8>)> = shells
        .into_iter()
        .map(|(file, shell)| {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut cli::definition(), "vecho", &mut text);
            (format!("packaging/completions/{file}"), text)
        })
        .collect();
    files.extend(manual());
    files
}

/// Returns the manual pages, one for vecho and one for each command.
fn manual() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("manual");
    std::fs::create_dir_all(&folder).expect("a folder must be writable");
    // `vecho help` is the same text as `--help`, so it has no page.
    let command = cli::definition().disable_help_subcommand(true);
    clap_mangen::generate_to(command, &folder).expect("pages must be writable");
    let pages = std::fs::read_dir(&folder).expect("the folder is readable").map(|entry| {
        let path = entry.expect("a page is readable").path();
        let name = path.file_name().expect("a file has a name").to_string_lossy().into_owned();
        (format!("packaging/man/{name}"), std::fs::read(&path).expect("a page is readable"))
    });
    pages.collect()
}

#[test]
fn completions_and_manual_pages_are_generated_from_the_command_line() {
    for (file, text) in generated() {
        let path = root().join(&file);
        if std::env::var_os("UPDATE_FIXTURES").is_some() {
            std::fs::write(&path, &text).expect("the file must be writable");
        }
        let same = std::fs::read(&path).unwrap_or_default() == text;
        assert!(same, "{file} differs from the command line; run this test once with UPDATE_FIXTURES=1");
    }
}
