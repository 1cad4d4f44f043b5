//! The image a container is made of: the official one, or one built on the spot.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use testcontainers::core::BuildImageOptions;
use testcontainers::runners::{AsyncBuilder, AsyncRunner};
use testcontainers::{GenericBuildableImage, GenericImage};
use tokio::process::Command;

use crate::daemon::Daemon;
use crate::error::{Failure, within};
use crate::fetch;

const OFFICIAL: (&str, &str) = ("mongo", "7.0");
const BUILT: &str = env!("CARGO_PKG_NAME");

/// 300 MB over a slow line.
const PULL: Duration = Duration::from_secs(300);
const BUILD: Duration = Duration::from_secs(180);
const LIST_LIBRARIES: Duration = Duration::from_secs(20);

/// The place of the program in either image.
pub(crate) const PROGRAM: &str = "/usr/bin/mongod";

/// An image that the daemon has.
#[derive(Debug)]
pub(crate) struct MongoImage {
    name: &'static str,
    tag: String,
}

impl MongoImage {
    /// The image to use. What the daemon has already comes first, in either form, so that
    /// a machine without a registry does not ask for it in vain at each start.
    pub(crate) async fn provide(daemon: &Daemon) -> Result<Self, Failure> {
        let official = Self {
            name: OFFICIAL.0,
            tag: OFFICIAL.1.to_owned(),
        };
        let built = Self {
            name: BUILT,
            tag: format!("{}-{}", fetch::VERSION, fetch::short_checksum()),
        };
        for image in [&official, &built] {
            if daemon.has_image(&image.full_name()).await? {
                return Ok(Self {
                    name: image.name,
                    tag: image.tag.clone(),
                });
            }
        }
        let pull = official.to_image().pull_image();
        let doing = format!("pulling {}", official.full_name());
        let Err(not_pulled) = within(PULL, &doing, pull).await else {
            return Ok(official);
        };
        match build(&built).await {
            Ok(()) => Ok(built),
            Err(not_built) => Err(Failure::new(format!("{not_pulled}; {not_built}"))),
        }
    }

    pub(crate) fn full_name(&self) -> String {
        format!("{}:{}", self.name, self.tag)
    }

    pub(crate) fn to_image(&self) -> GenericImage {
        GenericImage::new(self.name, &self.tag).with_entrypoint(PROGRAM)
    }
}

/// Builds an image of the fetched program and the libraries of this machine it needs.
async fn build(image: &MongoImage) -> Result<(), Failure> {
    let program = fetch::mongod().await?;
    let libraries = libraries(&program).await?;
    // Where this machine's loader finds libraries is told by a cache that is not in the
    // image.
    let folders: BTreeSet<String> = libraries
        .iter()
        .filter_map(|library| Some(library.parent()?.display().to_string()))
        .collect();
    let folders: Vec<String> = folders.into_iter().collect();
    let dockerfile = format!(
        "FROM scratch\n\
         COPY root/ /\n\
         ENV LD_LIBRARY_PATH={}\n\
         ENTRYPOINT [\"{PROGRAM}\"]\n",
        folders.join(":")
    );
    let mut context = GenericBuildableImage::new(image.name, &image.tag)
        .with_dockerfile_string(dockerfile)
        .with_file(program, format!("root{PROGRAM}"));
    for library in libraries {
        let target = format!("root{}", library.display());
        context = context.with_file(library, target);
    }
    // Tests that start together build once.
    let options = BuildImageOptions::new().with_skip_if_exists(true);
    let doing = format!("building {}", image.full_name());
    let built = within(BUILD, &doing, context.build_image_with(options)).await;
    // What testcontainers returns says no more than the name that went in.
    built.map(drop)
}

/// What the loader would load, the loader itself included.
async fn libraries(program: &Path) -> Result<Vec<PathBuf>, Failure> {
    let output = Command::new("ldd")
        .arg(program)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = within(LIST_LIBRARIES, "listing libraries with ldd", output).await?;
    let listing = String::from_utf8_lossy(&output.stdout);
    let missing: Vec<&str> = listing
        .lines()
        .filter(|line| line.contains("not found"))
        .map(str::trim)
        .collect();
    if !missing.is_empty() {
        let missing = missing.join(", ");
        return Err(Failure::new(format!(
            "mongod lacks libraries on this machine: {missing}"
        )));
    }
    // "libm.so.6 => /lib/libm.so.6 (0x..)", "/lib64/ld-linux-x86-64.so.2 (0x..)", and the
    // kernel's own linux-vdso, which is no file.
    let libraries: Vec<PathBuf> = listing
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect();
    if libraries.is_empty() {
        return Err(Failure::new("ldd lists no library for mongod"));
    }
    Ok(libraries)
}
