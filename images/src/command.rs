//! Runs a program to its end, keeps what it printed, and turns a failure into an [`Error`].

use std::ffi::OsStr;
use std::process::{Command, Output, Stdio};

use crate::Error;

/// Lines of a failed program's output that an error carries.
const TAIL: usize = 40;

/// Runs `command` and returns what it printed on standard output.
///
/// # Errors
/// When the program cannot be started or ends with a status other than 0.
pub(crate) fn stdout(command: &mut Command) -> Result<String, Error> {
    let output = finish(command)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs `command` and returns what it printed on both outputs, standard output first.
///
/// # Errors
/// As [`stdout`].
pub(crate) fn both(command: &mut Command) -> Result<String, Error> {
    let output = finish(command)?;
    Ok(text(&output))
}

/// Whether `command` can be started and ends with status 0.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn finish(command: &mut Command) -> Result<Output, Error> {
    let output = command.stdin(Stdio::null()).output().map_err(|source| Error::Start {
        program: command.get_program().to_string_lossy().into_owned(),
        source,
    })?;
    if output.status.success() {
        return Ok(output);
    }
    let printed = text(&output);
    let lines: Vec<&str> = printed.lines().collect();
    let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n");
    Err(Error::Command { command: line(command), status: output.status, output: tail })
}

fn text(output: &Output) -> String {
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    text
}

fn line(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_command_and_carries_its_output() {
        let error = stdout(Command::new("sh").args(["-c", "echo why >&2; exit 3"])).unwrap_err();
        let message = error.to_string();
        assert!(message.contains("sh -c") && message.contains("why"), "{message}");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = stdout(&mut Command::new("/nonexistent/program")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/program"));
    }
}
