//! Tells the program which commit it is built from. Without git, or from an archive, `SSB_COMMIT` may say so.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-env-changed=SSB_COMMIT");
    println!("cargo:rerun-if-changed=build.rs");
    let told = env::var("SSB_COMMIT").ok().filter(|commit| !commit.is_empty());
    let commit = told.or_else(checkout).unwrap_or_else(|| "unknown".into());
    println!("cargo:rustc-env=SSB_COMMIT={commit}");
}

/// The commit of this very checkout, not that of a repository which merely contains it.
fn checkout() -> Option<String> {
    let own = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR")?).canonicalize().ok()?;
    let top = Path::new(&git(&["rev-parse", "--show-toplevel"])?).canonicalize().ok()?;
    if own != top {
        return None;
    }
    // Every commit and checkout writes a line there.
    println!("cargo:rerun-if-changed={}", git(&["rev-parse", "--git-path", "logs/HEAD"])?);
    git(&["rev-parse", "--short=12", "HEAD"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned()).filter(|text| !text.is_empty())
}
