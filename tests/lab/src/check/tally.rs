//! Counts of passed, failed and skipped tests, and how runners' output is counted.

use std::fmt;

/// What a test prints on standard error, followed by `NAME: REASON`, when this machine lacks what
/// it needs. The runner counts it as passed; here it counts as skipped.
const SKIP: &str = "npa-skip: ";

/// Numbers of tests by result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Those that held.
    pub(crate) passed: u32,
    /// Those that did not.
    pub(crate) failed: u32,
    /// Those that could not be tried.
    pub(crate) skipped: u32,
    /// Why they were not.
    pub(crate) skip_reasons: Vec<String>,
}

impl Tally {
    /// One test with this result.
    pub(crate) fn one(passed: bool) -> Self {
        Self { passed: u32::from(passed), failed: u32::from(!passed), ..Self::default() }
    }

    /// One failed test.
    pub(crate) fn failure() -> Self {
        Self::one(false)
    }

    /// One skipped test.
    pub(crate) fn skip(reason: impl Into<String>) -> Self {
        Self { skipped: 1, skip_reasons: vec![reason.into()], ..Self::default() }
    }

    /// Adds another's numbers.
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.skip_reasons.extend(other.skip_reasons);
    }

    /// Whether nothing failed.
    pub(crate) fn is_good(&self) -> bool {
        self.failed == 0
    }

    /// The numbers, in words that no one takes for a test runner's closing line.
    pub(crate) fn brief(&self) -> String {
        format!("ok {}, bad {}, left out {}", self.passed, self.failed, self.skipped)
    }

    /// Counts what a test runner (libtest or nextest) printed. A runner that failed without a
    /// failed test (it did not compile, say) counts as one failure.
    pub(crate) fn of_runner(output: &str, succeeded: bool) -> Self {
        let mut tally = Self::default();
        let lines = || output.lines().map(str::trim);
        // Nextest runs each test in a libtest of its own, and shows what that prints.
        let of_nextest = lines().any(|line| nextest(line).is_some());
        for line in lines() {
            let counts = if of_nextest { nextest(line) } else { libtest(line) };
            tally.add(counts.unwrap_or_default());
            if let Some(reason) = line.strip_prefix(SKIP) {
                tally.skip_reasons.push(reason.to_owned());
            }
        }
        // A runner may show a test's output twice.
        tally.skip_reasons.sort();
        tally.skip_reasons.dedup();
        let skipped_by_themselves = u32::try_from(tally.skip_reasons.len()).unwrap_or(u32::MAX);
        tally.passed = tally.passed.saturating_sub(skipped_by_themselves);
        tally.skipped += skipped_by_themselves;
        if !succeeded && tally.failed == 0 {
            tally.failed = 1;
        }
        tally
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// `test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; ...`
fn libtest(line: &str) -> Option<Tally> {
    let rest = line.strip_prefix("test result: ")?.split_once(". ")?.1;
    let count =
        |what: &str| rest.split("; ").find_map(|part| part.strip_suffix(what)?.trim().parse().ok());
    Some(Tally {
        passed: count("passed")?,
        failed: count("failed")?,
        skipped: count("ignored")?,
        skip_reasons: Vec::new(),
    })
}

/// `Summary [   0.1s] 5 tests run: 4 passed (1 slow), 1 failed, 2 timed out, 3 skipped`
fn nextest(line: &str) -> Option<Tally> {
    let rest = line.strip_prefix("Summary [")?.split_once("run: ")?.1;
    let mut tally = Tally::default();
    for part in rest.split(", ") {
        let mut words = part.split_whitespace();
        let number: u32 = words.next()?.parse().ok()?;
        match words.next()? {
            "passed" => tally.passed += number,
            "skipped" => tally.skipped += number,
            // failed, timed out, exec failed
            _ => tally.failed += number,
        }
    }
    Some(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(tally: &Tally) -> [u32; 3] {
        [tally.passed, tally.failed, tally.skipped]
    }

    #[test]
    fn libtest_and_nextest_lines_are_counted() {
        let output = "test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; \
                      finished in 0.01s\n\
                      test result: FAILED. 2 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out\n";
        assert_eq!(counts(&Tally::of_runner(output, false)), [7, 3, 1]);
        let output = "     Summary [   0.123s] 10/12 tests run: 7 passed (1 slow), 2 failed, 1 timed out, 4 skipped\n";
        assert_eq!(counts(&Tally::of_runner(output, false)), [7, 3, 4]);
        let output = "  test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out\n\
                      Summary [ 0.1s] 1 test run: 1 passed, 0 skipped\n";
        assert_eq!(counts(&Tally::of_runner(output, true)), [1, 0, 0]);
    }

    #[test]
    fn a_test_that_says_so_is_skipped_not_passed() {
        let output = "    npa-skip: exits: no /dev/kvm\n    npa-skip: exits: no /dev/kvm\n\
                      Summary [ 1s] 3 tests run: 3 passed, 0 skipped\n";
        let tally = Tally::of_runner(output, true);
        assert_eq!(counts(&tally), [2, 0, 1]);
        assert_eq!(tally.skip_reasons, ["exits: no /dev/kvm"]);
    }

    #[test]
    fn a_runner_that_fails_silently_is_a_failure() {
        assert_eq!(counts(&Tally::of_runner("error: could not compile", false)), [0, 1, 0]);
        assert_eq!(counts(&Tally::of_runner("", true)), [0, 0, 0]);
    }

    #[test]
    fn the_last_line_is_what_machines_read() {
        let mut tally = Tally::one(true);
        tally.add(Tally::skip("no nightly"));
        assert_eq!(tally.to_string(), "1 passed, 0 failed, 1 skipped");
        assert!(tally.is_good());
    }
}
