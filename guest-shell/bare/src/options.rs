//! The guest's command line.

/// What the guest is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// Where frames are sent.
    pub(crate) peer: [u8; 6],
    /// Frames per second, at least 1.
    pub(crate) rate: u64,
    /// Frames to send in all; 0 for no end.
    pub(crate) frames: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { peer: [0xff; 6], rate: 1000, frames: 0 }
    }
}

impl Options {
    /// Reads a command line; what is not understood is left at its default.
    pub(crate) fn parse(text: &str) -> Self {
        let mut options = Self::default();
        for word in text.split_ascii_whitespace() {
            match word.split_once('=') {
                Some(("peer", value)) => {
                    if let Some(mac) = parse_mac(value) {
                        options.peer = mac;
                    }
                }
                Some(("rate", value)) => {
                    options.rate = value.parse().ok().filter(|rate| *rate > 0).unwrap_or(1000);
                }
                Some(("frames", value)) => options.frames = value.parse().unwrap_or(0),
                _ => {}
            }
        }
        options
    }
}

fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_all_options() {
        let options = Options::parse("console=ttyS0 peer=02:00:00:0a:0b:0c rate=50 frames=7");
        assert_eq!(options.peer, [2, 0, 0, 10, 11, 12]);
        assert_eq!((options.rate, options.frames), (50, 7));
    }

    #[test]
    fn nonsense_is_the_default() {
        for text in ["", "peer=zz rate=0 frames=x", "peer=02:00 rate", "peer=1:2:3:4:5:6:7"] {
            assert_eq!(Options::parse(text), Options::default(), "{text}");
        }
    }
}
