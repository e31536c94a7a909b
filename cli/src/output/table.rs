//! Tables that fit the terminal.

use crate::output::color::{self, Paint};

/// Between two columns.
const GAP: usize = 2;
/// A column is not cut below this.
const NARROWEST: usize = 6;

/// How a cell looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mood {
    /// As it is.
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// On its way.
    Busy,
    /// Wrong.
    Bad,
}

/// A text and how it looks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cell {
    /// The text, one line.
    pub text: String,
    /// How it looks.
    pub mood: Mood,
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Cell {
        Cell { text: text.into(), mood: Mood::Plain }
    }
}

/// A header and rows of as many cells.
#[derive(Debug, Default)]
pub struct Table {
    header: Vec<String>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// An empty table.
    pub fn new(header: impl IntoIterator<Item = impl Into<String>>) -> Table {
        Table { header: header.into_iter().map(Into::into).collect(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().map(clean).collect());
    }

    /// The text, with line breaks; cut to `width` where given.
    pub fn render(&self, width: Option<usize>) -> String {
        self.paint(width, color::stdout())
    }

    fn paint(&self, width: Option<usize>, paint: Paint) -> String {
        let widths = self.widths(width);
        let header: Vec<Cell> = self.header.iter().map(|h| Cell::from(h.as_str())).collect();
        let mut out = line(&header, &widths, Paint::PLAIN);
        self.rows.iter().for_each(|row| out.push_str(&line(row, &widths, paint)));
        out
    }

    /// What each column needs; then the widest gives way until all fit.
    fn widths(&self, width: Option<usize>) -> Vec<usize> {
        let mut widths: Vec<usize> = self.header.iter().map(|h| h.chars().count()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.text.chars().count());
            }
        }
        let gaps = GAP * widths.len().saturating_sub(1);
        while let Some(room) = width.filter(|room| widths.iter().sum::<usize>() + gaps > *room) {
            let over = widths.iter().sum::<usize>() + gaps - room;
            if !narrow(&mut widths, over) {
                break;
            }
        }
        widths
    }
}

/// Takes from the widest column what it exceeds the second widest by, at most `over`; false if nothing gives.
fn narrow(widths: &mut [usize], over: usize) -> bool {
    let mut sorted = widths.to_vec();
    sorted.sort_unstable_by(|a, b| b.cmp(a));
    let (widest, second) = (sorted[0], sorted.get(1).copied().unwrap_or(0));
    let cut = (widest - second).max(1).min(over);
    let Some(column) = widths.iter().rposition(|w| *w == widest) else { return false };
    if widest <= NARROWEST {
        return false;
    }
    widths[column] = (widest - cut).max(NARROWEST);
    true
}

/// Lines that come one at a time: a column is as wide as the widest cell so far.
#[derive(Debug)]
pub struct Lines {
    widths: Vec<usize>,
}

impl Lines {
    /// Columns under these headers, at least so wide each.
    pub fn new(columns: &[(&str, usize)]) -> Lines {
        Lines { widths: columns.iter().map(|(header, width)| (*width).max(header.chars().count())).collect() }
    }

    /// The next line, without a line break; cut to `width` where given.
    pub fn next(&mut self, cells: impl IntoIterator<Item = Cell>, width: Option<usize>) -> String {
        let cells: Vec<Cell> = cells.into_iter().map(clean).collect();
        for (width, cell) in self.widths.iter_mut().zip(&cells) {
            *width = (*width).max(cell.text.chars().count());
        }
        let table = Table { header: self.widths.iter().map(|w| " ".repeat(*w)).collect(), rows: Vec::new() };
        line(&cells, &table.widths(width), color::stdout()).trim_end().to_owned()
    }
}

fn line(cells: &[Cell], widths: &[usize], paint: Paint) -> String {
    let mut out = String::new();
    for (index, (cell, width)) in cells.iter().zip(widths).enumerate() {
        let text = cut(&cell.text, *width);
        let padding = width - text.chars().count();
        out.push_str(&mood(paint, cell.mood, &text));
        if index + 1 < cells.len() {
            out.push_str(&" ".repeat(padding + GAP));
        }
    }
    out.push('\n');
    out
}

fn mood(paint: Paint, mood: Mood, text: &str) -> String {
    match mood {
        Mood::Plain => text.to_owned(),
        Mood::Good => paint.green(text),
        Mood::Busy => paint.yellow(text),
        Mood::Bad => paint.red(text),
    }
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// One line, without anything that would move the terminal's cursor; a dash for nothing.
fn clean(cell: Cell) -> Cell {
    let text: String = cell.text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    Cell { text: if text.is_empty() { "-".to_owned() } else { text }, ..cell }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Table {
        let mut table = Table::new(["NAME", "MESSAGE"]);
        table.row(["a".into(), "waits until callers have acknowledged".into()]);
        table.row(["longer-name".into(), "".into()]);
        table
    }

    #[test]
    fn columns_line_up() {
        let text = sample().paint(None, Paint::PLAIN);
        assert_eq!(text.lines().next().unwrap(), "NAME         MESSAGE");
        assert_eq!(text.lines().nth(2).unwrap(), "longer-name  -");
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        for width in [16, 20, 30, 200] {
            let text = sample().paint(Some(width), Paint::PLAIN);
            assert!(text.lines().all(|l| l.chars().count() <= width), "{width}: {text}");
        }
        assert!(sample().paint(Some(30), Paint::PLAIN).contains('…'));
    }

    #[test]
    fn lines_learn_their_widths() {
        let mut lines = Lines::new(&[("A", 3), ("B", 0)]);
        let mut next = |a: &str| lines.next([a.into(), "x".into()], None);
        assert_eq!([next("1"), next("12345"), next("1")], ["1    x", "12345  x", "1      x"]);
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let mut table = Table::new(["X"]);
        table.row(["a\x1b[2Jb\nc".into()]);
        assert_eq!(table.paint(None, Paint::PLAIN), "X\na [2Jb c\n");
    }
}
