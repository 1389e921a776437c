//! A copy of the installed server in a temporary folder, with an extension folder of its own: for versions of the
//! extension that were never installed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use xtask::cluster::{Cluster, Options, pg_bin, server_folder};

/// The version that is installed, and that every file of this repository is about.
pub const PRESENT: &str = env!("CARGO_PKG_VERSION");

/// The programs that a cluster runs.
const PROGRAMS: [&str; 2] = ["initdb", "postgres"];

/// The copy. Postgres finds its folders by where its program is, so that links to the others are enough.
pub struct ServerCopy {
    folder: TempDir,
    /// What the installation's folders have in common.
    root: PathBuf,
    extensions: PathBuf,
}

impl ServerCopy {
    /// A copy in which the extension has its present version, and the scripts of extension/sql that update to it.
    pub fn new() -> ServerCopy {
        let (bin, share, libraries) = (pg_bin(), asked("--sharedir"), asked("--pkglibdir"));
        let root = bin.ancestors().find(|root| share.starts_with(root) && libraries.starts_with(root));
        let root = root.expect("a common folder").to_path_buf();
        let folder = server_folder().expect("a temporary folder");
        let copy = ServerCopy { extensions: PathBuf::new(), folder, root };
        fs::create_dir_all(copy.place(&bin)).expect("a folder");
        for program in PROGRAMS {
            // Not a link, which Postgres would follow.
            fs::copy(bin.join(program), copy.place(&bin).join(program)).expect("a program is copied");
        }
        for library_folder in [asked("--libdir"), libraries] {
            copy.link_folder(&library_folder);
        }
        let extensions = copy.link_share(&share);
        let copy = ServerCopy { extensions, ..copy };
        for script in scripts("extension/sql") {
            let name = script.file_name().expect("a file").to_string_lossy().into_owned();
            copy.add(&name, &fs::read_to_string(&script).expect("an update script"));
        }
        copy
    }

    /// Where a folder of the installation is in the copy.
    fn place(&self, path: &Path) -> PathBuf {
        self.folder.path().join(path.strip_prefix(&self.root).expect("a folder of the installation"))
    }

    /// Links a folder, unless it is outside the installation, has copied programs in it, or is linked with one above.
    fn link_folder(&self, path: &Path) {
        if !path.starts_with(&self.root) || self.place(path).exists() {
            return;
        }
        fs::create_dir_all(self.place(path).parent().expect("a folder above")).expect("a folder");
        symlink(path, self.place(path)).expect("a link");
    }

    /// Links what is in the share folder, one by one, and all of its extension folder but other versions of ours.
    fn link_share(&self, share: &Path) -> PathBuf {
        let extensions = self.place(share).join("extension");
        fs::create_dir_all(&extensions).expect("a folder");
        for entry in files(share).into_iter().filter(|entry| !entry.ends_with("extension")) {
            symlink(&entry, self.place(&entry)).expect("a link");
        }
        let present = format!("stripe_credits--{PRESENT}.sql");
        for entry in files(&share.join("extension")) {
            let name = entry.file_name().expect("a file").to_string_lossy().into_owned();
            if !name.starts_with("stripe_credits--") || name == present {
                symlink(&entry, extensions.join(name)).expect("a link");
            }
        }
        extensions
    }

    /// The install script of the present version, as it was generated.
    pub fn install_script(&self) -> String {
        let path = self.extensions.join(format!("stripe_credits--{PRESENT}.sql"));
        fs::read_to_string(path).expect("the extension is installed")
    }

    /// Adds a script, such as `stripe_credits--0.2.0.sql`, in place of one that is there.
    pub fn add(&self, name: &str, script: &str) {
        let path = self.extensions.join(name);
        // Not through a link.
        let _ = fs::remove_file(&path);
        fs::write(path, script).expect("a script is written");
    }

    /// A cluster of the copy.
    pub fn start(&self) -> Cluster {
        let options = Options { pg_bin: self.place(&pg_bin()), ..Options::default() };
        Cluster::start(options).expect("the copy starts")
    }
}

impl Default for ServerCopy {
    fn default() -> ServerCopy {
        ServerCopy::new()
    }
}

/// The root of this repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests is a folder of the repository").to_path_buf()
}

/// The SQL scripts in a folder of this repository, sorted.
pub fn scripts(folder: &str) -> Vec<PathBuf> {
    let mut scripts = files(&repository().join(folder));
    scripts.retain(|path| path.extension().is_some_and(|extension| extension == "sql"));
    scripts.sort();
    scripts
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder");
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

/// What pg_config says of the installation.
fn asked(option: &str) -> PathBuf {
    let output = Command::new(pg_bin().join("pg_config")).arg(option).output().expect("pg_config runs");
    String::from_utf8(output.stdout).expect("paths are UTF-8").trim_end().into()
}
