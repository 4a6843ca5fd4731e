//! The proxies that are compared: command, configuration and environment of each.
//!
//! Each is configured for its best result: one worker for each core it gets, connections that stay open on both sides, a
//! cache in memory that never evicts, and no access log. All configuration files are in `benches/compare/config`.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Outcome;

const NGINX: &str = include_str!("config/nginx.conf");
const NGINX_BODY: &str = include_str!("config/nginx-body.js");
/// Folder of Debian's modules of nginx.
const NGINX_MODULES: &str = "/usr/lib/nginx/modules";
const VARNISH: &str = include_str!("config/varnish.vcl");
const LITELLM: &str = include_str!("config/litellm.yaml");

/// Parameter of Varnish that keeps each request out of its log; it has no word for all.
const VARNISH_LOG: &str = "vsl_mask=\
    -Begin,-End,-Link,-SessOpen,-SessClose,-Timestamp,-Length,-Filters,-Hit,-HitMiss,-HitPass,-VCL_call,\
    -VCL_return,-ReqStart,-ReqMethod,-ReqURL,-ReqProtocol,-ReqHeader,-ReqUnset,-ReqAcct,-RespProtocol,\
    -RespStatus,-RespReason,-RespHeader,-RespUnset,-BereqMethod,-BereqURL,-BereqProtocol,-BereqHeader,\
    -BereqUnset,-BereqAcct,-BerespProtocol,-BerespStatus,-BerespReason,-BerespHeader,-BerespUnset,\
    -BackendOpen,-BackendClose,-Fetch_Body,-Storage,-TTL";

/// A proxy that is compared.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proxy {
    /// The release binary of this build.
    Vecho,
    /// `proxy_cache`, with the body in the key.
    Nginx,
    /// With the body in the key.
    Varnish,
    /// Its cache in the memory of the process.
    LitellmLocal,
    /// Its cache in Redis.
    LitellmRedis,
    /// Has no cache in the package of npm, so it only forwards.
    Portkey,
}

/// The place of one proxy in a run.
pub(crate) struct Place {
    /// Folder for its files, on tmpfs.
    pub(crate) folder: PathBuf,
    /// Folder with the programs that `scripts/setup-compare` installed.
    pub(crate) installed: PathBuf,
    /// Address of the upstream.
    pub(crate) upstream: SocketAddr,
    /// Its own port.
    pub(crate) port: u16,
    /// A port for a further server of it.
    pub(crate) second_port: u16,
    /// Number of cores that it gets.
    pub(crate) workers: usize,
}

impl Proxy {
    /// All proxies in the order of the table.
    pub(crate) const ALL: [Self; 6] =
        [Self::Vecho, Self::Nginx, Self::Varnish, Self::LitellmLocal, Self::LitellmRedis, Self::Portkey];

    /// Returns the heading of its column.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Vecho => "vecho",
            Self::Nginx => "nginx",
            Self::Varnish => "Varnish",
            Self::LitellmLocal => "LiteLLM, local cache",
            Self::LitellmRedis => "LiteLLM, Redis",
            Self::Portkey => "Portkey, no cache",
        }
    }

    /// Returns its name in `target/compare-env/installed.tsv`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Vecho => "vecho",
            Self::Nginx => "nginx",
            Self::Varnish => "varnish",
            Self::LitellmLocal => "litellm",
            Self::LitellmRedis => "litellm+redis",
            Self::Portkey => "portkey",
        }
    }

    /// Returns true if one cached answer holds one input even if a request had many, so that batches fill the cache.
    pub(crate) fn caches_inputs(self) -> bool {
        matches!(self, Self::Vecho | Self::LitellmLocal | Self::LitellmRedis)
    }

    /// Returns the header lines that its requests need, each with its line end.
    pub(crate) fn headers(self, upstream: SocketAddr) -> String {
        match self {
            Self::Portkey => {
                format!("x-portkey-provider: openai\r\nx-portkey-custom-host: http://{upstream}/v1\r\n")
            }
            _ => String::new(),
        }
    }

    /// Writes its configuration and returns the commands that start it, the proxy itself last.
    pub(crate) fn commands(self, place: &Place) -> Outcome<Vec<Command>> {
        fs::create_dir_all(&place.folder)?;
        Ok(match self {
            Self::Vecho => vec![vecho(place)],
            Self::Nginx => vec![nginx(place)?],
            Self::Varnish => vec![varnish(place)?],
            Self::LitellmLocal => vec![litellm(place, "type: local")?],
            Self::LitellmRedis => {
                let cache = format!("type: redis\n    host: 127.0.0.1\n    port: {}", place.second_port);
                vec![redis(place), litellm(place, &cache)?]
            }
            Self::Portkey => vec![portkey(place)],
        })
    }
}

