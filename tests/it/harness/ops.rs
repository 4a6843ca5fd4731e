//! Reads metrics from the ops port.

use std::net::SocketAddr;

use super::client::Client;
use super::wait::eventually;

/// Returns the value of one series, named with its labels as printed. Returns 0 if the series does not exist yet.
pub(crate) async fn metric(admin: SocketAddr, series: &str) -> f64 {
    let text = Client::new().get(&format!("http://{admin}/metrics")).await.body;
    let text = String::from_utf8(text.to_vec()).expect("metrics are text");
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().expect("a metric's value is a number"))
}

/// Waits until a series has a value.
pub(crate) async fn metric_becomes(admin: SocketAddr, series: &str, value: f64) {
    let is_there = async || (metric(admin, series).await - value).abs() < f64::EPSILON;
    eventually(&format!("{series} {value}"), is_there).await;
}
