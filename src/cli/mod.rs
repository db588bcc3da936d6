//! The command line.

mod admin;
mod admin_views;
mod canary;
mod check;
mod explain;
mod explain_cohort;
mod explain_conditions;
mod explain_limits;
mod explain_session;
mod healthcheck;
mod init;
mod key;
mod levers;
mod prices;
mod read;
mod reference;
mod terminal;
mod top;

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::time::SystemTime;

use clap::{Parser, Subcommand, ValueEnum};

use self::terminal::{complain, say};
use crate::config::address::Listen;
use crate::config::defaults::DEFAULT_FILE;
use crate::config::{self, Settings};
use crate::policy::levers::Command as Lever;
use crate::server::{self, Exit, Origin, Run, Source, Style};
use crate::telemetry::json::{self, Json};
use crate::telemetry::{self, Telemetry};

/// Left over from a second signal, as shells have it for an interrupted program.
const INTERRUPTED: u8 = 130;

/// A command was done, and some replicas of the fleet do not follow yet.
const NOT_ALL_FOLLOW: u8 = 3;

#[derive(Parser)]
#[command(version, about = "A reverse proxy for LLM backends that measures every stream it passes.", long_about = None)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the proxy.
    Run(RunOptions),
    /// Look what serves on this machine's loopback, and write a config file for it.
    Init(init::Options),
    /// Check a config file: reports all problems with file, line and column.
    Check(check::Options),
    /// Explain a request: its route, why earlier routes do not match, its targets and limits.
    Explain(explain::ExplainOptions),
    /// Read a recorded stream: the meaning of each event, the first token and why, and a rule to write if that is wrong.
    Read(read::Options),
    /// Print the JSON Schema of the config file, for editors.
    Schema,
    /// Pages of the documentation site's reference, in Markdown.
    #[command(subcommand, hide = true)]
    Reference(reference::Page),
    /// List prices of models in the built-in catalogue.
    Prices(prices::Options),
    /// API keys of clients.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Exit with 0 if a running proxy is ready, else with 1.
    Healthcheck {
        /// The proxy's admin address: `http://127.0.0.1:9090`, `127.0.0.1:9090` or `unix:/path`.
        #[arg(long, env = "STREAMGAUGE_ADMIN", default_value = "http://127.0.0.1:9090", value_name = "URL")]
        admin: String,
    },
    /// Watch live streams in the terminal; if the output is not a terminal, print one snapshot.
    Top(top::Options),
    /// Show canaries, and promote, roll back, pause or resume them.
    Canary(canary::Options),
    /// Send no new requests to an upstream, endpoint or target; running ones continue. Without a name, list what is out of service.
    Drain(levers::Options),
    /// As drain, and send no health checks either; running requests continue.
    Disable(levers::Options),
    /// Put back in service what was drained or disabled.
    Enable(levers::Options),
    /// Run a fake LLM backend, to try the proxy with.
    Demo {
        /// The address on which it listens.
        #[arg(long, default_value = "127.0.0.1:8000", value_name = "ADDRESS")]
        listen: SocketAddr,
        /// How it answers requests that do not set it themselves, for example `ttft_ms=300&fail_percent=5`.
        #[arg(long, default_value = "", value_name = "KNOBS")]
        knobs: String,
    },
}

#[derive(Subcommand)]
enum KeyCommand {
    /// Print a new key, once, and the config file's entry with its hash.
    New {
        /// The user of the key.
        #[arg(long, value_name = "NAME", required_unless_present = "team")]
        user: Option<String>,
        /// The team that the user belongs to; without a user, the key is the team's.
        #[arg(long, value_name = "NAME")]
        team: Option<String>,
    },
    /// Revoke a key at once, without changing the file: its requests get 401.
    Revoke(levers::KeyOptions),
    /// Accept a revoked key again.
    Restore(levers::KeyOptions),
}

