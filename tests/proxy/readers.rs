//! What backends read: real ones in Go, Node.js and Python get every disguise that the proxy lets through, and answer with what
//! each way of reading in them takes it for. None reads a larger request, another model or another user than the proxy counted,
//! renamed, routed by and vouched for.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Map, Value};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::disguises::{ask, disguises};
use crate::support::{Proxy, soon};

/// A backend as a process of its own; ends with its owner.
struct Backend {
    name: &'static str,
    address: String,
    _child: Child,
}

fn cached(path: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache").join(path);
    assert!(path.exists(), "{} is missing: `scripts/setup backends` makes it", path.display());
    path
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/proxy/backends").join(name)
}

impl Backend {
    async fn all() -> [Self; 3] {
        let (built, written) = (cached("backends/go"), source("server.go"));
        let age = |path: &Path| std::fs::metadata(path).unwrap().modified().unwrap();
        assert!(age(&built) >= age(&written), "the backend in Go is old: `scripts/setup backends` builds it anew");
        let mut node = Command::new(cached("backends/node"));
        node.arg(source("server.mjs"));
        let mut python = Command::new(cached("venv/bin/python"));
        python.arg(source("server.py"));
        [
            Self::start("go", Command::new(built)).await,
            Self::start("node", node).await,
            Self::start("python", python).await,
        ]
    }

    async fn start(name: &'static str, mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = soon(name, lines.next_line()).await.unwrap().unwrap_or_else(|| panic!("{name} did not start"));
        Self { name, address, _child: child }
    }

    /// What leads to it: by model, or with everything that may be done to a request.
    fn routes(&self) -> String {
        let Self { name, address, .. } = self;
        format!(
            "[[upstream]]\nname = \"{name}\"\nurl = \"http://{address}\"\n\
             [[route]]\nname = \"{name} big\"\npath = \"*\"\nheaders = {{ x-backend = \"{name}\", x-control = \"model\" }}\n\
             models = [\"big-*\"]\nupstream = \"{name}\"\n\
             [[route]]\nname = \"{name} rest\"\npath = \"*\"\nheaders = {{ x-backend = \"{name}\", x-control = \"model\" }}\n\
             upstream = \"{name}\"\n\
             [[route]]\nname = \"{name} all\"\npath = \"*\"\nheaders = {{ x-backend = \"{name}\" }}\n\
             targets = [{{ upstream = \"{name}\", model = \"small-model\" }}]\nlimits = [\"wide\"]\n"
        )
    }
}

/// What one way of reading takes a request for, by its name.
type Reads = Map<String, Value>;

/// What is wrong with what a backend read of a request that got to it with everything done that may be done to it.
fn wrong(reads: &Reads, reserved: u64) -> Vec<String> {
    let mut wrong = Vec::new();
    for (way, read) in reads {
        let model = read["model"].as_str().unwrap_or_default();
        if !model.is_empty() && model != "small-model" {
            wrong.push(format!("{way} reads the model {model}"));
        }
        if read["tokens"].as_f64().unwrap() > reserved as f64 {
            wrong.push(format!("{way} reads {} tokens, and {reserved} were reserved", read["tokens"]));
        }
        if read["user"] != "alice" {
            wrong.push(format!("{way} reads the user {}", read["user"]));
        }
    }
    wrong
}

#[tokio::test]
async fn no_backend_reads_a_larger_request_another_model_or_another_user() {
    let backends = Backend::all().await;
    let (entry, key) = crate::identity::key("alice");
    let wide = "[[limit]]\nname = \"wide\"\nkey = \"global\"\ntokens_per_minute = 1_000_000_000\n";
    let routes: String = backends.iter().map(Backend::routes).collect();
    let proxy = Proxy::start(&format!("[identity]\nrequired = true\n{entry}\n{wide}{routes}")).await;
    let bearer = format!("Bearer {key}");
    let (mut around, mut reading, mut passed) = (Vec::new(), 0, 0);
    for backend in &backends {
        for (number, disguise) in disguises().iter().enumerate() {
            let id = format!("{}-{number}", backend.name);
            let more = [
                ("authorization", &*bearer),
                ("x-user-id", "mallory"),
                ("x_user_id", "mallory"),
                ("x-backend", backend.name),
            ];
            let (status, answer) = ask(&proxy, disguise, &[&more[..], &[("x-request-id", &*id)]].concat()).await;
            assert!(matches!(status, 200 | 400), "{} for {}: {status}", backend.name, disguise.name);
            if status == 200 {
                let reserved = proxy.record(&id).await["limit"]["reserved"].as_u64().unwrap_or(0);
                let reads: Reads = serde_json::from_slice(&answer).unwrap();
                around.extend(wrong(&reads, reserved).into_iter().map(|wrong| (backend.name, disguise.name, wrong)));
                reading += reads.values().filter(|read| read["model"] == "small-model").count();
                passed += 1;
            }

            let id = format!("{}-{number}-model", backend.name);
            let (status, answer) =
                ask(&proxy, disguise, &[&more[..], &[("x-request-id", &*id), ("x-control", "model")]].concat()).await;
            if status == 200 && proxy.record(&id).await["route"].as_str().unwrap().ends_with("rest") {
                let reads: Reads = serde_json::from_slice(&answer).unwrap();
                let big = reads.iter().filter(|(_, read)| {
                    read["model"].as_str().is_some_and(|model| model.to_ascii_lowercase().starts_with("big-"))
                });
                around.extend(big.map(|(way, _)| (backend.name, disguise.name, format!("{way} reads a big model"))));
            }
        }
    }
    assert!(around.is_empty(), "{} got around: {around:#?}", around.len());
    // Refusing everything, or reading nothing, would show nothing.
    assert!(passed > 3 * 40 && reading > 3 * 100, "{passed} passed, {reading} read");
}
