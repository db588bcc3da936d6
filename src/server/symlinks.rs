//! The way from a file's name to the file, through symlinks: where something must happen for the file to be another.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

/// Symlinks followed on one way, as the system does.
const LINKS_MAX: usize = 40;

/// Every symlink on the way to `file`, and the file itself; where the way ends because something is missing, that. What is
/// missing is waited for in the directory where it would be.
pub(super) fn links_on_the_way(file: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut links = 0;
    let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let mut rest: Vec<OsString> = parts(&file);
    let mut at = PathBuf::from("/");
    while let Some(part) = rest.pop() {
        if part == ".." {
            at.pop();
            continue;
        }
        let here = at.join(&part);
        match here.symlink_metadata() {
            Err(_) => {
                found.insert(here);
                return found;
            }
            Ok(metadata) if metadata.is_symlink() => {
                found.insert(here.clone());
                links += 1;
                let Some(leads) = here.read_link().ok().filter(|_| links <= LINKS_MAX) else { return found };
                if leads.is_absolute() {
                    at = PathBuf::from("/");
                }
                rest.extend(parts(&leads));
            }
            Ok(_) => at = here,
        }
    }
    found.insert(at);
    found
}

/// The names on a path, the last one first.
fn parts(path: &Path) -> Vec<OsString> {
    let named = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
    });
    let mut parts: Vec<OsString> = named.collect();
    parts.reverse();
    parts
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn each_link_is_on_the_way_and_so_is_what_is_missing() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        let file = root.join("config.toml");
        fs::write(&file, "").unwrap();
        assert_eq!(links_on_the_way(&file), BTreeSet::from([file.clone()]));

        fs::create_dir(root.join("one")).unwrap();
        fs::write(root.join("one/real.toml"), "").unwrap();
        symlink("one", root.join("current")).unwrap();
        let link = root.join("link.toml");
        symlink("current/../current/real.toml", &link).unwrap();
        let all = [link.clone(), root.join("current"), root.join("one/real.toml")];
        assert_eq!(links_on_the_way(&link), BTreeSet::from(all.clone()));

        fs::remove_dir_all(root.join("one")).unwrap();
        let dangling = [link.clone(), root.join("current"), root.join("one")];
        assert_eq!(links_on_the_way(&link), BTreeSet::from(dangling));
    }

    #[test]
    fn links_in_a_circle_end() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        symlink("b", root.join("a")).unwrap();
        symlink("a", root.join("b")).unwrap();
        assert_eq!(links_on_the_way(&root.join("a")), BTreeSet::from([root.join("a"), root.join("b")]));
    }
}
