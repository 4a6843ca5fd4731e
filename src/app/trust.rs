//! Checks the TLS files: `vecho check` and every start run this before any part is started.

use crate::config::{Config, Effective, Fault, Faults, Origin, TlsConfig};
use crate::process::certificate::pair_faults;
use crate::process::connector::roots_fault;

/// Returns every fault in the certificates and keys that a configuration names. The configuration reader has already
/// checked that they can be opened; this function checks their content. Blocks on the files.
pub fn check_trust(config: &Config) -> Result<(), Faults> {
    let redis = &config.redis;
    let roots = [
        ("upstream.ca_file", &config.upstream.ca_file),
        ("redis.ca_file", &redis.ca_file),
        ("traces.ca_file", &config.traces.ca_file),
    ];
    let of_roots = roots.into_iter().filter_map(|(key, path)| Some((key, roots_fault(path.as_deref()?)?)));
    let pairs = [
        (["tls.cert_file", "tls.key_file"], &config.tls),
        (["upstream.cert_file", "upstream.key_file"], &config.upstream.egress.identity),
        (["redis.cert_file", "redis.key_file"], &redis.identity),
    ];
    let of_pairs = pairs.into_iter().flat_map(|(keys, files)| files.iter().flat_map(move |files| of_pair(keys, files)));
    let faults: Vec<Fault> =
        of_roots.chain(of_pairs).map(|(key, message)| fault(&config.effective, key, message)).collect();
    if faults.is_empty() { Ok(()) } else { Err(Faults(faults)) }
}

fn of_pair(keys: [&'static str; 2], files: &TlsConfig) -> impl Iterator<Item = (&'static str, String)> + use<> {
    keys.into_iter()
        .zip(pair_faults(&files.cert_file, &files.key_file))
        .filter_map(|(key, fault)| Some((key, fault?.to_string())))
}

fn fault(effective: &Effective, key: &str, message: String) -> Fault {
    let origin = effective.origin(key).cloned().unwrap_or(Origin::Default);
    Fault { key: key.to_owned(), origin, message }
}
