//! Colours, only on a terminal and only unless `NO_COLOR` is set (<https://no-color.org>).

use std::fmt::Display;
use std::io::IsTerminal;

/// Whether to colour.
#[derive(Debug, Clone, Copy)]
pub struct Paint(bool);

/// For standard output.
pub fn stdout() -> Paint {
    Paint(wanted() && std::io::stdout().is_terminal())
}

/// For standard error.
pub fn stderr() -> Paint {
    Paint(wanted() && std::io::stderr().is_terminal())
}

fn wanted() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

impl Paint {
    /// Never.
    pub const PLAIN: Paint = Paint(false);

    /// Whether it colours.
    pub fn on(self) -> bool {
        self.0
    }

    /// Wrong.
    pub fn red(self, text: impl Display) -> String {
        self.code("31", text)
    }

    /// Right.
    pub fn green(self, text: impl Display) -> String {
        self.code("32", text)
    }

    /// Calls for attention.
    pub fn yellow(self, text: impl Display) -> String {
        self.code("33", text)
    }

    /// Headings.
    pub fn bold(self, text: impl Display) -> String {
        self.code("1", text)
    }

    /// Less important.
    pub fn dim(self, text: impl Display) -> String {
        self.code("2", text)
    }

    fn code(self, code: &str, text: impl Display) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }
}
