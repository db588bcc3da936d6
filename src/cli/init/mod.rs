//! `streamgauge init`: looks what serves on this machine's loopback, and writes a configuration for it.

mod ask;
mod found;
mod listeners;
mod render;
mod sample_request;
mod server_kind;

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{self, BufRead, IsTerminal, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::thread;

use ask::Told;
use found::Found;
use listeners::{Candidate, Candidates};
use render::Places;
use server_kind::Kind;

use super::terminal::say;
use crate::config;
use crate::config::defaults::DEFAULT_FILE;

/// Where the proxy listens if the port is free, and the admin address.
const LISTEN_PORT: u16 = 8080;
const ADMIN_PORT: u16 = 9090;

/// Ports that are tried from there on.
const PORTS_TRIED: u16 = 100;

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Ask nothing: take every app and server of models that is found.
    #[arg(long)]
    yes: bool,
    /// Take the servers at these ports, and look at no others; may be given several times. The first gets all requests, each
    /// other those below a prefix.
    #[arg(long, value_name = "PORT", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..))]
    port: Vec<u16>,
    /// The file that is written.
    #[arg(long, value_name = "FILE", default_value = DEFAULT_FILE)]
    output: PathBuf,
    /// Overwrite the file if there is one.
    #[arg(long)]
    force: bool,
}

/// Looks, asks, writes the file and tells what to type next.
///
/// # Errors
/// Nothing was found or chosen, or the file is there or cannot be written.
pub(super) fn run(options: &Options) -> Result<String, String> {
    if options.output.exists() && !options.force {
        return Err(is_there(&options.output));
    }
    let asks = !options.yes && options.port.is_empty();
    if asks && !io::stdin().is_terminal() {
        return Err("nobody can be asked what to take: type --yes for all that is found, or --port PORT".to_owned());
    }
    let candidates = Candidates::here(&options.port);
    let found = look(&candidates.asked);
    say(&told(&candidates, &found));
    let chosen = if options.port.is_empty() { chosen(asks, found)? } else { at_ports(&options.port, &found)? };
    let places = places(&|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())?;
    let text = render::config(&chosen, places);
    config::load_from(text.as_bytes(), &options.output.display().to_string())
        .map_err(|problems| problems.to_string())?;
    write(&options.output, &text, options.force)?;
    Ok(format!("Wrote {}.\n{}", options.output.display(), render::next_steps(&chosen, places, &options.output)))
}

/// For somebody who did not say where requests are to go: what to type. Only for a person it looks what serves on loopback; a failed
/// start of a service asks nobody.
pub(super) fn advice(for_a_person: bool) -> String {
    if !for_a_person {
        return WHAT_TO_TYPE.to_owned();
    }
    let candidates = Candidates::here(&[]);
    let found = look(&candidates.asked);
    what_to_type(&candidates, &found)
}

fn what_to_type(candidates: &Candidates, found: &[Found]) -> String {
    let mut out = told(candidates, found);
    match found.iter().find(|server| server.is_known()) {
        Some(server) => {
            let _ = write!(
                out,
                "Type one of\n  streamgauge init                                     writes a {DEFAULT_FILE} for it\n  \
                 streamgauge run --upstream {:<26}without a file\n",
                server.url()
            );
        }
        None => out.push_str(WHAT_TO_TYPE),
    }
    out
}

/// What to type where nothing was found.
const WHAT_TO_TYPE: &str = "Start your backend, or type one of
  streamgauge run --upstream http://127.0.0.1:8000     your FastAPI app or model server; no file needed
  streamgauge run --config streamgauge.toml            or set STREAMGAUGE_CONFIG
  streamgauge init --port 8000                         writes a file for what listens there
  streamgauge demo                                     a built-in fake LLM backend to try it with
";

/// Asks all at once: it takes no longer than the slowest of them.
fn look(candidates: &[Candidate]) -> Vec<Found> {
    thread::scope(|scope| {
        let asking: Vec<_> = candidates.iter().map(|candidate| scope.spawn(|| found(candidate))).collect();
        let mut found: Vec<Found> = asking.into_iter().filter_map(|asked| asked.join().ok().flatten()).collect();
        // An app is what browsers talk to; a server of models stands behind it.
        found.sort_by_key(|server| !matches!(server.kind, Kind::App { .. }));
        found
    })
}

