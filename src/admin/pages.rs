//! The files of the live view. Nothing is built, and nothing comes from elsewhere.

use super::answer::{Answer, HTML};

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

static FILES: [File; 9] = [
    file!("live.css", STYLE),
    file!("live.js", SCRIPT),
    file!("anatomy.js", SCRIPT),
    file!("feed.js", SCRIPT),
    file!("format.js", SCRIPT),
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

/// The live view; with a way out for who logged in.
pub(super) fn live(logged_in: bool) -> Answer {
    let way_out = if logged_in { include_str!("page/logout.html").trim_end() } else { "" };
    Answer::new(HTML, include_str!("page/live.html").replace("{{logout}}", way_out))
}
