//! The compatibility matrix: server dialects and client requests, each run directly and through vecho, cold and warm,
//! with the default configuration.
//!
//! To add a row, add a line to `dialects/table.rs`. To add a server, add a function to `dialects/services.rs` or
//! `dialects/local.rs` that combines parts of `dialects/quirks.rs`. To add a client request, add a line to
//! `dialects/requests.rs`. `VECHO_TEST_ROW` selects the rows whose names contain its value.

mod answer;
mod dialect;
mod faults;
mod front;
mod gzip;
mod local;
mod page;
mod quirks;
mod random;
mod received;
mod requests;
mod row;
mod run;
mod server;
mod services;
mod table;
mod verdict;

use futures_util::stream::{self, StreamExt as _};

use row::{Expect, Row};

/// Maximum number of rows that run concurrently.
const AT_ONCE: usize = 4;

fn selected() -> Vec<Row> {
    let rows = table::rows();
    match std::env::var("VECHO_TEST_ROW") {
        Ok(part) => rows.into_iter().filter(|row| row.name().contains(&part)).collect(),
        Err(_) => rows,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stderr, reason = "the summary is for the reader of the run")]
async fn every_client_gets_direct_answers_and_expected_caching_from_every_server() {
    let rows = selected();
    let is_cachable = |row: &Row| matches!(row.expect, Expect::Hit | Expect::Cut);
    let cachable = rows.iter().filter(|row| is_cachable(row)).count();
    let outcomes: Vec<run::Outcome> = stream::iter(&rows).map(run::run).buffered(AT_ONCE).collect().await;
    let good = outcomes.iter().filter(|outcome| outcome.is_good).count();
    let cached = outcomes.iter().filter(|outcome| outcome.is_cached).count();
    let summary = format!("{good} of {} cells as good as direct, {cached} of {cachable} cached", rows.len());
    eprintln!("{summary}");
    let bad = outcomes.iter().filter(|outcome| !outcome.complaints.is_empty());
    let bad: Vec<String> = bad.map(|outcome| format!("{}: {}", outcome.name, outcome.complaints.join("; "))).collect();
    assert!(bad.is_empty(), "{summary}\n{}", bad.join("\n"));
}

/// A request of one form, accepted or refused, does not affect later requests of other forms.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_one_server_do_not_affect_one_another() {
    let rows = table::rows();
    let mut servers: Vec<Vec<&Row>> = Vec::new();
    for row in rows.iter().filter(|row| row.settings.is_empty()) {
        match servers.iter_mut().find(|known| known[0].dialect.name == row.dialect.name) {
            Some(known) => known.push(row),
            None => servers.push(vec![row]),
        }
    }
    let found = stream::iter(&servers).map(|rows| run::mix(rows)).buffered(AT_ONCE).collect::<Vec<_>>().await;
    let found = found.concat();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn the_table_has_no_duplicate_row() {
    let mut names: Vec<String> = table::rows().iter().map(Row::name).collect();
    let all = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), all);
    assert!(all >= 60, "{all} rows");
}

#[test]
fn the_compatibility_page_contains_the_table_of_these_tests() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/COMPATIBILITY.md");
    let text = std::fs::read_to_string(path).expect("the page is readable");
    let table = page::table(&table::rows());
    if std::env::var_os("VECHO_WRITE_PAGE").is_some() {
        std::fs::write(path, page::replaced(&text, &table)).expect("the page is writable");
        return;
    }
    assert_eq!(page::replaced(&text, &table), text, "VECHO_WRITE_PAGE=1 with this test writes the table anew");
}
