//! The description of the routes agrees with the route table.

use std::collections::BTreeSet;

use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde_json::{Value, json};

use super::client::get;
use super::parts::context;
use crate::admin::guard::Access;
use crate::admin::service::{OPENAPI, ROUTES};

fn document() -> Value {
    serde_json::from_str(OPENAPI).expect("the document must be JSON")
}

/// Returns path, method, access and security of each described operation of the ops port.
fn described() -> BTreeSet<(String, String, String, String)> {
    let document = document();
    let mut operations = BTreeSet::new();
    for (path, item) in document["paths"].as_object().expect("an object") {
        for (method, operation) in item.as_object().expect("an object").iter().filter(|(name, _)| *name != "servers") {
            if operation["tags"] == json!(["ops"]) {
                let access = operation["x-access"].as_str().unwrap_or_default().to_owned();
                operations.insert((path.clone(), method.to_uppercase(), access, operation["security"].to_string()));
            }
        }
    }
    operations
}

#[test]
fn the_document_describes_exactly_the_routes_of_the_table() {
    let guarded = json!([{"token": []}, {"tokenHeader": []}, {}]);
    let routes = ROUTES.iter().map(|route| {
        let (access, security) = match route.access {
            Access::Open => ("open", json!([])),
            Access::Figures => ("figures", guarded.clone()),
            Access::Private => ("private", guarded.clone()),
        };
        // A route with GET answers HEAD as well, as the document says once for all of them.
        let method = route.allow.strip_suffix(", HEAD").unwrap_or(route.allow);
        (route.path.to_owned(), method.to_owned(), access.to_owned(), security.to_string())
    });
    assert_eq!(described(), routes.collect());
}

#[tokio::test]
async fn the_document_is_served_as_it_is_in_the_source() {
    let answer = get(&context(), "/openapi.json").await;
    assert_eq!((answer.status, &answer.headers[CONTENT_TYPE]), (StatusCode::OK, &"application/json".parse().unwrap()));
    assert_eq!(answer.text(), OPENAPI);
    assert_eq!(document()["info"]["version"], env!("CARGO_PKG_VERSION"));
}
