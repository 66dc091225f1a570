//! What control planes say to each other through the server (LISTEN and NOTIFY): lines of text that are
//! hints and no more. Who was not connected hears that something was missed.

use std::{
    sync::{Arc, mpsc as std_mpsc},
    thread,
    time::Duration,
};

use countersign_shared::{
    digest::hex,
    random,
    tasks::{OnFailure, Tasks},
    time::{Clock as _, SystemClock},
};
use postgres::fallible_iterator::FallibleIterator as _;
use tokio::sync::mpsc;

use super::{Options, session::store_error};
use crate::store::{Result, StoreError};

/// The name of the channel.
const NAME: &str = "countersign";
/// The server takes less than 8000 bytes at once.
const MOST: usize = 7000;
/// How many sayings may wait for a slow server.
const WAITING: usize = 64;
/// How often the clocks are compared.
const CLOCK: Duration = Duration::from_secs(10);
/// How often the listening thread looks whether it is still wanted.
const LOOK: Duration = Duration::from_secs(1);

/// Something heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// A line that another control plane said.
    Line(String),
    /// The server's clock was compared with this host's.
    Clock(Ahead),
    /// Nobody knows what was said while the connection was broken.
    Missed,
}

/// How far the server's clock is ahead of this host's, as far as that can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ahead {
    /// How far, in microseconds.
    pub micros: i64,
    /// It may be so many microseconds more or less: half of the time that the question took.
    pub within: i64,
}

/// Speaks to the other control planes, and hears them. Its threads end when it is dropped.
#[derive(Debug)]
pub struct Channel {
    said: std_mpsc::SyncSender<Vec<String>>,
    heard: mpsc::Receiver<Heard>,
}

impl Channel {
    /// Starts its two threads.
    pub(super) fn open(options: &Arc<Options>, tasks: &Tasks) -> Result<Self> {
        // Tells our own lines from others'.
        let me = hex(&random::bytes::<8>());
        let (said, to_say) = std_mpsc::sync_channel(WAITING);
        let (hear, heard) = mpsc::channel(1024);
        let start = |name, work: Box<dyn FnOnce() -> Result<()> + Send>| {
            let started = tasks.spawn_thread(name, OnFailure::StopProcess, work);
            started.map_err(|error| StoreError::Unavailable(error.to_string()))
        };
        let (speaking, whose) = (Arc::clone(options), me.clone());
        start(
            "store speaker",
            Box::new(move || {
                speak(&speaking, &whose, &to_say);
                Ok(())
            }),
        )?;
        let listening = Arc::clone(options);
        start(
            "store listener",
            Box::new(move || {
                while !hear.is_closed() {
                    if let Err(error) = listen(&listening, &me, &hear) {
                        tracing::warn!(%error, "other control planes are not heard; trying again");
                        thread::sleep(random::full_jitter(LOOK));
                    }
                }
                Ok(())
            }),
        )?;
        Ok(Self { said, heard })
    }

    /// Says lines to the others. What can't be said now is lost: they look at the store now and then.
    pub fn say(&self, lines: Vec<String>) {
        if !lines.is_empty() && self.said.try_send(lines).is_err() {
            tracing::debug!("other control planes were not told: the server is slow");
        }
    }

    /// Waits for the next that is heard; `None` when the threads have ended.
    pub async fn hear(&mut self) -> Option<Heard> {
        self.heard.recv().await
    }
}

fn speak(options: &Options, me: &str, to_say: &std_mpsc::Receiver<Vec<String>>) {
    let mut client = None;
    while let Ok(lines) = to_say.recv() {
        for text in texts(me, &lines) {
            // A connection that broke since the last time is found out by speaking.
            let mut said = say(&mut client, options, &text);
            if said.is_err() {
                said = say(&mut client, options, &text);
            }
            if let Err(error) = said {
                tracing::debug!(%error, "other control planes were not told");
            }
        }
    }
}

fn say(client: &mut Option<postgres::Client>, options: &Options, text: &str) -> Result<()> {
    let mut connected = match client.take() {
        Some(connected) if !connected.is_closed() => connected,
        _ => options.connect()?,
    };
    let said = connected.execute("SELECT pg_notify($1, $2)", &[&NAME, &text]);
    said.map_err(|error| store_error(&error))?;
    // Only one that works is used again.
    *client = Some(connected);
    Ok(())
}

/// The lines in as few texts as the server takes; each begins with who says it.
fn texts(me: &str, lines: &[String]) -> Vec<String> {
    let mut texts: Vec<String> = Vec::new();
    for line in lines {
        match texts.last_mut() {
            Some(text) if text.len() + line.len() < MOST => {
                text.push('\n');
                text.push_str(line);
            }
            _ => texts.push(format!("{me}\n{line}")),
        }
    }
    texts
}

/// Listens until the connection breaks, or nobody wants to hear any more.
fn listen(options: &Options, me: &str, hear: &mpsc::Sender<Heard>) -> Result<()> {
    let mut client = options.connect()?;
    let listening = client.batch_execute(&format!("LISTEN {NAME}"));
    listening.map_err(|error| store_error(&error))?;
    // Also the first time: what was said between the last look at the store and now.
    let mut gone = hear.blocking_send(Heard::Missed).is_err();
    let mut look_at = SystemClock.now();
    while !gone && !hear.is_closed() {
        let now = SystemClock.now();
        if now >= look_at {
            look_at = now.plus(CLOCK);
            let ahead = clock_ahead(&mut client)?;
            gone |= hear.blocking_send(Heard::Clock(ahead)).is_err();
        }
        for line in next_lines(&mut client, me)? {
            gone |= hear.blocking_send(Heard::Line(line)).is_err();
        }
        if client.is_closed() {
            return Err(StoreError::Unavailable(
                "the connection is closed".to_owned(),
            ));
        }
    }
    Ok(())
}

/// Compares the server's clock with this host's.
pub(super) fn clock_ahead(client: &mut postgres::Client) -> Result<Ahead> {
    let before = SystemClock.now().as_unix_micros();
    let question = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
    let answer = client.query_one(question, &[]);
    let theirs: i64 = answer
        .and_then(|row| row.try_get(0))
        .map_err(|error| store_error(&error))?;
    let after = SystemClock.now().as_unix_micros();
    let within = (after - before) / 2;
    Ok(Ahead {
        micros: theirs - (before + within),
        within,
    })
}

/// What others say within a second, or sooner if they say something.
fn next_lines(client: &mut postgres::Client, me: &str) -> Result<Vec<String>> {
    let mut notifications = client.notifications();
    let mut heard = notifications.timeout_iter(LOOK);
    let text = heard.next().map_err(|error| store_error(&error))?;
    let lines = text.as_ref().map(|text| text.payload().split_once('\n'));
    Ok(match lines.flatten() {
        Some((whose, lines)) if whose != me => lines.lines().map(str::to_owned).collect(),
        _ => Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_packed_and_each_text_says_whose_it_is() {
        let lines: Vec<String> = (0..600).map(|number| format!("due {number:020}")).collect();
        let texts = texts("me", &lines);
        assert!(texts.len() > 1 && texts.iter().all(|text| text.len() < 8000));
        let unpacked = texts.iter().flat_map(|text| {
            let mut lines = text.lines();
            assert_eq!(lines.next(), Some("me"));
            lines
        });
        assert!(unpacked.eq(lines.iter().map(String::as_str)));
    }
}
