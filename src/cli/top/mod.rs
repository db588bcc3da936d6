//! `streamgauge top`: the live view in a terminal, over the admin address.
//!
//! `feed` reads what the proxy tells, `model` keeps it, `view` draws it: `stream_columns`, `panes` and `anatomy` are its parts. Three
//! threads (feed, keys, signals) send to the one that draws; where the terminal is slow, the feed waits, and the proxy tells less.

mod anatomy;
mod app;
mod feed;
mod model;
mod panes;
mod stream_columns;
mod text;
mod view;

#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, Event, KeyEvent, KeyEventKind};
use tokio::signal::unix::{SignalKind, signal};

use self::app::App;
use self::feed::Told;

/// Least time between two pictures.
const PACE: Duration = Duration::from_millis(100);

/// Messages that wait for the drawing thread.
const WAITING_MAX: usize = 16;

/// Columns and lines of the snapshot that is printed where there is no terminal.
const SNAPSHOT: (u16, u16) = (120, 44);

/// Longest wait for what a snapshot shows.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(5);

#[derive(clap::Args)]
pub(super) struct Options {
    /// The proxy's admin address: `http://127.0.0.1:9090`, `127.0.0.1:9090` or `unix:/path`. Off loopback it asks for the
    /// token in STREAMGAUGE_ADMIN_TOKEN.
    #[arg(long, env = "STREAMGAUGE_ADMIN", default_value = "http://127.0.0.1:9090", value_name = "URL")]
    admin: String,
    /// Print one picture as plain text, with all panes, and exit; so it is wherever the output is no terminal.
    #[arg(long)]
    once: bool,
    /// Show all replicas of the fleet that this proxy is of; it names those that do not answer.
    #[arg(long)]
    fleet: bool,
}

/// What the drawing thread wakes up for.
enum Message {
    Told(Told),
    Key(KeyEvent),
    Resized,
    /// A signal asked for the end.
    Stop,
}

/// Shows the live view until somebody leaves it; what to print at last.
///
/// # Errors
/// The terminal cannot be drawn on; where one picture is wanted, that nobody could be asked for it.
pub(super) fn run(options: &Options) -> Result<String, String> {
    let token = super::admin::token();
    let (sender, messages) = mpsc::sync_channel(WAITING_MAX);
    let (admin, told) = (options.admin.clone(), sender.clone());
    let path = if options.fleet { "/api/streams/events?fleet" } else { "/api/streams/events" };
    thread::spawn(move || feed::follow(&admin, path, token.as_deref(), |news| told.send(Message::Told(news)).is_ok()));
    if options.once || !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return snapshot(&options.admin, &messages);
    }
    let stop = sender.clone();
    thread::spawn(move || until_signal(&stop));
    // From here on the terminal is set back by whatever ends this function, a panic too.
    let mut terminal = ratatui::try_init().map_err(|error| format!("this terminal cannot be drawn on: {error}"))?;
    thread::spawn(move || read_keys(&sender));
    let ended = watch(&mut terminal, App::new(&options.admin), &messages);
    ratatui::restore();
    ended.map(|()| String::new()).map_err(|error| format!("this terminal cannot be drawn on: {error}"))
}

fn watch(terminal: &mut ratatui::DefaultTerminal, mut app: App, messages: &Receiver<Message>) -> io::Result<()> {
    let mut due = Instant::now();
    loop {
        let now = Instant::now();
        if now >= due {
            terminal.draw(|frame| view::draw(frame, &mut app, now))?;
            due = now + PACE;
        }
        match messages.recv_timeout(due.saturating_duration_since(Instant::now())) {
            Ok(Message::Told(told)) => app.told(told, Instant::now()),
            Ok(Message::Key(key)) => {
                if app.pressed(key) {
                    return Ok(());
                }
                // A key is answered at once.
                due = Instant::now();
            }
            Ok(Message::Resized) => due = Instant::now(),
            Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// One picture as text.
fn snapshot(admin: &str, messages: &Receiver<Message>) -> Result<String, String> {
    let mut app = App::new(admin);
    let deadline = Instant::now() + SNAPSHOT_PATIENCE;
    while !app.is_informed() {
        match messages.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Message::Told(Told::Lost(why))) => return Err(why),
            Ok(Message::Told(told)) => app.told(told, Instant::now()),
            Ok(_) => {}
            Err(_) => return Err(format!("{admin} tells nothing")),
        }
    }
    let picture = picture(&mut app, SNAPSHOT, Instant::now()).map_err(|error| error.to_string())?;
    Ok(format!("{picture}{}", view::other_panes(&app)))
}

/// What a terminal of `size` would show, without colours and trailing blanks.
fn picture(app: &mut App, size: (u16, u16), now: Instant) -> io::Result<String> {
    let Ok(mut terminal) = Terminal::new(TestBackend::new(size.0, size.1));
    let Ok(_) = terminal.draw(|frame| view::draw(frame, app, now));
    let mut text = String::new();
    for line in terminal.backend().buffer().content().chunks(usize::from(size.0)) {
        let line: String = line.iter().map(ratatui::buffer::Cell::symbol).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    Ok(text)
}

fn read_keys(sender: &SyncSender<Message>) {
    loop {
        let message = match event::read() {
            Ok(Event::Key(key)) if key.kind != KeyEventKind::Release => Message::Key(key),
            Ok(Event::Resize(..)) => Message::Resized,
            Ok(_) => continue,
            // The terminal is gone.
            Err(_) => Message::Stop,
        };
        let stops = matches!(message, Message::Stop);
        if sender.send(message).is_err() || stops {
            return;
        }
    }
}

/// Waits for a signal that would end the process with the terminal as it is.
fn until_signal(sender: &SyncSender<Message>) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    runtime.block_on(async {
        let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
        let waits = kinds.into_iter().filter_map(|kind| signal(kind).ok()).map(|mut signal| {
            Box::pin(async move {
                signal.recv().await;
            })
        });
        let waits: Vec<_> = waits.collect();
        if !waits.is_empty() {
            futures_util::future::select_all(waits).await;
            let _ = sender.send(Message::Stop);
        }
    });
}
