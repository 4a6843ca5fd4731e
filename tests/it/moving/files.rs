//! `vecho export` and `vecho import` between running instances.

use std::fs::Permissions;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use super::command::{NOWHERE, at, embed, is_hit, run, run_at, run_at_with};
use crate::harness::client::{Client, raw};
use crate::harness::scripted::{Act, Scripted, answer, ok};
use crate::harness::tls::Folder;
use crate::harness::{Stub, Vecho};
use vecho::cache::export::{ExportItem, ExportReader, ExportWriter};

const TEXTS: [&str; 3] = ["one", "two", "three"];

/// Starts two instances with one upstream. The first one has cached the texts.
async fn pair() -> (Stub, Vecho, Vecho) {
    let stub = Stub::start();
    let (from, to) = (Vecho::start(&stub), Vecho::start(&stub));
    assert_eq!(embed(&from, &TEXTS, "float").await.cache(), "miss");
    (stub, from, to)
}

#[tokio::test]
async fn an_exported_cache_gives_bit_exact_hits_on_another_instance() {
    let (stub, from, to) = pair().await;
    let folder = Folder::new("moved");
    let file = folder.path("cache");
    let file = file.to_str().expect("the path is text");
    run_at(&from, &["export", file]).well().said("exported 3 records");
    run_at(&to, &["import", file]).well().said("imported 3 records, skipped 0");
    is_hit(&to, &stub, &TEXTS).await;
    is_hit(&to, &stub, &["three", "one"]).await;
    let listed: Vec<_> = std::fs::read_dir(folder.path("")).expect("the folder is there").flatten().collect();
    assert_eq!(listed.len(), 1, "no draft is left: {listed:?}");
}

#[tokio::test]
async fn an_exported_file_contains_no_texts() {
    let stub = Stub::start();
    let vecho = Vecho::start(&stub);
    embed(&vecho, &["something very private"], "float").await;
    let file = run_at(&vecho, &["export", "-"]).well().out;
    assert!(file.starts_with(b"vecho cache 2\n"));
    assert!(!file.windows(4).any(|bytes| bytes == b"priv"), "no text is in it");
}

#[tokio::test]
async fn a_cache_can_be_moved_through_a_pipe() {
    let (stub, from, to) = pair().await;
    let binary = env!("CARGO_BIN_EXE_vecho");
    let (from_at, to_at) = (at(&from).join(" "), at(&to).join(" "));
    let line = format!("{binary} {from_at} export - | {binary} {to_at} import -");
    let piped = Command::new("sh").args(["-c", &line]).output().expect("sh must run");
    let said = String::from_utf8_lossy(&piped.stderr).into_owned();
    assert!(piped.status.success() && piped.stdout.is_empty(), "{said}");
    assert!(said.contains("exported 3 records to -") && said.contains("imported 3 records"), "{said}");
    is_hit(&to, &stub, &TEXTS).await;
}

#[tokio::test]
async fn a_truncated_import_is_completed_by_a_second_import() {
    let (stub, from, to) = pair().await;
    let file = run_at(&from, &["export", "-"]).well().out;
    let cut = run_at_with(&to, &["import", "-"], &[], &file[..file.len() / 2]);
    assert_eq!(cut.status, Some(1));
    let cut = cut.said("imported 1 record, skipped 0").said("the file is truncated or damaged");
    assert!(!cut.err.contains("1 damaged"), "{}", cut.err);
    run_at_with(&to, &["import", "-"], &[], &file).well().said("imported 2 records, skipped 1 (1 already there");
    run_at_with(&to, &["import", "-"], &[], &file).well().said("imported 0 records, skipped 3 (3 already there");
    is_hit(&to, &stub, &TEXTS).await;
}

#[tokio::test]
async fn purged_entries_can_be_imported_again() {
    let (stub, from, to) = pair().await;
    let file = run_at(&from, &["export", "-"]).well().out;
    embed(&to, &TEXTS, "float").await;
    let purged = Client::new().send(raw(http::Method::DELETE, &to.ops_url("/api/performance/cache"), "")).await;
    assert_eq!(purged.expect("it answers").status, 200);
    run_at_with(&to, &["import", "-"], &[], &file).well().said("imported 3 records");
    is_hit(&to, &stub, &TEXTS).await;
}

#[tokio::test]
async fn a_file_of_another_format_is_refused_with_its_cause() {
    let stub = Stub::start();
    let vecho = Vecho::start(&stub);
    for (file, cause) in [
        (&b""[..], "this is not an exported cache"),
        (b"{\"custom_id\":\"1\"}\n", "this is not an exported cache"),
        (b"vecho cache 9\n", "a format that this version does not know"),
    ] {
        let refused = run_at_with(&vecho, &["import", "-"], &[], file).said(cause);
        assert_eq!(refused.status, Some(1));
    }
    let missing = run_at(&vecho, &["import", "/nowhere/at/all"]).said("/nowhere/at/all: ");
    assert_eq!(missing.status, Some(1));
}

#[tokio::test]
async fn quiet_prints_only_errors() {
    let (_stub, from, to) = pair().await;
    let exported = run_at(&from, &["export", "-", "--quiet"]).well();
    assert_eq!(exported.err, "");
    let half = &exported.out[..exported.out.len() / 2];
    let imported = run_at_with(&to, &["import", "-", "--quiet"], &[], half);
    assert_eq!(imported.err, "vecho: the file is truncated or damaged; only its intact records were imported\n");
    assert_eq!(imported.status, Some(1));
}

