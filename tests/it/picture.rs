//! The picture of the dashboard in README: a real browser renders it, and it shows the dashboard as it is now.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use serde_json::json;

use crate::harness::script::PICTURE;
use crate::harness::{Stub, Vecho};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const PUBLISHED: &str = "docs/dashboard.png";
/// Digests of the page's files at the time of the published picture.
const DIGESTS: &str = "tests/fixtures/dashboard_picture.txt";
/// Requests behind the published picture: about a minute, so that the charts have a shape.
const PUBLISHED_REQUESTS: u32 = 8_000;
const TESTED_REQUESTS: u32 = 60;

#[test]
fn the_picture_in_the_readme_shows_the_dashboard_of_this_version() {
    let readme = fs::read_to_string(Path::new(ROOT).join("README.md")).expect("README can be read");
    assert!(readme.contains(PUBLISHED), "README shows {PUBLISHED}");
    let digests = digests_of_the_page();
    if std::env::var_os("UPDATE_PICTURE").is_some() {
        render(&Path::new(ROOT).join(PUBLISHED), PUBLISHED_REQUESTS);
        fs::write(Path::new(ROOT).join(DIGESTS), &digests).expect("the digests can be written");
        return;
    }
    render(&Path::new(ROOT).join("target/dashboard/picture.png"), TESTED_REQUESTS);
    let published = fs::read_to_string(Path::new(ROOT).join(DIGESTS)).unwrap_or_default();
    assert!(published == digests, "the dashboard has changed: render {PUBLISHED} again with UPDATE_PICTURE=1");
    let picture = fs::read(Path::new(ROOT).join(PUBLISHED)).expect("the published picture can be read");
    assert_eq!(size(&picture), size_of_rendered(), "the published picture has the size that the browser renders");
}

/// Renders the dashboard while `requests` requests are served, and checks that the page logs no error.
fn render(path: &Path, requests: u32) {
    let stub = Stub::start();
    let vecho = Vecho::start(&stub);
    let mut command = PICTURE.command();
    command.env("BASE_URL", vecho.base_url()).env("OPS_URL", vecho.ops_url(""));
    command.env("PICTURE", path).env("REQUESTS", requests.to_string());
    let report = PICTURE.report(command);
    assert_eq!((&report["complaints"], &report["elsewhere"]), (&json!([]), &json!([])), "{report}");
    assert_eq!(report["shown"], report["total"], "all requests reach the page");
}

fn size_of_rendered() -> (u32, u32) {
    size(&fs::read(Path::new(ROOT).join("target/dashboard/picture.png")).expect("the rendered picture can be read"))
}

/// Returns width and height of a PNG file, which its first chunk holds (PNG specification, section 11.2.1).
fn size(png: &[u8]) -> (u32, u32) {
    assert_eq!(png.get(12..16), Some(&b"IHDR"[..]), "the file is a PNG");
    let number = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().expect("four bytes"));
    (number(16), number(20))
}

/// Returns one line per file of the page: its digest and its name.
fn digests_of_the_page() -> String {
    let folder = Path::new(ROOT).join("src/admin/dashboard");
    let files = fs::read_dir(&folder).expect("the page's files can be listed");
    let mut names: Vec<_> =
        files.map(|file| file.expect("an entry").file_name().into_string().expect("a name in UTF-8")).collect();
    names.retain(|name| Path::new(name).extension().is_none_or(|extension| extension != "rs"));
    names.sort();
    names.iter().fold(String::new(), |mut lines, name| {
        let content = fs::read(folder.join(name)).expect("a file can be read");
        writeln!(lines, "{} {name}", blake3::hash(&content).to_hex()).expect("a string takes all");
        lines
    })
}
