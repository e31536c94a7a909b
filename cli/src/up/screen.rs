//! The terminal: lines that stay, and on a terminal one line that changes.

use std::io::{IsTerminal, Write, stdout};
use std::time::{Duration, Instant};

use crate::output::color::{self, Paint};

/// Where there is no terminal, the changing line is printed this often.
const PLAIN_PERIOD: Duration = Duration::from_secs(10);

/// Prints.
pub struct Screen {
    terminal: bool,
    shown: bool,
    last_plain: Option<Instant>,
    /// Colours, where they are wanted.
    pub paint: Paint,
}

impl Screen {
    /// For standard output.
    pub fn new() -> Screen {
        Screen { terminal: stdout().is_terminal(), shown: false, last_plain: None, paint: color::stdout() }
    }

    /// A line that stays.
    pub fn line(&mut self, text: &str) {
        self.clear();
        say(text);
    }

    /// What is so at the moment; replaces what was said so before.
    pub fn now(&mut self, text: &str) {
        if self.terminal {
            show(&format!("\r\x1b[2K{}", fitting(text)));
            self.shown = true;
        } else if self.last_plain.is_none_or(|last| last.elapsed() >= PLAIN_PERIOD) {
            self.last_plain = Some(Instant::now());
            say(&format!("    {text}"));
        }
    }

    /// Takes the changing line away.
    pub fn clear(&mut self) {
        if self.shown {
            show("\r\x1b[2K");
            self.shown = false;
        }
    }
}

/// A reader that has gone (`weir up | head`) is no reason to leave instances behind: what runs is stopped in order.
fn say(text: &str) {
    let _gone = writeln!(stdout(), "{text}");
}

fn show(text: &str) {
    let mut out = stdout();
    let _gone = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// As much as fits in one row: a wrapped line could not be replaced.
fn fitting(text: &str) -> String {
    let columns = rustix::termios::tcgetwinsize(stdout()).map_or(80, |size| size.ws_col.max(20) as usize);
    text.chars().take(columns - 1).collect()
}
