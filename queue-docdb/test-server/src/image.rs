//! The image of the containers: the official one, or one that is built here.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use testcontainers::core::BuildImageOptions;
use testcontainers::runners::{AsyncBuilder, AsyncRunner};
use testcontainers::{GenericBuildableImage, GenericImage};
use tokio::process::Command;

use crate::docker::Docker;
use crate::error::{StepError, within};
use crate::mongod;

const OFFICIAL: (&str, &str) = ("mongo", "6.0");

/// 300 MB on a slow connection.
const PULL: Duration = Duration::from_secs(300);
const BUILD: Duration = Duration::from_secs(180);
const LIST_LIBRARIES: Duration = Duration::from_secs(20);

/// The program's path in both images.
const PROGRAM: &str = "/usr/bin/mongod";

/// An image that the daemon has.
#[derive(Debug)]
pub(crate) struct MongoImage {
    name: &'static str,
    tag: String,
}

impl MongoImage {
    /// Takes an image that the daemon has, else pulls the official one, else builds one. A
    /// machine without a registry then does not wait for it at each start.
    pub(crate) async fn provide(docker: &Docker) -> Result<Self, StepError> {
        let official = Self {
            name: OFFICIAL.0,
            tag: OFFICIAL.1.to_owned(),
        };
        let built = Self {
            name: env!("CARGO_PKG_NAME"),
            tag: mongod::version_and_checksum(),
        };
        if docker.has_image(&official.full_name()).await? {
            return Ok(official);
        }
        if docker.has_image(&built.full_name()).await? {
            return Ok(built);
        }
        let pull = official.to_image().pull_image();
        let pulled = within(PULL, format!("pulling {}", official.full_name()), pull).await;
        let Err(not_pulled) = pulled else {
            return Ok(official);
        };
        match build(&built).await {
            Ok(()) => Ok(built),
            Err(not_built) => Err(StepError::new(format!("{not_pulled}; {not_built}"))),
        }
    }

    pub(crate) fn full_name(&self) -> String {
        format!("{}:{}", self.name, self.tag)
    }

    pub(crate) fn to_image(&self) -> GenericImage {
        GenericImage::new(self.name, &self.tag).with_entrypoint(PROGRAM)
    }
}

/// Builds an image of the fetched program and the libraries of this machine that it needs.
async fn build(image: &MongoImage) -> Result<(), StepError> {
    let program = mongod::fetched().await?;
    let libraries = libraries(&program).await?;
    // This machine's loader finds libraries by a cache that is not in the image.
    let folders: BTreeSet<&Path> = libraries.iter().filter_map(|it| it.parent()).collect();
    let folders: Vec<String> = folders.iter().map(|it| it.display().to_string()).collect();
    // The volume is faster than the layered file system; the official image has it, too.
    let dockerfile = format!(
        "FROM scratch\nCOPY root/ /\nENV LD_LIBRARY_PATH={}\nVOLUME /data/db\n",
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
    let built = context.build_image_with(options);
    // What it returns says no more than the name.
    let built = within(BUILD, format!("building {}", image.full_name()), built).await;
    built.map(drop)
}

/// The libraries that the loader would load, and the loader.
async fn libraries(program: &Path) -> Result<Vec<PathBuf>, StepError> {
    let output = Command::new("ldd")
        .arg(program)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = within(LIST_LIBRARIES, "listing libraries with ldd", output).await?;
    let listing = String::from_utf8_lossy(&output.stdout);
    // "libm.so.6 => /lib/libm.so.6 (0x..)" or "/lib64/ld-linux-x86-64.so.2 (0x..)"
    let libraries: Vec<PathBuf> = listing
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect();
    if libraries.is_empty() || listing.contains("not found") {
        return Err(StepError::new(format!("libraries of mongod:\n{listing}")));
    }
    Ok(libraries)
}