/// Returns the binary of vecho that is compared.
pub(crate) fn vecho_binary() -> PathBuf {
    std::env::var_os("VECHO_BENCH_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_vecho").into(), PathBuf::from)
}

/// Without a home directory there is no data folder and no disk tier, so all entries are in memory.
fn vecho(place: &Place) -> Command {
    let mut command = Command::new(vecho_binary());
    command.args(["--listen", &format!("127.0.0.1:{}", place.port), "--admin-listen", "127.0.0.1:0"]);
    command.args(["--workers", &place.workers.to_string(), "--upstream", &format!("http://{}/v1", place.upstream)]);
    command.args(["--log-level", "warn", "--set", "memory.limit_mb=8000"]);
    // The allocator setting of the image.
    command.env("GLIBC_TUNABLES", "glibc.malloc.tcache_count=32");
    command
}

fn nginx(place: &Place) -> Outcome<Command> {
    fs::write(place.folder.join("nginx-body.js"), NGINX_BODY)?;
    let words = [("{WORKERS}", place.workers.to_string()), ("{MODULES}", NGINX_MODULES.to_owned())];
    let file = write_config(place, "nginx.conf", NGINX, &words)?;
    let mut command = Command::new("nginx");
    // The error log of the command line is in use until the configuration is read.
    command.arg("-p").arg(&place.folder).arg("-c").arg(file).args(["-e", "stderr"]);
    Ok(command)
}

fn varnish(place: &Place) -> Outcome<Command> {
    let (host, port) = (place.upstream.ip().to_string(), place.upstream.port().to_string());
    let words = [("{UPSTREAM_HOST}", host), ("{UPSTREAM_PORT}", port)];
    let file = write_config(place, "varnish.vcl", VARNISH, &words)?;
    let mut command = Command::new("varnishd");
    command.arg("-F").arg("-n").arg(place.folder.join("work")).arg("-f").arg(file);
    command.args(["-a", &format!("127.0.0.1:{}", place.port), "-j", "none", "-s", "malloc,16g"]);
    // One pool of threads, with enough of them from the start; idle connections stay open on both sides.
    command.args(["-p", "thread_pools=1", "-p", "thread_pool_min=200", "-p", "thread_pool_max=2000"]);
    command.args(["-p", "timeout_idle=600", "-p", "backend_idle_timeout=600", "-p", "listen_depth=4096"]);
    // Answers are not compressed, and requests are not written to the log in shared memory.
    command.args(["-p", "http_gzip_support=off", "-p", VARNISH_LOG]);
    Ok(command)
}

fn litellm(place: &Place, cache: &str) -> Outcome<Command> {
    let file = write_config(place, "litellm.yaml", LITELLM, &[("{CACHE}", cache.to_owned())])?;
    let mut command = Command::new(place.installed.join("litellm/bin/litellm"));
    command.arg("--config").arg(file).args(["--host", "127.0.0.1", "--port", &place.port.to_string()]);
    command.args(["--num_workers", &place.workers.to_string(), "--keepalive_timeout", "600"]);
    command.env("LITELLM_LOG", "ERROR").env("LITELLM_MODE", "PRODUCTION");
    // Without a key of its own it does not check callers.
    command.env("LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY", "true");
    // The table of prices comes with the package; without this, each start tries to fetch it.
    command.env("LITELLM_LOCAL_MODEL_COST_MAP", "True");
    Ok(command)
}

/// Without persistence and without a limit.
fn redis(place: &Place) -> Command {
    let mut command = Command::new("redis-server");
    command.args(["--port", &place.second_port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"]);
    command.arg(&place.folder);
    command
}

fn portkey(place: &Place) -> Command {
    let mut command = Command::new("node");
    command.arg(place.installed.join("node/node_modules/@portkey-ai/gateway/build/start-server.js"));
    // Without its console, which records every request.
    command.args(["--headless", &format!("--port={}", place.port)]).env("NODE_ENV", "production");
    command
}

fn write_config(place: &Place, name: &str, template: &str, words: &[(&str, String)]) -> Outcome<PathBuf> {
    let common = [
        ("{FOLDER}", place.folder.display().to_string()),
        ("{PORT}", place.port.to_string()),
        ("{UPSTREAM}", place.upstream.to_string()),
    ];
    let mut text = template.to_owned();
    for (word, value) in words.iter().chain(&common) {
        text = text.replace(word, value);
    }
    let file = place.folder.join(name);
    fs::write(&file, text)?;
    Ok(file)
}

/// Returns the size of all files in `folder` in bytes, as they are allocated.
pub(crate) fn allocated_bytes(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let sizes = entries.filter_map(Result::ok).map(|entry| match entry.metadata() {
        Ok(data) if data.is_dir() => allocated_bytes(&entry.path()),
        Ok(data) => data.blocks() * 512,
        Err(_) => 0,
    });
    sizes.sum()
}
