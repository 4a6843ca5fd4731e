//! The table of `docs/COMPATIBILITY.md`, generated from the rows of the matrix.

use std::fmt::Write as _;

use super::row::{Expect, Row};

const BEGIN: &str = "<!-- matrix -->\n";
const END: &str = "<!-- end -->";

/// Returns the page with its table replaced by this one.
pub(crate) fn replaced(page: &str, table: &str) -> String {
    let (before, rest) = page.split_once(BEGIN).expect("the page has a place for the table");
    let (_, after) = rest.split_once(END).expect("the table ends");
    format!("{before}{BEGIN}{table}{END}{after}")
}

/// Returns the table with one line for each server, in the order of the rows.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut servers: Vec<&Row> = Vec::new();
    for row in rows {
        if !servers.iter().any(|known| known.dialect.name == row.dialect.name) {
            servers.push(row);
        }
    }
    let mut table =
        String::from("| server | path | differs from OpenAI | client requests tested |\n|---|---|---|---|\n");
    for server in servers {
        let dialect = &server.dialect;
        let of_server: Vec<&Row> = rows.iter().filter(|row| row.dialect.name == dialect.name).collect();
        let path = dialect.path.split('?').next().unwrap_or_default();
        let _ = writeln!(table, "| {} | `{path}` | {} | {} |", dialect.name, dialect.differs, tested(&of_server));
    }
    table
}

/// Returns the requests, grouped by outcome.
fn tested(rows: &[&Row]) -> String {
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for row in rows {
        let (group, request) = (outcome(row.expect), request(row));
        match groups.iter_mut().find(|(known, _)| *known == group) {
            Some((_, requests)) => requests.push(request),
            None => groups.push((group, vec![request])),
        }
    }
    let groups: Vec<String> =
        groups.into_iter().map(|(group, requests)| format!("{group}: {}", requests.join(", "))).collect();
    groups.join("; ")
}

fn outcome(expect: Expect) -> String {
    match expect {
        Expect::Hit => "cached".to_owned(),
        Expect::Cut => "cut and cached".to_owned(),
        Expect::Bypass(reason) => format!("passed through as `{reason}`"),
        Expect::Refused => "refused in the server's words".to_owned(),
        Expect::Fails => "failed in the server's words".to_owned(),
        Expect::AsDirect(why) => format!("as directly ({why})"),
    }
}

fn request(row: &Row) -> String {
    let path = if row.path == row.dialect.path { String::new() } else { format!(" at `{}`", row.path) };
    let settings: Vec<String> = row.settings.iter().map(|(key, value)| format!(" with `{key} = {value}`")).collect();
    format!("{}{path}{}", row.request.name, settings.concat())
}
