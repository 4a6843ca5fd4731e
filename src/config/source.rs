//! Sources of the configuration, kept for reloads: file, environment, flags.

use std::fmt;
use std::path::{Path, PathBuf};

use blake3::Hasher;

use super::checks::key_files;
use super::raw::{CACHE_FOLDERS, Raw};
use super::{Config, Faults, Flag, KEYS, Origin, WELL_KNOWN, checks, proxies};

/// Sources of the configuration. The environment is a snapshot: a running process does not see later changes.
#[derive(Clone)]
pub struct ConfigSource {
    file: Option<(PathBuf, Origin)>,
    env: Vec<(String, String)>,
    flags: Vec<Flag>,
}

impl fmt::Debug for ConfigSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values may be secrets, so only names are shown.
        let env: Vec<&str> = self.env.iter().map(|(name, _)| name.as_str()).collect();
        let flags: Vec<&str> = self.flags.iter().map(|flag| flag.key.as_str()).collect();
        f.debug_struct("ConfigSource").field("file", &self.file).field("env", &env).field("flags", &flags).finish()
    }
}

impl ConfigSource {
    /// Creates a source from these parts. Without `file`, the variable `VECHO_CONFIG` may name one.
    pub fn new(file: Option<PathBuf>, env: impl IntoIterator<Item = (String, String)>, flags: Vec<Flag>) -> Self {
        // Other variables may hold foreign secrets, so they are not kept for the life of the process.
        let env: Vec<_> = env.into_iter().filter(|(name, _)| concerns_us(name)).collect();
        // The flag takes precedence over the variable.
        let from_flag = file.map(|path| (path, Origin::Flag("--config")));
        let file = from_flag.or_else(|| file_of(&env));
        Self { file, env, flags }
    }

    /// Returns the configuration file, if there is one.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_ref().map(|(path, _)| path.as_path())
    }

    /// Reads the configuration again. Blocks on the disk.
    pub fn load(&self) -> Result<Config, Faults> {
        checks::check(self.gather())
    }

    /// Returns a hash of the contents of the configuration file and the secret files. Blocks on the disk.
    ///
    /// Modification times would not work: Kubernetes swaps mounted files with symbolic links.
    pub fn fingerprint(&self) -> [u8; 32] {
        let raw = self.gather();
        let twins = KEYS.iter().filter(|key| key.secret).map(|key| format!("{}_file", key.name));
        let secrets = twins.filter_map(|twin| raw.get(&twin)?.value.as_str().map(PathBuf::from));
        let of_targets = raw.get("targets").map(|targets| key_files(&targets.value)).unwrap_or_default();
        let mut hasher = Hasher::new();
        for path in self.file().map(Path::to_owned).into_iter().chain(secrets).chain(of_targets) {
            add_file(&mut hasher, &path);
        }
        *hasher.finalize().as_bytes()
    }

    fn gather(&self) -> Raw {
        let mut raw = Raw::defaults();
        // Each layer overrides the previous one.
        if let Some((path, origin)) = &self.file {
            match std::fs::read_to_string(path) {
                Ok(text) => raw.read_file(path, &text),
                Err(error) => raw.faults.add("config", origin, format!("{} cannot be read: {error}", path.display())),
            }
        }
        raw.read_env(&self.env);
        raw.read_flags(&self.flags);
        raw
    }
}

impl Config {
    /// Creates a configuration for tests: defaults with these changes (TOML text or bare strings), no file, no
    /// environment.
    pub fn from_pairs(pairs: &[(&str, &str)]) -> Result<Self, Faults> {
        let flag =
            |(key, value): &(&str, &str)| Flag { flag: "--set", key: (*key).to_owned(), value: (*value).to_owned() };
        ConfigSource::new(None, [], pairs.iter().map(flag).collect()).load()
    }
}

fn concerns_us(name: &str) -> bool {
    let is_well_known = WELL_KNOWN.iter().chain(&CACHE_FOLDERS).any(|(known, _)| *known == name);
    is_well_known || name.starts_with("VECHO_") || proxies::is_variable(name)
}

fn file_of(env: &[(String, String)]) -> Option<(PathBuf, Origin)> {
    let (name, path) = env.iter().find(|(name, value)| name == "VECHO_CONFIG" && !value.is_empty())?;
    Some((PathBuf::from(path), Origin::Env(name.clone())))
}

/// Hashes a file. The length comes first, so text moved between files changes the hash. An unreadable file is hashed as
/// its error.
fn add_file(hasher: &mut Hasher, path: &Path) {
    let content = std::fs::read(path).unwrap_or_else(|error| error.kind().to_string().into_bytes());
    hasher.update(&content.len().to_le_bytes()).update(&content);
}
