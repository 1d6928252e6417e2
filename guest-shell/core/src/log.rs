//! Log lines put together without an allocator and without `core::fmt` (which would bring its
//! panic paths into the guest's kernel).

use crate::os::{LogLevel, Os};

const CAPACITY: usize = 160;

/// One line of log; what does not fit is cut off.
pub struct LogLine {
    bytes: [u8; CAPACITY],
    length: usize,
}

impl LogLine {
    /// A line that begins with `text`.
    pub fn new(text: &str) -> Self {
        Self { bytes: [0; CAPACITY], length: 0 }.text(text)
    }

    /// Appends `text`, as far as it fits in whole characters.
    #[must_use]
    pub fn text(mut self, text: &str) -> Self {
        for character in text.chars() {
            let mut buffer = [0; 4];
            let encoded = character.encode_utf8(&mut buffer).as_bytes();
            let end = self.length.saturating_add(encoded.len());
            match self.bytes.get_mut(self.length..end) {
                Some(place) => {
                    for (to, from) in place.iter_mut().zip(encoded) {
                        *to = *from;
                    }
                    self.length = end;
                }
                None => break,
            }
        }
        self
    }

    /// Appends a number in decimal.
    #[must_use]
    pub fn number(self, value: u64) -> Self {
        let mut digits = [0u8; 20];
        let mut rest = value;
        let mut used = 0;
        for digit in digits.iter_mut().rev() {
            *digit = b'0' | (rest % 10) as u8;
            rest /= 10;
            used += 1;
            if rest == 0 {
                break;
            }
        }
        let begin = digits.len().saturating_sub(used);
        match digits.get(begin..).map(core::str::from_utf8) {
            Some(Ok(text)) => self.text(text),
            _ => self,
        }
    }

    /// The line.
    pub fn as_str(&self) -> &str {
        let bytes = self.bytes.get(..self.length).unwrap_or(&[]);
        core::str::from_utf8(bytes).unwrap_or("")
    }

    /// Writes the line.
    pub fn write(&self, os: &impl Os, level: LogLevel) {
        os.log(level, self.as_str());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn puts_text_and_numbers_together() {
        assert_eq!(LogLine::new("a ").number(0).text(" b ").number(u64::MAX).as_str(), {
            "a 0 b 18446744073709551615"
        });
    }

    #[test]
    fn cuts_at_a_character() {
        let long = LogLine::new("x").text(&"é".repeat(200));
        assert_eq!(long.as_str().len(), 159);
    }
}
