//! What stands between a checked new configuration and its use.

use super::settings::Settings;

/// Refuses a new configuration that looks like an accident: one that keeps none of the routes, or removes more than
/// half of the upstreams. A route is kept by its name or its path, an upstream by its name or its endpoints.
///
/// # Errors
/// The words that say what would go, and how to insist.
pub fn guard(old: &Settings, new: &Settings) -> Result<(), String> {
    let insist = "; to do so all the same, POST /api/reload?force=true at the admin address, or restart";
    let is_kept = |route: &_| new.routes.iter().any(|other| is_same_route(route, other));
    if !old.routes.is_empty() && !old.routes.iter().any(|route| is_kept(route)) {
        return Err(format!("refused: it would remove every route{insist}"));
    }
    let removed: Vec<&str> = old
        .upstreams
        .iter()
        .filter(|upstream| {
            !new.upstreams.iter().any(|other| other.name == upstream.name || other.endpoints == upstream.endpoints)
        })
        .map(|upstream| &*upstream.name)
        .collect();
    if removed.len() * 2 > old.upstreams.len() {
        let names = removed.join("\", \"");
        let count = old.upstreams.len();
        return Err(format!("refused: it would remove {} of {count} upstreams (\"{names}\"){insist}", removed.len()));
    }
    Ok(())
}

fn is_same_route(old: &super::settings::Route, new: &super::settings::Route) -> bool {
    old.name == new.name || old.path == new.path
}

/// The keys that changed and that a running process cannot follow.
pub fn needs_restart(old: &Settings, new: &Settings) -> Vec<String> {
    let (a, b) = (&old.server, &new.server);
    let (s, t) = (&old.telemetry, &new.telemetry);
    let changes = [
        ("server.listen", a.listen != b.listen),
        ("server.admin", a.admin != b.admin),
        ("server.tls (on or off)", a.tls.is_some() != b.tls.is_some()),
        ("server.state_dir", a.state_dir != b.state_dir),
        ("server.socket_mode", a.socket_mode != b.socket_mode),
        ("telemetry.service_name", s.service_name != t.service_name),
        ("telemetry.otlp_endpoint", s.otlp_endpoint != t.otlp_endpoint),
        ("telemetry.otlp_protocol", s.otlp_protocol != t.otlp_protocol),
        ("telemetry.signals", s.signals != t.signals),
    ];
    changes.into_iter().filter(|(_, changed)| *changed).map(|(key, _)| key.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    fn settings(text: &str) -> Settings {
        let no_file = |_: &std::path::Path| Err(std::io::ErrorKind::NotFound.into());
        parse(text, "test.toml", &|_| None, &no_file).unwrap()
    }

    fn upstreams(names: &[&str]) -> Settings {
        let mut text = String::new();
        for name in names {
            text += &format!("[[upstream]]\nname = \"{name}\"\nurl = \"http://{name}:80\"\n");
        }
        text += &format!("[[route]]\nupstream = \"{}\"\n", names[0]);
        settings(&text)
    }

    #[test]
    fn removal_of_most_upstreams_is_refused() {
        let four = upstreams(&["a", "b", "c", "d"]);
        assert_eq!(guard(&four, &upstreams(&["a", "b"])), Ok(()), "half may go");
        let error = guard(&four, &upstreams(&["a"])).unwrap_err();
        assert!(error.contains("3 of 4 upstreams (\"b\", \"c\", \"d\")") && error.contains("force=true"), "{error}");
        assert_eq!(guard(&upstreams(&["a"]), &four), Ok(()), "more may come");
        assert!(guard(&upstreams(&["a"]), &upstreams(&["b"])).is_err());
    }

    #[test]
    fn a_renamed_upstream_is_not_removed() {
        let old = settings("[[upstream]]\nname = \"a\"\nurl = \"http://h\"");
        let new = settings("[[upstream]]\nname = \"b\"\nurl = \"http://h\"");
        assert_eq!(guard(&old, &new), Ok(()));
    }

    #[test]
    fn removal_of_every_route_is_refused() {
        let with = |routes: &str| settings(&format!("[[upstream]]\nurl = \"http://h\"\n{routes}"));
        let old = with("[[route]]\nname = \"a\"\npath = \"/a\"\n[[route]]\nname = \"b\"\npath = \"/b\"");
        let error = guard(&old, &with("[[route]]\nname = \"c\"\npath = \"/c\"")).unwrap_err();
        assert!(error.contains("every route"), "{error}");
        assert_eq!(guard(&old, &with("[[route]]\nname = \"b\"\npath = \"/new\"")), Ok(()));
        assert_eq!(guard(&old, &with("[[route]]\nname = \"new\"\npath = \"/a\"")), Ok(()));
    }

    #[test]
    fn what_needs_a_restart_is_named() {
        let old = settings("[[upstream]]\nurl = \"http://h\"");
        assert_eq!(needs_restart(&old, &old), Vec::<String>::new());
        let new = settings(
            "[server]\nlisten = \"127.0.0.1:1\"\nadmin = \"127.0.0.1:2\"\nstate_dir = \"/s\"\nmax_body = 1\n\
             [telemetry]\nservice_name = \"x\"\notlp_endpoint = \"http://h\"\notlp_protocol = \"grpc\"\nsignals = [\"traces\", \"logs\"]\n\
             [[upstream]]\nurl = \"http://h\"",
        );
        let keys = needs_restart(&old, &new);
        assert_eq!(keys.len(), 7, "{keys:?}");
        assert!(
            keys.iter().any(|key| key == "server.listen") && keys.iter().any(|key| key == "telemetry.otlp_protocol")
        );
        let mut tls = old.clone();
        tls.server.tls = Some(super::super::settings::Tls { cert: "c".into(), key: "k".into() });
        assert_eq!(needs_restart(&old, &tls), ["server.tls (on or off)"]);
    }
}
