//! Runs programs in other languages in the environments that `scripts/setup-tests` installs.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// A client script and the interpreter that runs it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Script {
    /// Relative to the folder of the installed environments, or a program on the path.
    interpreter: &'static str,
    /// Relative to `tests/clients`, or to the folder of the environments for Node.
    file: &'static str,
}

/// The newest openai package for Python.
pub(crate) const OPENAI_PYTHON: Script = Script { interpreter: "py/bin/python", file: "openai_python.py" };
/// The newest openai package for Python, with the content codings that it gets.
pub(crate) const OPENAI_COMPRESSED: Script = Script { interpreter: "py/bin/python", file: "openai_compressed.py" };
/// The choice of a proxy by the newest openai package for Python.
pub(crate) const PROXY_CHOICE: Script = Script { interpreter: "py/bin/python", file: "proxy_choice.py" };
/// The openai package for Python in major version 1, without numpy.
pub(crate) const OPENAI_PYTHON_1: Script = Script { interpreter: "py1/bin/python", file: "openai_python.py" };
/// `LangChain`'s embeddings.
pub(crate) const LANGCHAIN: Script = Script { interpreter: "py/bin/python", file: "langchain_python.py" };
/// `LlamaIndex`'s embeddings for OpenAI and compatible servers.
pub(crate) const LLAMA_INDEX: Script = Script { interpreter: "py/bin/python", file: "llama_index_python.py" };
/// Haystack's embedders of texts and documents.
pub(crate) const HAYSTACK: Script = Script { interpreter: "py/bin/python", file: "haystack_python.py" };
/// The SDK of `LiteLLM`.
pub(crate) const LITELLM: Script = Script { interpreter: "py/bin/python", file: "litellm_python.py" };
/// The openai packages for Python at a spent budget.
pub(crate) const BUDGET_PYTHON: Script = Script { interpreter: "py/bin/python", file: "budget.py" };
pub(crate) const BUDGET_PYTHON_1: Script = Script { interpreter: "py1/bin/python", file: "budget.py" };
/// Voyage's own client.
pub(crate) const VOYAGE: Script = Script { interpreter: "py/bin/python", file: "voyage.py" };
/// Mistral's own client.
pub(crate) const MISTRAL: Script = Script { interpreter: "py/bin/python", file: "mistral.py" };
/// The client of Azure AI Foundry.
pub(crate) const AZURE_INFERENCE: Script = Script { interpreter: "py/bin/python", file: "azure_inference.py" };
/// The newest openai package that this version of Node runs.
pub(crate) const OPENAI_NODE: Script = Script { interpreter: "node", file: "node/openai_node.mjs" };
/// `LangChain.js`'s embeddings.
pub(crate) const LANGCHAIN_NODE: Script = Script { interpreter: "node", file: "node/langchain_node.mjs" };
/// The Vercel AI SDK with its providers for OpenAI and compatible servers.
pub(crate) const VERCEL_NODE: Script = Script { interpreter: "node", file: "node/vercel_node.mjs" };
/// The dashboard in a real browser.
pub(crate) const BROWSER: Script = Script { interpreter: "node", file: "node/dashboard.mjs" };
/// The picture of the dashboard for README.
pub(crate) const PICTURE: Script = Script { interpreter: "node", file: "node/picture.mjs" };
/// The dashboard's modules that need no page.
pub(crate) const PAGE_MODULES: Script = Script { interpreter: "node", file: "node/pure.mjs" };
/// A query in a real `PostgreSQL` with pgvector.
pub(crate) const PGVECTOR: Script = Script { interpreter: "node", file: "node/pgvector.mjs" };
/// Validates answers against the schemas of the description of the routes.
pub(crate) const SCHEMAS: Script = Script { interpreter: "py/bin/python", file: "schemas.py" };
/// A server that embeds with a real model.
pub(crate) const MODEL_SERVER: Script = Script { interpreter: "py/bin/python", file: "model_server.py" };

impl Script {
    /// Returns the command, to which callers add variables. Panics with a hint if the environment is not installed.
    pub(crate) fn command(self) -> Command {
        let installed = installed();
        let hint = "run `bash scripts/setup-tests` first";
        let (program, file) = if self.interpreter == "node" {
            (PathBuf::from("node"), installed.join(self.file))
        } else {
            (
                installed.join(self.interpreter),
                Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(self.file),
            )
        };
        assert!(file.exists() && (program.exists() || self.interpreter == "node"), "{self:?} is not installed: {hint}");
        let mut command = Command::new(program);
        command.arg(file).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", env!("CARGO_TARGET_TMPDIR")).env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }

    /// Returns the command for a program that is given as text, in the folder where Node finds its packages.
    pub(crate) fn node(program: &str) -> Command {
        let mut command = Command::new("node");
        command.args(["--input-type=module", "--eval", program]).current_dir(installed().join("node"));
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
    }

    /// Runs a client against a base URL and returns the JSON document that it prints.
    pub(crate) fn run(self, base_url: &str, control_url: &str) -> Value {
        let mut command = self.command();
        command.env("BASE_URL", base_url).env("CONTROL_URL", control_url);
        self.report(command)
    }

    /// Runs a command until it exits and returns the JSON document that it prints.
    pub(crate) fn report(self, mut command: Command) -> Value {
        let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{self:?} failed:\n{complaint}");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{self:?}: {error}\n{complaint}"))
    }
}

/// Returns the folder that `scripts/setup-tests` fills.
fn installed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-env")
}
