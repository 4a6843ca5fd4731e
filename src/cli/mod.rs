//! Command line: arguments, and the commands that need no running server.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tokio::runtime::Builder;

use crate::app::{check_trust, payer, warnings};
use crate::config::{Config, Faults, Flag, Source};

mod batch;
mod credential;
mod health;
mod http;
mod moving;
mod progress;
mod warm;

pub use batch::BatchOptions;
pub use credential::Credential;
pub use warm::WarmOptions;

/// Success.
pub const OK: u8 = 0;
/// Negative result or failed work.
pub const FAILED: u8 = 1;
/// The command line or the configuration is wrong (`EX_USAGE`).
pub const FAULTY: u8 = 64;

/// A caching reverse proxy in front of an OpenAI-compatible embeddings endpoint.
#[derive(Parser)]
#[command(name = "vecho", version, about)]
struct Arguments {
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    command: Option<Command>,
}

// Help texts with a default are not doc comments: rustdoc would parse the brackets as a link.
#[derive(Args)]
struct Settings {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[arg(long, value_name = "ADDRESS", global = true, help = "Address of the public port [default: 127.0.0.1:7861]")]
    listen: Option<String>,
    #[arg(long, value_name = "ADDRESS", global = true, help = "Address of the ops port [default: 127.0.0.1:7862]")]
    admin_listen: Option<String>,
    #[arg(
        long,
        value_name = "URL",
        global = true,
        help = "Base URL of the service behind, or mock: [default: https://api.openai.com/v1]"
    )]
    upstream: Option<String>,
    /// Threads that serve requests
    #[arg(long, value_name = "NUMBER", global = true)]
    workers: Option<String>,
    /// A level or a filter
    #[arg(long, value_name = "LEVEL", global = true)]
    log_level: Option<String>,
    /// text or json
    #[arg(long, value_name = "FORMAT", global = true)]
    log_format: Option<String>,
    /// Any key of the configuration; may be repeated
    #[arg(long, value_name = "KEY=VALUE", global = true)]
    set: Vec<String>,
}

/// The command to run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Serve (the default)
    #[default]
    Serve,
    /// Print the configuration in effect and where each value came from
    Config {
        /// How it is printed
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
    },
    /// Check the configuration and print every fault
    Check,
    /// Ask the ops port whether this vecho is ready
    Healthcheck {
        /// What is asked; without it, /readyz at the configured ops port
        #[arg(long)]
        url: Option<String>,
    },
    /// Write the cache to a file: of the vecho that runs, else of the folder on disk
    Export {
        /// Where to; - for standard output
        file: PathBuf,
        /// Show no progress
        #[arg(long)]
        quiet: bool,
    },
    /// Take in a file that another vecho exported; what is there already is skipped, so it may be begun again
    Import {
        /// Where from; - for standard input
        file: PathBuf,
        /// Show no progress
        #[arg(long)]
        quiet: bool,
    },
    /// Take in the vectors of a batch job of the OpenAI API
    ImportBatch(BatchOptions),
    /// Fetch the vectors of many texts, so that they are cached
    Warm(WarmOptions),
}

/// Output format of a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// In the manner of TOML.
    Text,
    /// As JSON.
    Json,
}

/// A parsed command line.
#[derive(Debug)]
pub struct Invocation {
    /// The command to run.
    pub command: Command,
    /// Source of the configuration.
    pub source: Source,
    /// The credential that applications of this environment send.
    pub credential: Credential,
}

/// Output streams of a command: standard output and standard error, or buffers of a test.
pub struct Output<'a> {
    /// Results.
    pub out: &'a mut dyn Write,
    /// Faults.
    pub err: &'a mut dyn Write,
}

/// Parses a command line. Prints help, version and usage errors itself; `Err` is then the exit status.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (String, String)>,
    output: &mut Output<'_>,
) -> Result<Invocation, u8> {
    let arguments = Arguments::try_parse_from(arguments).map_err(|error| print_usage(&error, output))?;
    let flags = flags(&arguments.settings).map_err(|message| {
        print(output.err, &message);
        FAULTY
    })?;
    let environment: Vec<(String, String)> = environment.into_iter().collect();
    let credential = Credential::from_environment(&environment);
    let source = Source::new(arguments.settings.config, environment, flags);
    Ok(Invocation { command: arguments.command.unwrap_or_default(), source, credential })
}

