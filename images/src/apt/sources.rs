//! Derives a source for the backports suite from where the machine already gets Debian, so
//! that a mirror or a proxy which an administrator chose is kept. Reads apt's two formats
//! (deb822 `.sources` and one-line `.list`); writes deb822.

use std::fs;
use std::path::Path;

use crate::Error;

/// One place to get packages from.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    uris: String,
    suites: Vec<String>,
    components: Vec<String>,
    signed_by: Option<String>,
    enabled: bool,
}

/// Text of a new sources file for `wanted`, or `None` when apt has that suite already.
///
/// # Errors
/// When no enabled source offers `base` with component main.
pub(super) fn derive(etc: &Path, base: &str, wanted: &str) -> Result<Option<String>, Error> {
    let sources = read(etc)?;
    let offers = |suite: &str| {
        sources.iter().find(|source| {
            source.enabled
                && source.suites.iter().any(|offered| offered == suite)
                && source.components.iter().any(|component| component == "main")
        })
    };
    if offers(wanted).is_some() {
        return Ok(None);
    }
    let source = offers(base).ok_or_else(|| Error::NoAptSource { suite: base.to_owned() })?;
    let mut text =
        format!("Types: deb\nURIs: {}\nSuites: {wanted}\nComponents: main\n", source.uris);
    if let Some(keyring) = &source.signed_by {
        text.push_str(&format!("Signed-By: {keyring}\n"));
    }
    Ok(Some(text))
}

fn read(etc: &Path) -> Result<Vec<Source>, Error> {
    let mut sources = Vec::new();
    let mut files = vec![etc.join("sources.list")];
    let folder = etc.join("sources.list.d");
    if folder.exists() {
        for entry in fs::read_dir(&folder).map_err(Error::io("list", &folder))? {
            files.push(entry.map_err(Error::io("list", &folder))?.path());
        }
    }
    files.sort();
    for file in files.iter().filter(|file| file.exists()) {
        let text = || fs::read_to_string(file).map_err(Error::io("read", file));
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("sources") => sources.extend(deb822(&text()?)),
            Some("list") => sources.extend(text()?.lines().filter_map(one_line)),
            _ => {}
        }
    }
    Ok(sources)
}

fn deb822(text: &str) -> Vec<Source> {
    let without_comments: Vec<&str> =
        text.lines().filter(|line| !line.starts_with('#')).map(str::trim_end).collect();
    without_comments
        .split(|line| line.is_empty())
        .filter_map(|stanza| {
            let field = |name: &str| {
                stanza.iter().find_map(|line| {
                    let (key, value) = line.split_once(':')?;
                    key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
                })
            };
            let words = |name: &str| -> Vec<String> {
                field(name).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
            };
            if !words("Types").iter().any(|kind| kind == "deb") {
                return None;
            }
            Some(Source {
                uris: field("URIs")?,
                suites: words("Suites"),
                components: words("Components"),
                signed_by: field("Signed-By").filter(|keyring| keyring.starts_with('/')),
                enabled: !field("Enabled").is_some_and(|value| value.eq_ignore_ascii_case("no")),
            })
        })
        .collect()
}

fn one_line(line: &str) -> Option<Source> {
    let rest = line.trim().strip_prefix("deb ")?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(inner) => inner.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split_whitespace().map(str::to_owned);
    let uris = words.next()?;
    let suites = vec![words.next()?];
    let signed_by = options
        .split_whitespace()
        .find_map(|option| option.strip_prefix("signed-by="))
        .map(str::to_owned);
    Some(Source { uris, suites, components: words.collect(), signed_by, enabled: true })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEB822: &str = "Types: deb\n# a comment\nURIs: http://mirror.example/debian\n\
        Suites: bookworm bookworm-updates\nComponents: main\nSigned-By: /usr/share/k.gpg\n";

    fn etc(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("sources.list.d")).unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    #[test]
    fn derives_from_deb822() {
        let etc = etc(&[("sources.list.d/debian.sources", DEB822)]);
        let text = derive(etc.path(), "bookworm", "bookworm-backports").unwrap().unwrap();
        assert_eq!(
            text,
            "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm-backports\n\
             Components: main\nSigned-By: /usr/share/k.gpg\n"
        );
    }

    #[test]
    fn derives_from_one_line_format() {
        let line = "# x\ndeb [arch=amd64 signed-by=/k.gpg] http://m.example/debian bookworm main\n";
        let etc = etc(&[("sources.list", line)]);
        let text = derive(etc.path(), "bookworm", "bookworm-backports").unwrap().unwrap();
        assert!(text.contains("URIs: http://m.example/debian\n"));
        assert!(text.contains("Signed-By: /k.gpg\n"));
    }

    #[test]
    fn does_nothing_when_the_suite_is_there() {
        let more = "Types: deb\nURIs: http://m.example/debian\nSuites: bookworm-backports\n\
                    Components: main contrib\n";
        let etc = etc(&[("sources.list.d/a.sources", DEB822), ("sources.list.d/b.sources", more)]);
        assert_eq!(derive(etc.path(), "bookworm", "bookworm-backports").unwrap(), None);
    }

    #[test]
    fn a_disabled_or_foreign_source_does_not_count() {
        let off = format!("{DEB822}Enabled: no\n");
        let etc = etc(&[
            ("sources.list.d/a.sources", &off),
            ("sources.list.d/other.list", "deb http://x.example/ stable main\n"),
            ("sources.list.d/b.sources.disabled", DEB822),
        ]);
        assert!(derive(etc.path(), "bookworm", "bookworm-backports").is_err());
    }
}