/// Who answers in HTTP at a port; the first of its addresses that does.
fn found(candidate: &Candidate) -> Option<Found> {
    candidate.addresses.iter().find_map(|address| {
        let mut answers = [const { None }; server_kind::QUESTIONS.len()];
        for (answer, question) in answers.iter_mut().zip(server_kind::QUESTIONS) {
            match ask::get(*address, question) {
                Told::Answer(told) => *answer = Some(told),
                Told::NotHttp => {}
                Told::Nobody => return None,
            }
        }
        answers.iter().any(Option::is_some).then(|| Found { address: *address, kind: server_kind::kind_of(&answers) })
    })
}

/// What was looked for, and what was found.
fn told(candidates: &Candidates, found: &[Found]) -> String {
    let ports: Vec<String> = candidates.asked.iter().map(|candidate| candidate.port.to_string()).collect();
    let mut out = match (candidates.told_by_kernel, ports.is_empty()) {
        (true, true) => "Nothing listens on this machine's loopback.\n".to_owned(),
        (true, false) => format!("Asked what listens on this machine's loopback: port {}.\n", ports.join(", ")),
        (false, _) => format!("Asked on this machine's loopback: port {}.\n", ports.join(", ")),
    };
    if candidates.left_out > 0 {
        let _ = writeln!(out, "{} more ports were not asked; --port names one of them.", candidates.left_out);
    }
    if !found.iter().any(Found::is_known) {
        out.push_str("Found no app with /openapi.json (FastAPI), and no server with /v1/models (vLLM, …) or /api/tags (Ollama).\n");
    }
    for (number, server) in numbered(found) {
        let number = number.map_or(String::new(), |number| number.to_string());
        let _ = writeln!(out, "  {number:<3}{:<26}{}", server.url(), render::words(&server.kind));
    }
    out
}

/// Those that can be chosen have a number, from 1.
fn numbered(found: &[Found]) -> impl Iterator<Item = (Option<usize>, &Found)> {
    let known = found.iter().filter(|server| server.is_known());
    let others = found.iter().filter(|server| !server.is_known());
    known.enumerate().map(|(at, server)| (Some(at + 1), server)).chain(others.map(|server| (None, server)))
}

fn chosen(asks: bool, found: Vec<Found>) -> Result<Vec<Found>, String> {
    let mut known: Vec<Found> = found.into_iter().filter(Found::is_known).collect();
    if known.is_empty() {
        return Err(format!("nothing to write a configuration for. {WHAT_TO_TYPE}"));
    }
    if asks {
        say("Which of them? Numbers, the one that gets all other requests first; nothing: all of them. ");
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line).map_err(|error| format!("cannot read what you type: {error}"))?;
        known = picked(&line, &known)?;
    }
    Ok(known)
}

/// Those whose numbers stand in `line`, in its order; all if it has none.
fn picked(line: &str, known: &[Found]) -> Result<Vec<Found>, String> {
    let mut picked: Vec<Found> = Vec::new();
    for word in line.split([' ', ',', '\t']).map(str::trim).filter(|word| !word.is_empty()) {
        let number: Option<usize> = word.parse().ok();
        let server = number.and_then(|number| known.get(number.checked_sub(1)?));
        let server = server.ok_or_else(|| format!("{word} is none of the numbers from 1 to {}", known.len()))?;
        if !picked.contains(server) {
            picked.push(server.clone());
        }
    }
    Ok(if picked.is_empty() { known.to_vec() } else { picked })
}

/// The servers at `ports`, whatever they are.
fn at_ports(ports: &[u16], found: &[Found]) -> Result<Vec<Found>, String> {
    let mut chosen: Vec<Found> = Vec::new();
    for port in ports {
        match found.iter().find(|server| server.address.port() == *port) {
            None => return Err(format!("nothing answers in HTTP at port {port} of this machine's loopback")),
            Some(Found { kind: Kind::Streamgauge, .. }) => return Err(format!("at port {port} is Streamgauge itself")),
            Some(server) if !chosen.contains(server) => chosen.push(server.clone()),
            Some(_) => {}
        }
    }
    Ok(chosen)
}

/// The usual ports, or the next ones that are free.
fn places(is_free: &dyn Fn(u16) -> bool) -> Result<Places, String> {
    let free = |from: u16| {
        let mut ports = from..from + PORTS_TRIED;
        ports.find(|port| is_free(*port)).ok_or_else(|| format!("no port from {from} on is free"))
    };
    Ok(Places { listen: free(LISTEN_PORT)?, admin: free(ADMIN_PORT)? })
}

