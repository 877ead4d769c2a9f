//! Standard error: lines that stay, above one block that is redrawn.
//!
//! The cursor rests on the line *below* the block, so that what the terminal echoes there by itself (`^C`) goes with
//! the next redraw and never shifts the block.

use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tracing_subscriber::fmt::MakeWriter;

/// Clones share the terminal.
#[derive(Debug, Clone)]
pub struct Screen {
    /// The block that is on the terminal now; empty where there is none.
    block: Arc<Mutex<String>>,
    terminal: bool,
}

impl Screen {
    pub fn new() -> Self {
        Self { block: Arc::default(), terminal: io::stderr().is_terminal() }
    }

    /// Whether a block can be redrawn.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// A block that is redrawn when its text is set.
    pub fn block(&self) -> Block {
        Block { screen: self.clone() }
    }

    /// Prints lines above the block.
    pub fn print(&self, text: &str) {
        // Standard error being gone leaves nobody to tell.
        let _ = self.above(text.as_bytes());
    }

    fn above(&self, text: &[u8]) -> io::Result<()> {
        let block = self.shown();
        let frame = [erase(&block).as_bytes(), text, block.as_bytes()].concat();
        io::stderr().write_all(&frame)
    }

    fn redraw(&self, text: String) {
        let mut block = self.shown();
        // In one write, so that nothing flickers.
        let _ = io::stderr().write_all(format!("{}{text}", erase(&block)).as_bytes());
        *block = text;
    }

    fn shown(&self) -> MutexGuard<'_, String> {
        self.block.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What takes a block off the terminal: up to its first line, and all from there on is erased.
fn erase(block: &str) -> String {
    match block.lines().count() {
        0 => String::new(),
        lines => format!("\x1b[{lines}F\x1b[J"),
    }
}

/// A redrawn block; it vanishes when it is dropped.
pub struct Block {
    screen: Screen,
}

impl Block {
    /// Shows this instead. Lines are cut at the width of the terminal: one that wraps would be two to erase.
    pub fn set(&self, text: &str) {
        let width = terminal_size::terminal_size_of(io::stderr()).map_or(usize::MAX, |(width, _)| width.0.into());
        let lines: Vec<String> = text.lines().map(|line| cut(line, width)).collect();
        self.screen.redraw(lines.join("\n") + "\n");
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.screen.redraw(String::new());
    }
}

/// The line up to a visible width; escape sequences take none.
fn cut(line: &str, width: usize) -> String {
    let mut kept = String::with_capacity(line.len());
    let mut room = width;
    let mut escaped = false;
    for c in line.chars() {
        match c {
            '\x1b' => escaped = true,
            'm' if escaped => {
                escaped = false;
                kept.push(c);
                continue;
            }
            _ => {}
        }
        if !escaped {
            if room == 0 {
                continue;
            }
            room -= 1;
        }
        kept.push(c);
    }
    kept
}

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.above(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Screen {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_by_what_is_seen_of_it() {
        for (line, width, kept) in [
            ("plain", 10, "plain"),
            ("plain", 3, "pla"),
            ("\x1b[1mbold\x1b[0m text", 6, "\x1b[1mbold\x1b[0m t"),
            ("\x1b[1mbold\x1b[0m", 2, "\x1b[1mbo\x1b[0m"),
        ] {
            assert_eq!(cut(line, width), kept);
        }
    }

    #[test]
    fn a_block_is_erased_from_its_first_line_on() {
        assert_eq!(erase(""), "");
        assert_eq!(erase("one\ntwo\n"), "\x1b[2F\x1b[J");
    }
}