#[tokio::test]
async fn concurrent_exports_to_one_file_do_not_interfere() {
    let (_stub, vecho, empty) = pair().await;
    let folder = Folder::new("two-exports");
    let (file, draft) = (folder.path("cache.vecho"), folder.path("cache.vecho.part"));
    let text = file.to_str().expect("it is text");
    let other = std::fs::File::create(&draft).expect("it can be made");
    other.lock().expect("it is free");
    let refused = run_at(&vecho, &["export", text]).said("another export writes it");
    assert_eq!((refused.status, file.exists()), (Some(1), false));
    assert!(draft.exists(), "it is the other's");
    // A killed export leaves its draft and no lock.
    std::fs::write(&draft, b"half of something longer than what comes now".repeat(1_000)).expect("it is there");
    drop(other);
    std::fs::set_permissions(&draft, Permissions::from_mode(0o644)).expect("it is ours");
    run_at(&vecho, &["export", text]).well().said("exported 3 records");
    let mode = std::fs::metadata(&file).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "vectors tell of their texts");
    run_at(&empty, &["import", text]).well().said("imported 3 records");
}

#[tokio::test]
async fn a_failed_export_leaves_no_file() {
    let (_stub, from, _to) = pair().await;
    let folder = Folder::new("unwritable");
    std::fs::create_dir_all(folder.path("taken/inside")).expect("the target folder is writable");
    let taken = folder.path("taken");
    // A file cannot replace a folder that is not empty.
    let failed = run_at(&from, &["export", taken.to_str().expect("the path is text")]);
    assert_eq!(failed.status, Some(1), "{}", failed.err);
    assert!(!folder.path("taken.part").exists());
}

#[tokio::test]
async fn an_import_that_a_tier_refuses_is_reported() {
    let (stub, from, _to) = pair().await;
    let forgetful = Vecho::start_with(&stub.base_url(), &[("VECHO_DISK_PATH", "/proc/vecho")]);
    forgetful.logged("the disk tier is off").await;
    let file = run_at(&from, &["export", "-"]).well().out;
    let imported = run_at_with(&forgetful, &["import", "-"], &[], &file);
    let imported = imported.said("imported 3 records").said("left out 3 records");
    assert_eq!(imported.status, Some(1));
    is_hit(&forgetful, &stub, &TEXTS).await;
}

#[tokio::test]
async fn a_silent_ops_port_times_out() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a loopback port must bind");
    let admin = silent.local_addr().expect("a bound socket has an address").to_string();
    let ended = run(&["--listen", NOWHERE, "--admin-listen", &admin, "export", "-"]);
    assert_eq!(ended.status, Some(1));
    ended.said("no answer from admin_listen").said(&admin);
}

/// Returns the same file with each record under the key of the next one. The checksums are right.
fn with_exchanged_records(file: &[u8]) -> Vec<u8> {
    let (mut reader, mut found) = (ExportReader::default(), Vec::new());
    reader.feed(file);
    reader.fed();
    while let Some(piece) = reader.next_item().expect("it is an export") {
        let ExportItem::Record(key, record) = piece else { panic!("nothing is damaged") };
        found.push((key, record));
    }
    let mut exchanged = Vec::new();
    let mut writer = ExportWriter::begin(&mut exchanged);
    for ((key, _), (_, record)) in found.iter().zip(found.iter().cycle().skip(1)) {
        writer.record(key, record, &mut exchanged).expect("it fits");
    }
    writer.end(&mut exchanged);
    exchanged
}

#[tokio::test]
async fn records_under_swapped_keys_are_not_imported() {
    let (stub, from, to) = pair().await;
    let file = with_exchanged_records(&run_at(&from, &["export", "-"]).well().out);
    let refused =
        run_at_with(&to, &["import", "-"], &[], &file).said("imported 0 records, skipped 0").said("3 damaged");
    assert_eq!(refused.status, Some(1), "a file with damaged records is not whole");
    assert_eq!(embed(&to, &TEXTS, "float").await.cache(), "miss");
    is_hit(&to, &stub, &TEXTS).await;
}

#[tokio::test]
async fn an_instance_with_another_secret_reports_all_records_as_damaged() {
    let stub = Stub::start();
    let with = |secret| Vecho::start_with(&stub.base_url(), &[("VECHO_CACHE_KEY_SECRET", secret)]);
    let (from, same, other) = (with("one"), with("one"), with("other"));
    embed(&from, &TEXTS, "float").await;
    let file = run_at(&from, &["export", "-"]).well().out;
    run_at_with(&same, &["import", "-"], &[], &file).well().said("imported 3 records");
    is_hit(&same, &stub, &TEXTS).await;
    run_at_with(&other, &["import", "-"], &[], &file).said("imported 0 records").said("3 damaged");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_without_its_end_record_fails_and_leaves_no_file() {
    // The first line of a file, and nothing more, in an answer that is whole.
    let server = Scripted::start(|arrival| {
        let is_export = arrival.head.starts_with("GET /api/performance/cache/export ");
        Act::Say(if is_export { answer("200 OK", "", "vecho cache 2\n") } else { ok("") })
    });
    let admin = server.await;
    let folder = Folder::new("no-end");
    let file = folder.path("cache.vecho");
    let at = admin.addr().to_string();
    let arguments = ["--listen", NOWHERE, "--admin-listen", &at, "export", file.to_str().expect("the path is text")];
    let ended = run(&arguments).said("the export broke off: its end did not come");
    assert_eq!((ended.status, file.exists()), (Some(1), false));
}