fn write(path: &Path, text: &str, force: bool) -> Result<(), String> {
    let mut options = OpenOptions::new();
    let options = if force { options.create(true).truncate(true) } else { options.create_new(true) };
    let written = options.write(true).open(path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => is_there(path),
        _ => format!("cannot write {}: {error}", path.display()),
    })
}

fn is_there(path: &Path) -> String {
    format!("{} is there already: --force overwrites it, --output names another", path.display())
}

#[cfg(test)]
mod tests {
    use super::server_kind::Software;
    use super::*;

    fn server(port: u16, kind: Kind) -> Found {
        Found { address: ([127, 0, 0, 1], port).into(), kind }
    }

    fn found() -> Vec<Found> {
        vec![
            server(3000, Kind::OtherHttp),
            server(8000, Kind::App { title: "Chat".to_owned(), operations: 1, sample: None }),
            server(8080, Kind::Streamgauge),
            server(11_434, Kind::Models { software: Software::Ollama, models: vec!["m".to_owned()] }),
        ]
    }

    #[test]
    fn what_was_found_is_told_with_the_numbers_to_choose_by() {
        let candidates = Candidates { asked: vec![], left_out: 7, told_by_kernel: true };
        let told = told(&candidates, &found());
        let lines: Vec<&str> = told.lines().skip(2).map(str::trim).collect();
        assert_eq!(
            lines.iter().map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")).collect::<Vec<_>>(),
            [
                "1 http://127.0.0.1:8000",
                "2 http://127.0.0.1:11434",
                "http://127.0.0.1:3000 speaks",
                "http://127.0.0.1:8080 Streamgauge"
            ]
        );
        assert!(told.contains("7 more ports were not asked"), "{told}");
        assert!(super::told(&candidates, &[]).contains("Found no app with /openapi.json"));
    }

    #[test]
    fn who_did_not_say_where_requests_go_is_told_what_was_found() {
        let candidates = Candidates { asked: vec![], left_out: 0, told_by_kernel: true };
        let told = what_to_type(&candidates, &found());
        assert!(told.contains("\n  streamgauge run --upstream http://127.0.0.1:8000     without a file\n"), "{told}");
        assert!(what_to_type(&candidates, &[]).contains("Nothing listens on this machine's loopback."));
        for nothing in [what_to_type(&candidates, &[]), advice(false)] {
            assert!(nothing.contains("streamgauge demo") && nothing.contains("init --port"), "{nothing}");
        }
    }

    #[test]
    fn those_whose_numbers_are_typed_are_taken_in_that_order() {
        let known: Vec<Found> = found().into_iter().filter(Found::is_known).collect();
        let ports = |line: &str| {
            picked(line, &known).map(|picked| picked.iter().map(|server| server.address.port()).collect::<Vec<_>>())
        };
        assert_eq!(ports("\n"), Ok(vec![8000, 11_434]));
        assert_eq!(ports("2, 1 2\n"), Ok(vec![11_434, 8000]));
        for wrong in ["0", "3", "-1", "y", "99999999999999999999"] {
            assert!(ports(wrong).unwrap_err().contains("from 1 to 2"), "{wrong}");
        }
    }

    #[test]
    fn a_port_that_is_named_is_taken_or_said_to_be_wrong() {
        let at = |ports: &[u16]| at_ports(ports, &found()).map(|chosen| chosen.len());
        assert_eq!(at(&[3000, 8000, 3000]), Ok(2));
        assert!(at(&[8080]).unwrap_err().contains("Streamgauge itself"));
        assert!(at(&[1]).unwrap_err().contains("nothing answers in HTTP at port 1 "));
    }

    #[test]
    fn ports_in_use_are_passed_over() {
        let places = places(&|port| port > 9091).unwrap_err();
        assert!(places.contains("8080"), "{places}");
        let places = super::places(&|port| port != 8080 && port != 9090).unwrap();
        assert_eq!((places.listen, places.admin), (8081, 9091));
    }

    #[test]
    fn a_file_is_not_overwritten_unless_that_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.toml");
        write(&path, "long text", false).unwrap();
        assert!(write(&path, "new", false).unwrap_err().contains("--force"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "long text");
        write(&path, "new", true).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
        assert!(write(&directory.path().join("no/a.toml"), "", true).unwrap_err().contains("cannot write"));
    }
}
