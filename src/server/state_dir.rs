//! The state directory: what outlives this process lies there, for this user alone.
//!
//! The directory is made with mode 0700 and its files with 0600. A file that another user put there is not believed: the owner of
//! each is looked at before it is read.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::process::geteuid;

/// Other users may do nothing.
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// Reads a file of at most `limit` bytes.
///
/// # Errors
/// There is none, it is longer, it is no plain file, or another user's.
pub(super) fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(io::Error::other("it is no plain file"));
    }
    let file = File::open(path)?;
    ours(&file.metadata()?)?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::other("the file is too large"));
    }
    Ok(bytes)
}

/// Writes a file of the directory whole or not at all: a crash leaves the last one.
///
/// # Errors
/// The directory cannot be made or written to.
pub(super) fn write(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    create(directory)?;
    let new = directory.join(format!("{name}.new"));
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Never through a link or a file that somebody else put there meanwhile.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, directory.join(name))
}

/// Makes the directory where it is missing. One that is there stays as it is: it may be shared on purpose.
///
/// # Errors
/// It cannot be made.
pub(super) fn create(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory)
}

/// A directory inside the state directory that no other user can enter, made where it is missing.
///
/// # Errors
/// It cannot be made, or what stands there is another user's, a link, or open to others.
pub(super) fn private_directory(state_dir: &Path, name: &str) -> io::Result<PathBuf> {
    create(state_dir)?;
    let path = state_dir.join(name);
    match DirBuilder::new().mode(DIRECTORY_MODE).create(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    // Not through a link: whoever may write to the state directory could point it elsewhere.
    let found = fs::symlink_metadata(&path)?;
    if !found.is_dir() {
        return Err(io::Error::other("it is no directory: remove it"));
    }
    ours(&found)?;
    if found.mode() & 0o077 != 0 {
        return Err(io::Error::other(format!("others may enter it (mode {:o}): chmod 700", found.mode() & 0o777)));
    }
    Ok(path)
}

/// What is wrong with a state directory that other users can write to: they can remove what is kept there.
pub(super) fn complaint(directory: &Path) -> Option<String> {
    let found = fs::metadata(directory).ok()?;
    let (mode, owner) = (found.mode() & 0o7777, found.uid());
    let ours = owner == geteuid().as_raw() || owner == 0;
    if !ours {
        return Some(format!("it belongs to user {owner}, and not to the one who runs this: chown it"));
    }
    (mode & 0o022 != 0).then(|| format!("other users may write to it (mode {mode:o}): chmod 700"))
}

/// Whether a file is this user's own, or root's.
fn ours(found: &fs::Metadata) -> io::Result<()> {
    let owner = found.uid();
    if owner == geteuid().as_raw() || owner == 0 {
        return Ok(());
    }
    Err(io::Error::other(format!("it belongs to user {owner}, and not to the one who runs this")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn directory_and_files_are_for_this_user_alone() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("a/b");
        write(&directory, "state.json", b"{}").unwrap();
        assert_eq!(mode(&directory), 0o700);
        assert_eq!(mode(&directory.join("state.json")), 0o600);
        assert_eq!(read(&directory.join("state.json"), 2).unwrap(), b"{}");
        assert!(read(&directory.join("state.json"), 1).unwrap_err().to_string().contains("too large"));
        assert_eq!(complaint(&directory), None);
    }

    #[test]
    fn what_lies_in_the_way_is_never_written_through() {
        let directory = tempfile::tempdir().unwrap();
        let precious = directory.path().join("precious");
        fs::write(&precious, "keep").unwrap();
        symlink(&precious, directory.path().join("state.json.new")).unwrap();
        write(directory.path(), "state.json", b"new").unwrap();
        assert_eq!(fs::read_to_string(&precious).unwrap(), "keep");
        assert_eq!(mode(&directory.path().join("state.json")), 0o600);
        symlink(&precious, directory.path().join("linked")).unwrap();
        assert!(read(&directory.path().join("linked"), 100).unwrap_err().to_string().contains("no plain file"));
    }

    #[test]
    fn a_directory_open_to_others_is_refused_and_told() {
        let state = tempfile::tempdir().unwrap();
        let inside = private_directory(state.path(), "upgrade").unwrap();
        assert_eq!(mode(&inside), 0o700);
        private_directory(state.path(), "upgrade").unwrap();
        fs::set_permissions(&inside, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(private_directory(state.path(), "upgrade").unwrap_err().to_string().contains("chmod 700"));
        fs::remove_dir(&inside).unwrap();
        symlink("/", &inside).unwrap();
        assert!(private_directory(state.path(), "upgrade").unwrap_err().to_string().contains("no directory"));
        fs::set_permissions(state.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(complaint(state.path()).unwrap().contains("other users may write"));
    }
}
