//! Content keys: an output is up to date when the key stored beside it equals the key of its
//! inputs. Outputs appear by rename, so a reader never sees half a file and one that has the
//! old file open keeps it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::Error;

/// Collects what an output is made of.
pub(crate) struct Key {
    hash: Sha256,
}

impl Key {
    /// A key for outputs of one kind; `recipe` changes when the way of making it does.
    pub(crate) fn new(recipe: &str) -> Self {
        let mut key = Self { hash: Sha256::new() };
        key.text(recipe);
        key
    }

    /// Adds text.
    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        self.hash.update((text.len() as u64).to_le_bytes());
        self.hash.update(text.as_bytes());
        self
    }

    /// Adds a file's content.
    pub(crate) fn content(&mut self, path: &Path) -> Result<&mut Self, Error> {
        let bytes = fs::read(path).map_err(Error::io("read", path))?;
        self.hash.update((bytes.len() as u64).to_le_bytes());
        self.hash.update(&bytes);
        Ok(self)
    }

    /// Adds a system file by name, size and time: cheap, and good enough for files that only
    /// a package manager replaces.
    pub(crate) fn stamp(&mut self, path: &Path) -> Result<&mut Self, Error> {
        let meta = fs::metadata(path).map_err(Error::io("look at", path))?;
        let stamp = format!("{} {} {}", path.display(), meta.size(), meta.mtime());
        Ok(self.text(&stamp))
    }

    /// Adds every file below a folder, names and contents, without `target` and dot-folders.
    pub(crate) fn sources(&mut self, folder: &Path) -> Result<&mut Self, Error> {
        for file in files(folder)? {
            let name = file.strip_prefix(folder).unwrap_or(&file).to_string_lossy().into_owned();
            if name.split('/').any(|part| part == "target" || part.starts_with('.')) {
                continue;
            }
            self.text(&name);
            self.content(&file)?;
        }
        Ok(self)
    }

    /// The key as text.
    pub(crate) fn finish(&self) -> String {
        self.hash.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Every file below `folder`, sorted.
pub(crate) fn files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(Error::io("list", &folder))? {
            let entry = entry.map_err(Error::io("list", &folder))?;
            let kind = entry.file_type().map_err(Error::io("look at", &folder))?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

fn key_file(output: &Path) -> PathBuf {
    let mut name = output.as_os_str().to_owned();
    name.push(".key");
    PathBuf::from(name)
}

/// Whether `output` exists and was made from inputs with this key.
pub(crate) fn is_current(output: &Path, key: &str) -> bool {
    output.exists() && fs::read_to_string(key_file(output)).is_ok_and(|stored| stored == key)
}

/// Moves a finished file or folder into place and stores its key.
pub(crate) fn commit(made: &Path, output: &Path, key: &str) -> Result<(), Error> {
    let keys = key_file(output);
    // Without its key an interrupted replacement counts as stale.
    let _ = fs::remove_file(&keys);
    if output.is_dir() {
        fs::remove_dir_all(output).map_err(Error::io("remove", output))?;
    }
    if let Some(parent) = output.parent() {
        fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
    }
    fs::rename(made, output).map_err(Error::io("create", output))?;
    fs::write(&keys, key).map_err(Error::io("write", &keys))
}

/// A fresh, empty folder below `scratch`, unique to this process and `name`.
pub(crate) fn scratch(scratch: &Path, name: &str) -> Result<PathBuf, Error> {
    let folder = scratch.join(format!("{name}-{}", std::process::id()));
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(Error::io("remove", &folder))?;
    }
    fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_depends_on_names_contents_and_recipe() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), "1").unwrap();
        let key = |recipe| Key::new(recipe).sources(folder.path()).unwrap().finish();
        let first = key("r1");
        assert_eq!(first, key("r1"));
        assert_ne!(first, key("r2"));
        fs::write(folder.path().join("a"), "2").unwrap();
        let second = key("r1");
        assert_ne!(first, second);
        fs::rename(folder.path().join("a"), folder.path().join("b")).unwrap();
        assert_ne!(second, key("r1"));
    }

    #[test]
    fn build_folders_do_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let key = || Key::new("r").sources(folder.path()).unwrap().finish();
        let before = key();
        fs::create_dir(folder.path().join("target")).unwrap();
        fs::write(folder.path().join("target/x"), "x").unwrap();
        assert_eq!(before, key());
    }

    #[test]
    fn an_output_is_current_only_with_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let made = folder.path().join("made");
        let output = folder.path().join("out/file");
        fs::write(&made, "x").unwrap();
        commit(&made, &output, "k").unwrap();
        assert!(is_current(&output, "k"));
        assert!(!is_current(&output, "other"));
        fs::remove_file(&output).unwrap();
        assert!(!is_current(&output, "k"));
    }
}
