//! A client of QEMU's machine protocol: commands, and events with the times at which QEMU says they
//! happened.

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long QEMU may take to answer a command.
const LIMIT: Duration = Duration::from_secs(20);

/// A connection whose events are switched on.
pub(super) struct Qmp {
    stream: BufReader<UnixStream>,
    /// Begun and not yet whole.
    line: String,
    events: Vec<Value>,
}

impl Qmp {
    /// Connects to QEMU's socket as soon as it is there.
    pub(super) fn connect(socket: &Path) -> Result<Self> {
        let deadline = Instant::now() + LIMIT;
        let stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(error) if Instant::now() > deadline => {
                    return Err(error).context(format!("no QEMU at {}", socket.display()));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        let mut qmp =
            Self { stream: BufReader::new(stream), line: String::new(), events: Vec::new() };
        qmp.run("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Runs a command and returns what QEMU answers.
    pub(super) fn run(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        let mut text = json!({ "execute": command, "arguments": arguments }).to_string();
        text.push('\n');
        self.stream.get_mut().write_all(text.as_bytes())?;
        let deadline = Instant::now() + LIMIT;
        loop {
            let message = self
                .message(deadline)?
                .with_context(|| format!("QEMU does not answer to {command}"))?;
            if let Some(error) = message.get("error") {
                bail!("QEMU refuses {command}: {error}");
            }
            if let Some(answer) = message.get("return") {
                return Ok(answer.clone());
            }
        }
    }

    /// Waits for an event and returns when it happened, in seconds since 1970.
    pub(super) fn wait_for(&mut self, event: &str, limit: Duration) -> Result<f64> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(at) = self.events.iter().position(|seen| seen["event"] == event) {
                let stamp = &self.events.remove(at)["timestamp"];
                let part = |name: &str| stamp[name].as_f64().context("an event without a time");
                return Ok(part("seconds")? + part("microseconds")? / 1e6);
            }
            ensure!(
                self.message(deadline)?.is_some(),
                "QEMU did not say {event} within {} s",
                limit.as_secs()
            );
        }
    }

    /// The next message, unless it is an event, which is kept and answered as null; `None` at the
    /// deadline.
    fn message(&mut self, deadline: Instant) -> Result<Option<Value>> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.stream.get_ref().set_read_timeout(Some(left))?;
            match self.stream.read_line(&mut self.line) {
                Ok(0) => bail!("QEMU has closed its control socket"),
                Ok(_) if self.line.ends_with('\n') => break,
                Ok(_) => {}
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(error).context("QEMU's control socket"),
            }
        }
        let message: Value = serde_json::from_str(&std::mem::take(&mut self.line))?;
        if message.get("event").is_some() {
            self.events.push(message);
            return Ok(Some(Value::Null));
        }
        Ok(Some(message))
    }
}
