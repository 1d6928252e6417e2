//! Runs commands in a guest over its serial console.

mod console;
mod framing;

pub(crate) use console::Console;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

/// Options of `lab guest-exec`.
#[derive(Debug, clap::Args)]
pub(crate) struct GuestExecArguments {
    /// The Unix socket of the guest's serial console
    socket: PathBuf,
    /// Longest time for the command, in seconds (waiting for the guest's start not counted)
    #[arg(long, default_value_t = 120)]
    timeout: u64,
    /// Longest wait for the guest to come up, in seconds
    #[arg(long, default_value_t = 120)]
    boot_timeout: u64,
    /// The command: one word is a line for the guest's shell, several are program and arguments
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// Runs one command, prints what it printed and returns its status.
pub(crate) fn run(arguments: &GuestExecArguments) -> Result<ExitCode> {
    let mut console =
        Console::open(&arguments.socket, Duration::from_secs(arguments.boot_timeout))?;
    let line = command_line(&arguments.command);
    let answer = console.run(&line, Duration::from_secs(arguments.timeout))?;
    std::io::stdout().write_all(&answer.stdout)?;
    std::io::stderr().write_all(&answer.stderr)?;
    Ok(ExitCode::from(answer.status))
}

/// One word is a shell's line as it is; several are kept apart by quotes.
pub(crate) fn command_line(words: &[String]) -> String {
    match words {
        [line] => line.clone(),
        _ => words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" "),
    }
}

fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_words_stay_apart_and_one_is_a_line() {
        let words =
            |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert_eq!(command_line(&words(&["ls | wc -l"])), "ls | wc -l");
        assert_eq!(command_line(&words(&["echo", "a b", "it's"])), r"'echo' 'a b' 'it'\''s'");
    }
}
