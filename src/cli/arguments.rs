//! Arguments of the command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use super::batch::BatchOptions;
use super::doctor::DoctorOptions;
use super::find_mocks::FindMocksOptions;
use super::output::{FAULTY, Output, print};
use super::surrounding::Surrounding;
use super::warm::WarmOptions;
use crate::config::{ConfigSource, Flag, KEYS};

/// A caching reverse proxy in front of an OpenAI-compatible embeddings endpoint.
#[derive(Parser)]
#[command(name = "vecho", version, about)]
struct Arguments {
    #[command(flatten, next_help_heading = "Configuration")]
    settings: Settings,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Options that set configuration keys. The key table describes them.
#[derive(Args)]
struct Settings {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[arg(long, value_name = "ADDRESS", global = true, help = described("listen"))]
    listen: Option<String>,
    #[arg(long, value_name = "ADDRESS", global = true, help = described("admin_listen"))]
    admin_listen: Option<String>,
    #[arg(long, value_name = "URL", global = true, help = described("upstream.url"))]
    upstream: Option<String>,
    #[arg(long, value_name = "NUMBER", global = true, help = described("workers"))]
    workers: Option<String>,
    #[arg(long, value_name = "LEVEL", global = true, help = described("log.level"))]
    log_level: Option<String>,
    #[arg(long, value_name = "FORMAT", global = true, help = described("log.format"))]
    log_format: Option<String>,
    /// Value of any configuration key; may be repeated
    #[arg(long, value_name = "KEY=VALUE", global = true)]
    set: Vec<String>,
}

/// The command to run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Serve requests (the default)
    #[default]
    Serve,
    /// Print every configuration value in effect with its origin
    Config {
        /// Output format
        #[arg(long, value_enum, default_value = "text")]
        format: ConfigFormat,
    },
    /// Check the configuration and print all faults
    Check,
    /// Check the configuration, ports, upstream, disk, Redis, limits and clock; exit status 1 if there is a fault
    Doctor(DoctorOptions),
    /// Check whether a running vecho is ready; times out after 2 s
    Healthcheck {
        /// URL to request; by default /readyz at the ops port
        #[arg(long)]
        url: Option<String>,
    },
    /// Export the cache of a running vecho, or else of its folder on disk, to a file
    Export {
        /// File to write; - for standard output
        file: PathBuf,
        /// Hide the progress display
        #[arg(long)]
        quiet: bool,
    },
    /// Import an exported file; entries that exist are skipped, so an import can be repeated
    Import {
        /// File to read; - for standard input
        file: PathBuf,
        /// Hide the progress display
        #[arg(long)]
        quiet: bool,
    },
    /// Import the vectors of a batch job of the OpenAI API
    ImportBatch(BatchOptions),
    /// Fetch the vectors of the texts in a file, so that they are cached
    Warm(WarmOptions),
    /// Find vectors that vecho made up, by their watermark
    FindMocks(FindMocksOptions),
}

/// Output format of a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ConfigFormat {
    /// Like TOML, with the origin of each value
    Text,
    /// JSON
    Json,
}

/// A parsed command line.
#[derive(Debug)]
pub struct Invocation {
    /// The command to run.
    pub command: Command,
    /// Source of the configuration.
    pub source: ConfigSource,
    /// What applications of this environment use.
    pub surrounding: Surrounding,
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
    // The configuration keeps only its own variables, so those of applications are read before.
    let surrounding = Surrounding::of(&environment);
    let source = ConfigSource::new(arguments.settings.config, environment, flags);
    Ok(Invocation { command: arguments.command.unwrap_or_default(), source, surrounding })
}

/// Returns the definition of the command line, from which completions and the manual page are generated.
pub fn definition() -> clap::Command {
    Arguments::command()
}

fn print_usage(error: &clap::Error, output: &mut Output<'_>) -> u8 {
    let text = error.render().to_string();
    // Help and version are no errors and go to standard output.
    if error.use_stderr() {
        print(output.err, text.trim_end());
        return FAULTY;
    }
    print(output.out, text.trim_end())
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
    // Later flags win, so a flag of its own overrides the same key in `--set`.
    Ok(set.into_iter().chain(named).collect())
}

/// Parses KEY=VALUE. The error omits the text, which may be a secret without its key.
fn assignment(text: &str) -> Result<Flag, String> {
    let (key, value) = text.split_once('=').ok_or("--set needs KEY=VALUE, such as cache.ttl=1h")?;
    Ok(Flag { flag: "--set", key: key.trim().to_owned(), value: value.trim().to_owned() })
}

/// Returns the description of a key as a help text.
fn described(name: &str) -> String {
    let key = KEYS.iter().find(|key| key.name == name).expect("an option must set a key of the table");
    let doc = key.doc.trim_end_matches('.');
    match key.default {
        "none" => doc.to_owned(),
        default => format!("{doc} [default: {}]", default.trim_matches('"')),
    }
}
