//! The files of the live view. Nothing is built, and nothing comes from elsewhere.

use pingora::http::RequestHeader;

use super::answer::{Answer, HTML, TEXT};

const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

/// A file that is part of the program.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct File {
    path: &'static str,
    content_type: &'static str,
    text: &'static str,
}

macro_rules! file {
    ($name:literal, $type:expr) => {
        File { path: concat!("/", $name), content_type: $type, text: include_str!(concat!("page/", $name)) }
    };
}

/// What who is not logged in may read: the look of the login form.
static LOGIN_STYLE: File = file!("login.css", STYLE);

static FILES: [File; 10] = [
    file!("live.css", STYLE),
    file!("live.js", SCRIPT),
    file!("anatomy.js", SCRIPT),
    file!("feed.js", SCRIPT),
    file!("format.js", SCRIPT),
    file!("history.js", SCRIPT),
    file!("panels.js", SCRIPT),
    file!("rows.js", SCRIPT),
    file!("streams.js", SCRIPT),
    file!("timeline.js", SCRIPT),
];

impl File {
    pub(super) fn find(path: &str) -> Option<&'static Self> {
        FILES.iter().chain([&LOGIN_STYLE]).find(|file| file.path == path)
    }

    pub(super) fn is_public(&self) -> bool {
        *self == LOGIN_STYLE
    }

    pub(super) fn answer(&self) -> Answer {
        Answer::new(self.content_type, self.text)
    }
}

/// What there is, for those who read no HTML.
const LIST: &str = "\
Streamgauge, the admin address

/                     the live view, for browsers; in a terminal: streamgauge top
/healthz              the process runs
/readyz               it can serve; ?self: whatever its upstreams do
/metrics              for Prometheus
/api/streams          what runs now, the last 1,000, and what fails since when
/api/streams/events   the live view's feed, as server-sent events
/api/history          the last 24 hours in steps of 5 minutes; ?by=route, upstream or all
/api/upstreams        each endpoint: health, since when, what was measured
/api/levers           what is out of service by hand
/api/canaries         how canaries stand, and why
/api/limits           the fullest holders; ?user=, ?team=, ?key=, ?ip=, ?route=
/api/fleet            who is of the fleet, who answers, who judges each canary; ?fleet at the above: of all replicas
/api/prices           what models cost here
/api/config           the configuration in effect, secrets masked

POST /api/reload[?force=true]
POST /api/canaries/ROUTE/{promote|rollback|pause|resume}
POST /api/levers/{drain|disable|enable}?what=UPSTREAM[/ENDPOINT]&reason=…
POST /api/levers/{drain|disable|enable}?what=TARGET&route=ROUTE&reason=…
POST /api/levers/{revoke|restore}?what=KEY&reason=…
";

/// The list of what there is.
pub(super) fn list() -> Answer {
    Answer::new(TEXT, LIST)
}

/// Whether what asks for a page can show one: curl takes anything, browsers say that they take HTML.
pub(super) fn takes_html(head: &RequestHeader) -> bool {
    let mut accepts = head.headers.get_all("accept").iter().peekable();
    accepts.peek().is_none() || accepts.any(|value| memchr::memmem::find(value.as_bytes(), b"text/html").is_some())
}

/// The live view; with a way out for who logged in.
pub(super) fn live(logged_in: bool) -> Answer {
    let way_out = if logged_in { include_str!("page/logout.html").trim_end() } else { "" };
    Answer::new(HTML, include_str!("page/live.html").replace("{{logout}}", way_out))
}
