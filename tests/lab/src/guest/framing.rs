//! The lines that a guest's console carries (images: `guest-console.sh` is the other side).
//! The kernel may print in between, even into a line of ours: what arrives is used only when
//! its checksum is right, and is asked for again otherwise.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

/// Starts every line of ours.
const MARKER: &str = "@npa ";

/// A line from the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    /// The console program has started.
    Ready,
    /// Answer to a ping with this nonce.
    Pong(String),
    /// The command with this number was received whole.
    Ack(u64),
    /// The command with this number was damaged on its way.
    Nak(u64),
    /// A piece of standard output (`false`) or standard error (`true`).
    Piece { id: u64, error: bool, number: usize, text: String },
    /// The command ended.
    End { id: u64, status: u8, sums: [String; 2] },
}

/// Reads one line; anything that is not whole is nothing.
pub(super) fn parse(line: &str) -> Option<Reply> {
    let at = line.rfind(MARKER)?;
    let mut words = line[at + MARKER.len()..].split_whitespace();
    let verb = words.next()?;
    let mut number = || words.next()?.parse::<u64>().ok();
    match verb {
        "ready" => Some(Reply::Ready),
        "ack" => Some(Reply::Ack(number()?)),
        "nak" => Some(Reply::Nak(number()?)),
        "pong" => Some(Reply::Pong(words.next()?.to_owned())),
        "out" | "err" => Some(Reply::Piece {
            id: number()?,
            number: usize::try_from(number()?).ok()?,
            text: words.next()?.to_owned(),
            error: verb == "err",
        }),
        "end" => Some(Reply::End {
            id: number()?,
            status: u8::try_from(number()?).ok()?,
            sums: [words.next()?.to_owned(), words.next()?.to_owned()],
        }),
        _ => None,
    }
}

/// A ping, as bytes to send. Starts on a new line whatever was sent before.
pub(super) fn ping(nonce: &str) -> String {
    format!("\n{MARKER}ping {nonce}\n")
}

/// A command, as bytes to send.
pub(super) fn request(id: u64, seconds: u64, command: &str) -> String {
    let text = encode(command.as_bytes());
    format!("\n{MARKER}run {id} {seconds} {} {text}\n", sum(text.as_bytes()))
}

/// Puts the pieces of one command's output together.
#[derive(Debug, Default)]
pub(super) struct Collector {
    pieces: [BTreeMap<usize, String>; 2],
}

impl Collector {
    /// Adds a piece.
    pub(super) fn add(&mut self, error: bool, number: usize, text: String) {
        self.pieces[usize::from(error)].insert(number, text);
    }

    /// Standard output and standard error, if nothing is missing or damaged.
    pub(super) fn finish(&self, sums: &[String; 2]) -> Option<[Vec<u8>; 2]> {
        let stream = |which: usize| {
            let pieces = &self.pieces[which];
            let whole = pieces.keys().copied().eq(1..=pieces.len());
            // The guest's sum covers its base64 lines with their ends.
            let lines: String = pieces.values().map(|text| format!("{text}\n")).collect();
            if !whole || sum(lines.as_bytes()) != sums[which] {
                return None;
            }
            decode(&pieces.values().map(String::as_str).collect::<String>())
        };
        Some([stream(0)?, stream(1)?])
    }
}

/// The first 16 hexadecimal digits of SHA-256: against damage, not against attack.
fn sum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Base64 (RFC 4648, section 4) with padding, in one line.
fn encode(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut group = [0; 3];
        group[..chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes([0, group[0], group[1], group[2]]);
        for place in 0..4 {
            if place <= chunk.len() {
                let index = bits >> (18 - 6 * place) & 63;
                text.push(char::from(ALPHABET[index as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

/// Decodes base64; `None` when it is none.
fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);
    for character in text.trim_end_matches('=').bytes() {
        let value = ALPHABET.iter().position(|known| *known == character)?;
        bits = bits << 6 | u32::try_from(value).ok()?;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 0xff) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_agrees_with_the_rfc() {
        // RFC 4648, section 10.
        for (plain, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(encode(plain.as_bytes()), text);
            assert_eq!(decode(text).as_deref(), Some(plain.as_bytes()));
        }
        assert_eq!(decode("a b"), None);
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decode(&encode(&all)), Some(all));
    }

    #[test]
    fn a_reply_is_found_behind_kernel_messages_and_line_ends() {
        assert_eq!(parse("[  1.0] virtio@npa pong 7 6.12.0\r"), Some(Reply::Pong("7".into())));
        assert_eq!(
            parse("@npa end 3 255 a b"),
            Some(Reply::End { id: 3, status: 255, sums: ["a".into(), "b".into()] })
        );
        assert_eq!(
            parse("@npa err 3 1 Zm9v"),
            Some(Reply::Piece { id: 3, error: true, number: 1, text: "Zm9v".into() })
        );
    }

    #[test]
    fn half_a_reply_is_none() {
        for line in
            ["", "@npa", "@npa end 3 1", "@npa end x 0 a b", "@npa ack", "npa ack 1", "@npa out 1"]
        {
            assert_eq!(parse(line), None, "{line}");
        }
    }

    fn pieces(text: &str) -> (Vec<String>, String) {
        let lines: Vec<String> = encode(text.as_bytes())
            .as_bytes()
            .chunks(76)
            .map(|line| String::from_utf8_lossy(line).into_owned())
            .collect();
        let check =
            sum(lines.iter().map(|line| format!("{line}\n")).collect::<String>().as_bytes());
        (lines, check)
    }

    #[test]
    fn output_is_whole_or_nothing() {
        let text = "some output\n".repeat(40);
        let (lines, check) = pieces(&text);
        let empty = sum(b"");
        let mut collector = Collector::default();
        for (index, line) in lines.iter().enumerate().skip(1) {
            collector.add(false, index + 1, line.clone());
        }
        assert_eq!(collector.finish(&[check.clone(), empty.clone()]), None);
        collector.add(false, 1, "damaged".into());
        assert_eq!(collector.finish(&[check.clone(), empty.clone()]), None);
        collector.add(false, 1, lines[0].clone());
        assert_eq!(
            collector.finish(&[check.clone(), empty.clone()]),
            Some([text.into_bytes(), Vec::new()])
        );
    }

    #[test]
    fn a_request_carries_its_own_checksum() {
        let line = request(5, 10, "echo hello");
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[..4], ["@npa", "run", "5", "10"]);
        assert_eq!(words[4], sum(words[5].as_bytes()));
        // From sha256sum(1).
        assert_eq!(sum(b"abc"), "ba7816bf8f01cfea");
        assert_eq!(decode(words[5]).as_deref(), Some(b"echo hello".as_slice()));
    }
}
