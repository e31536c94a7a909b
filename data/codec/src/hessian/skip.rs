//! Stepping over a value of any shape, without recursion.

use super::text::is_text;
use super::{MAX_CLASSES, MAX_DEPTH, Malformed, Reader};

/// A compound value that has begun: what has to come before it ends.
enum Open {
    /// These many values.
    Values(usize),
    /// Values up to `Z`.
    List,
    /// Pairs up to `Z`, which may only stand where a key could.
    Map { key_is_next: bool },
}

impl Reader<'_> {
    /// Steps over one value. Takes time linear in its bytes: whatever counts it announces, each value it holds is there.
    ///
    /// # Errors
    /// If it is malformed, nested too deeply, or not complete.
    pub fn skip(&mut self) -> Result<(), Malformed> {
        let mut open = Vec::new();
        loop {
            if let Some(compound) = self.begin()? {
                if open.len() == MAX_DEPTH {
                    return Err(Malformed::TooDeep);
                }
                open.push(compound);
            }
            while open.last_mut().map(|compound| self.has_ended(compound)) == Some(true) {
                open.pop();
            }
            if open.is_empty() {
                return Ok(());
            }
        }
    }

    /// True if the compound is complete; otherwise another value is due in it.
    fn has_ended(&mut self, compound: &mut Open) -> bool {
        match compound {
            Open::Values(0) => true,
            Open::Values(left) => {
                *left -= 1;
                false
            }
            Open::List => self.take_if(b'Z'),
            Open::Map { key_is_next: true } if self.take_if(b'Z') => true,
            Open::Map { key_is_next } => {
                *key_is_next = !*key_is_next;
                false
            }
        }
    }

    /// Takes a simple value, or the head of a compound one.
    fn begin(&mut self) -> Result<Option<Open>, Malformed> {
        while self.take_if(b'C') {
            self.class_definition()?;
        }
        let at = self.at;
        let code = self.peek().ok_or(Malformed::Truncated)?;
        if is_text(code) {
            return self.skip_text().map(|()| None);
        }
        self.at += 1;
        match code {
            b'O' | 0x60..=0x6f => self.object(code).map(Some),
            b'U' | b'V' | b'W' | b'X' | 0x70..=0x7f => self.list(code).map(Some),
            b'M' | b'H' => self.map(code).map(Some),
            b'A' | b'B' | 0x20..=0x2f | 0x34..=0x37 => self.binary(code).map(|()| None),
            b'Q' => self.length().map(|_| None),
            _ => {
                let len = scalar_len(code).ok_or(Malformed::Code { code, at })?;
                self.take(len).map(|_| None)
            }
        }
    }

    fn class_definition(&mut self) -> Result<(), Malformed> {
        self.skip_text()?;
        let fields = self.length()?;
        for _ in 0..fields {
            self.skip_text()?;
        }
        if self.classes.len() == MAX_CLASSES {
            return Err(Malformed::TooManyClasses);
        }
        self.classes.push(fields);
        Ok(())
    }

    fn object(&mut self, code: u8) -> Result<Open, Malformed> {
        let class = if code == b'O' { self.length()? } else { usize::from(code - 0x60) };
        self.classes.get(class).map(|&fields| Open::Values(fields)).ok_or(Malformed::Class)
    }

    fn list(&mut self, code: u8) -> Result<Open, Malformed> {
        if matches!(code, b'U' | b'V' | 0x70..=0x77) {
            self.type_name()?;
        }
        match code {
            b'U' | b'W' => Ok(Open::List),
            b'V' | b'X' => self.length().map(Open::Values),
            _ => Ok(Open::Values(usize::from(code & 7))),
        }
    }

    fn map(&mut self, code: u8) -> Result<Open, Malformed> {
        if code == b'M' {
            self.type_name()?;
        }
        Ok(Open::Map { key_is_next: true })
    }

    /// A type is a string the first time, then the number of that string.
    pub(crate) fn type_name(&mut self) -> Result<(), Malformed> {
        match self.peek() {
            Some(code) if is_text(code) => self.skip_text(),
            _ => self.length().map(|_| ()),
        }
    }

    fn binary(&mut self, mut code: u8) -> Result<(), Malformed> {
        loop {
            let len = match code {
                0x20..=0x2f => usize::from(code - 0x20),
                0x34..=0x37 => usize::from(code - 0x34) << 8 | usize::from(self.byte()?),
                b'A' | b'B' => self.unsigned(2)? as usize,
                _ => return Err(Malformed::Code { code, at: self.at - 1 }),
            };
            self.take(len)?;
            if code != b'A' {
                return Ok(());
            }
            code = self.byte()?;
        }
    }
}

/// How many bytes follow the code of a null, boolean, number or date.
fn scalar_len(code: u8) -> Option<usize> {
    match code {
        b'N' | b'T' | b'F' | 0x5b | 0x5c | 0x80..=0xbf | 0xd8..=0xef => Some(0),
        0x5d | 0xc0..=0xcf | 0xf0..=0xff => Some(1),
        0x5e | 0x38..=0x3f | 0xd0..=0xd7 => Some(2),
        b'I' | b'K' | 0x59 | 0x5f => Some(4),
        b'D' | b'J' | b'L' => Some(8),
        _ => None,
    }
}
