//! Puts the built page into the binary, so that it can be copied anywhere. Where the page was not built, nothing is put
//! in, and the daemon then says what to run.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

fn main() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("ui/dist");
    // Cargo takes a path that is not there as changed, at every build. In a tree that is read-only, that is all it
    // costs.
    let _ = std::fs::create_dir_all(&folder);
    println!("cargo::rerun-if-changed={}", folder.display());
    println!("cargo::rerun-if-changed=build.rs");

    let mut files = Vec::new();
    collect(&folder, &mut files);
    files.sort();
    let mut table = String::from("&[\n");
    for file in &files {
        let name = file.strip_prefix(&folder).expect("it was found in there");
        let name = name.to_str().expect("Vite's names are ASCII");
        let path = file.to_str().expect("a path that rustc can read");
        writeln!(table, "    ({name:?}, include_bytes!({path:?})),").expect("written to memory");
    }
    table.push_str("]\n");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it")).join("files.rs");
    std::fs::write(&out, table).expect("OUT_DIR is writable");
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files);
        } else {
            files.push(path);
        }
    }
}