#[derive(clap::Args)]
struct RunOptions {
    /// The backend's url; then no config file is needed.
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    upstream: Option<String>,
    /// The config file [default: STREAMGAUGE_CONFIG's, else ./streamgauge.toml]. It is reloaded when it changes.
    // Not by clap: with `--upstream` given, a variable that happens to be set must not be in the way.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where clients connect: `127.0.0.1:8080`, `[::]:8080` or `unix:/path`; may be given several times.
    #[arg(long, env = "STREAMGAUGE_LISTEN", value_name = "ADDRESS", value_delimiter = ',')]
    listen: Vec<Address>,
    /// The address of the live view, the metrics and the admin API.
    #[arg(long, env = "STREAMGAUGE_ADMIN", value_name = "ADDRESS")]
    admin: Option<Address>,
    /// The format of the log [default: human on a terminal, else json].
    #[arg(long, env = "STREAMGAUGE_LOG", value_enum, value_name = "FORMAT")]
    log: Option<Log>,
    /// Binary upgrade: take over the listening sockets of the running proxy. Start this process, then send SIGQUIT to that one within 5 s.
    #[arg(long)]
    upgrade: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Log {
    Human,
    Json,
}

/// An address as typed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Address(Listen);

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // `STREAMGAUGE_ADMIN` may be set for `healthcheck` too, which takes a URL.
        let plain = text.strip_prefix("http://").unwrap_or(text);
        let plain = if plain.starts_with("unix:") { plain } else { plain.trim_end_matches('/') };
        plain.replacen("localhost:", "127.0.0.1:", 1).parse().map(Self)
    }
}

/// Does what the command line says.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come here too; where nobody reads them, nothing is lost.
            let _ = if std::env::args().any(|argument| argument.chars().any(json::steers_terminals)) {
                // It repeats what was typed, or what somebody else had typed.
                complain(&error.render().to_string());
                Ok(())
            } else {
                error.print()
            };
            return if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    let done = match cli.command {
        Command::Run(options) => run(options),
        Command::Init(options) => told(init::run(&options)),
        Command::Check(options) => {
            told(check::check(&options, std::env::var_os("STREAMGAUGE_CONFIG").map(PathBuf::from)))
        }
        Command::Explain(options) => told(explain::explain(&options)),
        Command::Read(options) => read::read(&options, &mut std::io::stdout().lock()).map(|()| ExitCode::SUCCESS),
        Command::Schema => print_schema(),
        Command::Reference(page) => told(Ok(reference::page(page))),
        Command::Prices(options) => told(prices::list(&options)),
        Command::Key(KeyCommand::New { user, team }) => told(key::new(user.as_deref(), team.as_deref())),
        Command::Key(KeyCommand::Revoke(options)) => told(levers::key(Lever::Revoke, &options)),
        Command::Key(KeyCommand::Restore(options)) => told(levers::key(Lever::Restore, &options)),
        Command::Drain(options) => told(levers::run(Lever::Drain, &options)),
        Command::Disable(options) => told(levers::run(Lever::Disable, &options)),
        Command::Enable(options) => told(levers::run(Lever::Enable, &options)),
        Command::Healthcheck { admin } => healthcheck::ask(&admin).map(|()| ExitCode::SUCCESS),
        Command::Canary(options) => canary::run(&options).map(|said| {
            say(&said.words);
            if said.is_followed { ExitCode::SUCCESS } else { ExitCode::from(NOT_ALL_FOLLOW) }
        }),
        Command::Top(options) => told(top::run(&options)),
        Command::Demo { listen, knobs } => {
            crate::demo::run(listen, &knobs).map(|()| ExitCode::SUCCESS).map_err(|error| error.to_string())
        }
    };
    done.unwrap_or_else(|problem| {
        complain(&problem);
        ExitCode::FAILURE
    })
}

/// Says what there is to say.
fn told(text: Result<String, String>) -> Result<ExitCode, String> {
    text.map(|text| {
        say(&text);
        ExitCode::SUCCESS
    })
}

fn run(options: RunOptions) -> Result<ExitCode, String> {
    let human = match options.log {
        Some(log) => log == Log::Human,
        None => std::io::stdout().is_terminal(),
    };
    let from_env = std::env::var_os("STREAMGAUGE_CONFIG").map(PathBuf::from);
    let origin = origin(options.upstream, options.config, from_env, Path::new(DEFAULT_FILE).exists());
    let origin = origin.ok_or_else(|| {
        format!(
            "nothing to send requests to: no --upstream, no --config, no STREAMGAUGE_CONFIG, no ./{DEFAULT_FILE}.\n{}",
            init::advice(std::io::stderr().is_terminal())
        )
    })?;
    let run = Run {
        source: Source {
            origin,
            listen: options.listen.into_iter().map(|address| address.0).collect(),
            admin: options.admin.map(|address| address.0),
        },
        style: if human { Style::Human } else { Style::Json },
        upgrade: options.upgrade,
    };
    let exit = match server::run(&run, |settings| start_telemetry(settings, human)) {
        Ok(exit) => exit,
        Err(problems) if !human && !std::io::stderr().is_terminal() => {
            let _ = std::io::stderr().lock().write_all(failed_start(&problems, SystemTime::now()).as_bytes());
            return Ok(ExitCode::FAILURE);
        }
        Err(problems) => return Err(problems),
    };
    Ok(match exit {
        Exit::Drained | Exit::Cut => ExitCode::SUCCESS,
        Exit::Forced => ExitCode::from(INTERRUPTED),
        Exit::Failed => ExitCode::FAILURE,
    })
}

