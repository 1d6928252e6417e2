//! QEMU's machine protocol, as far as the lab needs it: the event that says why a machine
//! stopped. Sends nothing but the greeting that switches events on.

use serde::Deserialize;

use super::watchdog::Event;

/// What has to be sent once before QEMU reports anything.
pub(crate) const GREETING: &[u8] = b"{\"execute\":\"qmp_capabilities\"}\n";

#[derive(Deserialize)]
struct Message {
    event: Option<String>,
    #[serde(default)]
    data: Data,
}

#[derive(Deserialize, Default)]
struct Data {
    #[serde(default)]
    reason: String,
}

/// What a line of QEMU's means for the run, if anything.
pub(crate) fn parse(line: &str) -> Option<Event> {
    let message: Message = serde_json::from_str(line).ok()?;
    match (message.event.as_deref()?, message.data.reason.as_str()) {
        ("SHUTDOWN", "guest-reset") => Some(Event::Reset),
        ("SHUTDOWN", "guest-shutdown") => Some(Event::PowerOff),
        ("SHUTDOWN", reason) => Some(Event::EmulatorGone(format!("shut down: {reason}"))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_is_told_from_a_power_off() {
        let line = |reason: &str| {
            parse(&format!(
                "{{\"timestamp\":{{\"seconds\":1,\"microseconds\":2}},\"event\":\"SHUTDOWN\",\
                 \"data\":{{\"guest\":true,\"reason\":\"{reason}\"}}}}"
            ))
        };
        assert_eq!(line("guest-reset"), Some(Event::Reset));
        assert_eq!(line("guest-shutdown"), Some(Event::PowerOff));
        assert!(matches!(line("host-signal"), Some(Event::EmulatorGone(_))));
        assert_eq!(parse("{\"return\":{}}"), None);
        assert_eq!(parse("{\"event\":\"NIC_RX_FILTER_CHANGED\",\"data\":{}}"), None);
        assert_eq!(parse("no json"), None);
    }
}
