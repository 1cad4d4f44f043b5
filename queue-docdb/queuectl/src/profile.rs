//! The profile file: named connections in TOML.

use std::{
    collections::BTreeMap,
    env, fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{
    cli::ConnectArgs,
    failure::{Failure, Result},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// The profile that applies if none is named and no URI is given.
    default: Option<String>,
    #[serde(default)]
    profiles: BTreeMap<String, Profile>,
}

/// The settings of one connection. Each is as the flag of the same name.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Profile {
    pub(crate) uri: Option<String>,
    pub(crate) database: Option<String>,
    pub(crate) prefix: Option<String>,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) password_file: Option<PathBuf>,
    pub(crate) timeout: Option<String>,
}

/// Where the file is, unless a flag says otherwise.
fn default_path() -> Option<PathBuf> {
    let absolute = |name| {
        let path = env::var_os(name).map(PathBuf::from);
        path.filter(|path| path.is_absolute())
    };
    let folder = absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")));
    Some(folder?.join("queuectl/config.toml"))
}

/// The profile that the user named, or the default one. Empty if there is none.
///
/// A URI without a named profile takes nothing from the file: its password and its authorities
/// belong to another server.
pub(crate) fn find(args: &ConnectArgs) -> Result<Profile> {
    if args.profile.is_none() && args.uri.is_some() {
        return Ok(Profile::default());
    }
    let Some(path) = args.config.clone().or_else(default_path) else {
        return match &args.profile {
            None => Ok(Profile::default()),
            Some(name) => Err(Failure::usage(format!(
                "profile {name:?} was asked for, but there is no profile file: set --config, \
                 XDG_CONFIG_HOME or HOME"
            ))),
        };
    };
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error)
            if error.kind() == io::ErrorKind::NotFound
                && args.config.is_none()
                && args.profile.is_none() =>
        {
            return Ok(Profile::default());
        }
        Err(error) => {
            let path = path.display();
            let text = format!("cannot read the profile file {path}: {error}");
            return Err(Failure::usage(text));
        }
    };
    let mut file = parse(&path, &text)?;
    let Some(name) = args.profile.clone().or(file.default) else {
        return Ok(Profile::default());
    };
    let Some(mut profile) = file.profiles.remove(&name) else {
        let names = file.profiles.keys().map(String::as_str);
        let names = match names.collect::<Vec<_>>().join(", ") {
            none if none.is_empty() => "there are none".to_owned(),
            names => format!("there are {names}"),
        };
        let path = path.display();
        let text = format!("{path} has no profile {name:?}; {names}");
        return Err(Failure::usage(text));
    };
    // So that the file works from every folder.
    let folder = path.parent().unwrap_or(Path::new(""));
    for file in [&mut profile.ca_file, &mut profile.password_file] {
        *file = file.take().map(|file| folder.join(file));
    }
    Ok(profile)
}

fn parse(path: &Path, text: &str) -> Result<File> {
    toml::from_str(text).map_err(|error: toml::de::Error| {
        let line = error.span().map_or(1, |span| {
            let before = text.get(..span.start).unwrap_or(text);
            before.matches('\n').count() + 1
        });
        // The error's own text quotes the line, which may have a password.
        let (path, message) = (path.display(), error.message());
        Failure::usage(format!("{path}, line {line}: {message}"))
    })
}
