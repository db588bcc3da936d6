//! `streamgauge check`: every problem of a configuration, wherever it comes from.

use std::path::{Path, PathBuf};

use crate::config;
use crate::config::defaults::DEFAULT_FILE;

/// What a configuration from standard input is called in its problems.
const STDIN: &str = "<stdin>";

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The config file; `-` reads standard input [default: STREAMGAUGE_CONFIG's, else ./streamgauge.toml].
    #[arg(value_name = "FILE", conflicts_with = "config")]
    file: Option<PathBuf>,
    /// The same, as `run` and `explain` take it.
    // The environment is not read by clap: with FILE given, a variable that happens to be set must not be in the way.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Says that a configuration is good.
///
/// # Errors
/// Every problem, one a line; or that there is nothing to check.
pub(super) fn check(options: &Options, from_env: Option<PathBuf>) -> Result<String, String> {
    let path = chosen(options, from_env, Path::new(DEFAULT_FILE).exists())?;
    let (name, read) = match path.to_str() {
        Some("-") => (STDIN.to_owned(), config::load_from(std::io::stdin().lock(), STDIN)),
        _ => (path.display().to_string(), config::load(&path)),
    };
    read.map_err(|problems| problems.to_string())?;
    Ok(format!("{name} is good.\n"))
}

fn chosen(options: &Options, from_env: Option<PathBuf>, default_exists: bool) -> Result<PathBuf, String> {
    let named = options.file.clone().or_else(|| options.config.clone()).or(from_env);
    match named.filter(|path| !path.as_os_str().is_empty()) {
        Some(path) => Ok(path),
        None if default_exists => Ok(PathBuf::from(DEFAULT_FILE)),
        None => Err(format!(
            "nothing to check: there is no {DEFAULT_FILE} here. Type `streamgauge check FILE`, `streamgauge check -` for \
             standard input, or set STREAMGAUGE_CONFIG"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn options(words: &[&str]) -> Result<Options, clap::Error> {
        Line::try_parse_from([&["check"], words].concat()).map(|line| line.options)
    }

    #[test]
    fn what_is_typed_beats_the_environment_and_that_the_file_lying_here() {
        let env = || Some(PathBuf::from("env.toml"));
        for (words, from_env, default_exists, wanted) in [
            (&["a.toml"][..], env(), true, Some("a.toml")),
            (&["-"], env(), true, Some("-")),
            (&["--config", "b.toml"], env(), true, Some("b.toml")),
            (&["--config", "-"], None, false, Some("-")),
            (&[], env(), true, Some("env.toml")),
            (&[], Some(PathBuf::new()), true, Some("streamgauge.toml")),
            (&[], None, true, Some("streamgauge.toml")),
            (&[], None, false, None),
        ] {
            let chosen = chosen(&options(words).unwrap(), from_env, default_exists);
            assert_eq!(chosen.as_deref().ok(), wanted.map(Path::new), "{words:?}");
            if let Err(told) = chosen {
                assert!(told.contains("check FILE") && told.contains("check -"), "{told}");
            }
        }
        assert!(options(&["a.toml", "--config", "b.toml"]).is_err());
    }
}