/// Why there was no start, in the form of the log's lines: one for each problem.
fn failed_start(problems: &str, now: SystemTime) -> String {
    let mut out = String::new();
    for problem in problems.lines() {
        let mut line = Json::object(&mut out);
        line.time("timestamp", now);
        line.text("level", "error");
        line.text("event", "start.failed");
        line.text("message", problem);
        line.end();
        out.push('\n');
    }
    out
}

/// Where the configuration comes from; `None` where nothing says so.
fn origin(
    upstream: Option<String>,
    config: Option<PathBuf>,
    from_env: Option<PathBuf>,
    default_exists: bool,
) -> Option<Origin> {
    let named = config.or(from_env).filter(|path| !path.as_os_str().is_empty());
    let file = named.or_else(|| default_exists.then(|| PathBuf::from(DEFAULT_FILE)));
    upstream.map(Origin::Upstream).or_else(|| file.map(Origin::File))
}

fn start_telemetry(settings: &Settings, human: bool) -> Result<Arc<Telemetry>, String> {
    let format = if human { telemetry::logs::Format::Human } else { telemetry::logs::Format::Json };
    Telemetry::start(&settings.telemetry, format).map_err(|error| error.to_string())
}

fn print_schema() -> Result<ExitCode, String> {
    let schema = serde_json::to_string_pretty(&config::schema()).map_err(|error| error.to_string())?;
    say(&format!("{schema}\n"));
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn addresses_are_read_as_typed() {
        let cases = [
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("[::]:8080", "[::]:8080"),
            ("localhost:0", "127.0.0.1:0"),
            ("http://127.0.0.1:9090/", "127.0.0.1:9090"),
            ("unix:/run/gauge.sock", "unix:/run/gauge.sock"),
        ];
        for (typed, read) in cases {
            assert_eq!(Address::from_str(typed).unwrap().0.to_string(), read);
        }
        for wrong in ["", "8080", "unix:", "example.com:80", "127.0.0.1", "127.0.0.1:70000"] {
            assert!(Address::from_str(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_failed_start_is_told_as_the_log_is() {
        let told = failed_start("a.toml:1:1: \"x\"\nb", SystemTime::UNIX_EPOCH);
        let lines: Vec<serde_json::Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let messages: Vec<_> = lines.iter().map(|line| line["message"].as_str().unwrap()).collect();
        assert_eq!(messages, ["a.toml:1:1: \"x\"", "b"]);
        for line in &lines {
            assert_eq!((&line["level"], &line["timestamp"]), (&"error".into(), &"1970-01-01T00:00:00.000Z".into()));
        }
    }

    #[test]
    fn the_upstream_beats_a_file_named_by_the_environment() {
        let file = || Some(PathBuf::from("env.toml"));
        let url = || Some("http://127.0.0.1:8000".to_owned());
        assert!(matches!(origin(url(), None, file(), true), Some(Origin::Upstream(_))));
        assert!(matches!(origin(None, None, file(), true), Some(Origin::File(path)) if path == file().unwrap()));
        let other = || Some(PathBuf::from("other.toml"));
        assert!(matches!(origin(None, other(), file(), true), Some(Origin::File(path)) if path == other().unwrap()));
        assert!(matches!(origin(None, None, None, true), Some(Origin::File(path)) if path == Path::new(DEFAULT_FILE)));
        assert!(origin(None, None, None, false).is_none());
        assert!(origin(None, None, Some(PathBuf::new()), false).is_none());
        let both = ["streamgauge", "run", "--upstream", "http://127.0.0.1:1", "--config", "a.toml"];
        assert!(Cli::try_parse_from(both).is_err());
    }
}
