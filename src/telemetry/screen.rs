//! Standard error as a screen that log lines and the live view share: a log line clears the picture, is printed above
//! it, and the next picture is painted below.

use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use tracing_subscriber::fmt::MakeWriter;

/// Lines of the picture that stands on the screen.
static PAINTED: Mutex<usize> = Mutex::new(0);

/// Standard error.
#[derive(Debug, Clone, Copy, Default)]
pub struct Screen;

impl Screen {
    /// Replaces the picture.
    pub fn paint(picture: &str) {
        let mut painted = PAINTED.lock().unwrap_or_else(PoisonError::into_inner);
        let frame = frame(*painted, picture);
        // A terminal that has gone away takes nothing with it.
        if io::stderr().lock().write_all(frame.as_bytes()).is_ok() {
            *painted = picture.lines().count();
        }
    }

    /// The picture stays; what comes next is printed below it.
    pub fn leave() {
        *PAINTED.lock().unwrap_or_else(PoisonError::into_inner) = 0;
    }
}

/// Up to the picture's first line, clear, and the new one without wrapping: a long line is cut, so that lines can be
/// counted.
fn frame(painted: usize, picture: &str) -> String {
    format!("{}\x1b[?7l{picture}\x1b[?7h", clear(painted))
}

fn clear(painted: usize) -> String {
    if painted == 0 { String::new() } else { format!("\x1b[{painted}A\r\x1b[J") }
}

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut painted = PAINTED.lock().unwrap_or_else(PoisonError::into_inner);
        let mut stderr = io::stderr().lock();
        if *painted > 0 {
            stderr.write_all(clear(*painted).as_bytes())?;
            *painted = 0;
        }
        stderr.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl<'a> MakeWriter<'a> for Screen {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        Self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_replaces_the_one_before() {
        assert_eq!(frame(0, "a\nb\n"), "\x1b[?7la\nb\n\x1b[?7h");
        assert_eq!(frame(2, "c\n"), "\x1b[2A\r\x1b[J\x1b[?7lc\n\x1b[?7h");
    }
}