/// Runs a command and returns its exit status. `serve` receives the configuration; the other commands only read it.
pub fn run(invocation: Invocation, output: &mut Output<'_>, serve: impl FnOnce(Source, Config) -> u8) -> u8 {
    let Invocation { command, source, credential } = invocation;
    if let Command::Healthcheck { url: Some(url) } = &command {
        return health::ask_url(url, output);
    }
    let config = match source.load() {
        Ok(config) => config,
        Err(faults) => return print_faults(&faults, output),
    };
    match command {
        Command::Serve => match check_trust(&config) {
            Ok(()) => serve(source, config),
            Err(faults) => print_faults(&faults, output),
        },
        Command::Config { format } => print(output.out, &shown(&config, format)),
        Command::Check => match check_trust(&config) {
            Ok(()) => report(&config, &source, output),
            Err(faults) => print_faults(&faults, output),
        },
        Command::Healthcheck { .. } => health::ask_readyz(config.admin_listen, output),
        Command::Export { file, quiet } => {
            let Output { out, err } = output;
            let workers = config.workers;
            work(workers, err, async { moving::export(&config, &file, quiet, *out).await })
        }
        Command::Import { file, quiet } => work(config.workers, output.err, moving::import(&config, &file, quiet)),
        Command::ImportBatch(options) => work(config.workers, output.err, batch::import(config, &credential, &options)),
        Command::Warm(options) => work(config.workers, output.err, warm::warm(config, &credential, &options)),
    }
}

/// Runs an asynchronous command and prints why it failed.
fn work(workers: usize, err: &mut dyn Write, command: impl Future<Output = Result<(), String>>) -> u8 {
    let runtime = match Builder::new_multi_thread().worker_threads(workers).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            print(err, &format!("vecho: {error}"));
            return FAILED;
        }
    };
    let done = runtime.block_on(command);
    // A blocking thread may wait for standard input indefinitely, so the runtime must not wait for it.
    runtime.shutdown_background();
    match done {
        Ok(()) => OK,
        Err(failed) => {
            print(err, &format!("vecho: {failed}"));
            FAILED
        }
    }
}

/// Prints the notes and warnings that a start with this configuration would log.
fn report(config: &Config, source: &Source, output: &mut Output<'_>) -> u8 {
    print(output.err, &format!("note: {}", payer(config)));
    for warning in warnings(config, Some(source)) {
        print(output.err, &format!("warning: {warning}"));
    }
    print(output.out, "configuration ok")
}

fn shown(config: &Config, format: Format) -> String {
    match format {
        Format::Text => config.effective.to_text().trim_end().to_owned(),
        Format::Json => format!("{:#}", config.effective.to_json()),
    }
}

fn print_faults(faults: &Faults, output: &mut Output<'_>) -> u8 {
    print(output.err, &faults.to_string());
    FAULTY
}

fn print_usage(error: &clap::Error, output: &mut Output<'_>) -> u8 {
    let text = error.render().to_string();
    if error.use_stderr() {
        print(output.err, text.trim_end());
        return FAULTY;
    }
    print(output.out, text.trim_end())
}

/// Prints text. A closed pipe (`vecho config | head`) must not cause a panic.
fn print(to: &mut dyn Write, text: &str) -> u8 {
    let written: io::Result<()> = writeln!(to, "{text}").and_then(|()| to.flush());
    if written.is_ok() { OK } else { FAILED }
}

fn flags(settings: &Settings) -> Result<Vec<Flag>, String> {
    let set = settings.set.iter().map(|text| assignment(text)).collect::<Result<Vec<_>, _>>()?;
    let named = [
        ("--listen", "listen", &settings.listen),
        ("--admin-listen", "admin_listen", &settings.admin_listen),
        ("--upstream", "upstream.url", &settings.upstream),
        ("--workers", "workers", &settings.workers),
        ("--log-level", "log.level", &settings.log_level),
        ("--log-format", "log.format", &settings.log_format),
    ];
    let named = named
        .into_iter()
        .filter_map(|(flag, key, value)| Some(Flag { flag, key: key.to_owned(), value: value.clone()? }));
    Ok(set.into_iter().chain(named).collect())
}

/// Parses KEY=VALUE. The error omits the text, which may be a secret without its key.
fn assignment(text: &str) -> Result<Flag, String> {
    let (key, value) = text.split_once('=').ok_or("--set needs KEY=VALUE, such as cache.ttl=1h")?;
    Ok(Flag { flag: "--set", key: key.trim().to_owned(), value: value.trim().to_owned() })
}
