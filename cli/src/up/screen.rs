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
        println!("{text}");
    }

    /// What is so at the moment; replaces what was said so before.
    pub fn now(&mut self, text: &str) {
        if self.terminal {
            print!("\r\x1b[2K{}", fitting(text));
            let _ = stdout().flush();
            self.shown = true;
        } else if self.last_plain.is_none_or(|last| last.elapsed() >= PLAIN_PERIOD) {
            self.last_plain = Some(Instant::now());
            println!("    {text}");
        }
    }

    /// Takes the changing line away.
    pub fn clear(&mut self) {
        if self.shown {
            print!("\r\x1b[2K");
            let _ = stdout().flush();
            self.shown = false;
        }
    }
}

/// As much as fits in one row: a wrapped line could not be replaced.
fn fitting(text: &str) -> String {
    let columns = rustix::termios::tcgetwinsize(stdout()).map_or(80, |size| size.ws_col.max(20) as usize);
    text.chars().take(columns - 1).collect()
}
