//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{CommandFactory, Parser, Subcommand};

use super::Refusal;
use super::sources::{Invalid, on_command_line};
use crate::demo;

/// Words as given on the command line.
#[derive(Debug, Default, Parser)]
#[command(
    name = "warren",
    version,
    disable_version_flag = true,
    about = "AMQP 0-9-1 proxy: many clients through few broker connections",
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    after_help = "The command line beats the environment, which beats the file."
)]
pub(super) struct Arguments {
    /// Where to listen: a name or an address; all addresses of a name [default: localhost]
    #[arg(short, long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Port for clients; 0 lets the system choose [default: 5673]
    #[arg(short, long, value_name = "PORT", allow_negative_numbers = true)]
    port: Option<String>,
    /// Port for /metrics, /healthz and /readyz; 0 lets the system choose [default: 15673]
    #[arg(short = 'b', long, value_name = "PORT", allow_negative_numbers = true)]
    http_port: Option<String>,
    /// How long a broker connection that nobody uses is kept [default: 5]
    #[arg(short = 't', long, value_name = "SECONDS", allow_negative_numbers = true)]
    idle_connection_timeout: Option<String>,
    /// Most channels on one broker connection; 65535: what the broker allows [default: 65535]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    max_upstream_channels: Option<String>,
    /// When stopping: how long clients may take after they were sent Close; -1: no limit [default: -1]
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    term_timeout: Option<String>,
    /// When stopping: how long to wait for clients before they are sent Close [default: 0]
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    term_client_close_timeout: Option<String>,
    /// Threads that serve connections [default: one per core, at most 8]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    workers: Option<String>,
    /// How long a login accepted by the broker stands for others with the same credentials [default: 60]
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    auth_ttl: Option<String>,
    /// Most memory that all buffers together may hold, such as 256MiB or 1GB [default: a quarter of what there is]
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true)]
    memory: Option<String>,
    /// Certificates (PEM) to verify an amqps:// broker with, instead of the system's
    #[arg(long, value_name = "FILE")]
    upstream_ca: Option<String>,
    /// Log at level debug
    #[arg(short, long)]
    debug: bool,
    /// Read settings from a file: TOML, which says everything, when its name ends in .toml, else INI
    #[arg(short, long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Print version
    #[arg(short = 'v', long, action = clap::ArgAction::Version)]
    version: Option<bool>,
    /// The broker: amqp://HOST[:PORT] or amqps://HOST[:PORT]
    #[arg(value_name = "UPSTREAM")]
    upstream: Option<String>,
    #[command(subcommand)]
    pub(super) command: Option<Command>,
}

/// Other things to do than to serve.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Demo(demo::Arguments),
    /// Says whether a configuration file (TOML) is right, and what is wrong with it, without starting anything
    Check {
        /// The file
        file: PathBuf,
    },
    /// Prints the JSON schema of configuration files (TOML)
    Schema,
}

impl Arguments {
    pub(super) fn parse_from(words: impl Iterator<Item = OsString>) -> Result<Arguments, Refusal> {
        Arguments::try_parse_from(words).map_err(refusal)
    }

    /// What was said under a name of [`super::sources::Setting`].
    pub(super) fn get(&self, option: &str) -> Option<String> {
        match option {
            "--listen" => self.listen.clone(),
            "--port" => self.port.clone(),
            "--http-port" => self.http_port.clone(),
            "--idle-connection-timeout" => self.idle_connection_timeout.clone(),
            "--max-upstream-channels" => self.max_upstream_channels.clone(),
            "--term-timeout" => self.term_timeout.clone(),
            "--term-client-close-timeout" => self.term_client_close_timeout.clone(),
            "--workers" => self.workers.clone(),
            "--auth-ttl" => self.auth_ttl.clone(),
            "--memory" => self.memory.clone(),
            "--upstream-ca" => self.upstream_ca.clone(),
            "--debug" => self.debug.then(|| "debug".to_owned()),
            "UPSTREAM" => self.upstream.clone(),
            _ => None,
        }
    }
}

/// How the program is called.
pub(super) fn usage() -> String {
    Arguments::command().render_usage().to_string()
}

/// One line of what clap has to say, or all of it when help or the version was asked for.
fn refusal(error: clap::Error) -> Refusal {
    if error.exit_code() == 0 {
        return Refusal::Asked(error);
    }
    let text = error.render().to_string();
    let line = text.lines().next().unwrap_or_default();
    let line = line.strip_prefix("error: ").unwrap_or(line);
    // An address may have a password in it; it is not repeated.
    let problem = if line.contains("://") { "more than one UPSTREAM" } else { line };
    Refusal::Setting(Invalid::new(on_command_line("arguments"), format!("{problem}; see warren --help")))
}
