//! Passwords: where they come from, and that no text shows them.

use std::{fs, io::IsTerminal, path::Path};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::failure::{Failure, Result};

/// A URI that may contain a password. It has no `Debug` and no `Display`.
pub(crate) struct SecretUri(String);

/// The mechanisms of the driver that need no password.
const WITHOUT_PASSWORD: [&str; 4] = ["MONGODB-X509", "MONGODB-AWS", "MONGODB-OIDC", "GSSAPI"];

impl SecretUri {
    pub(crate) fn new(uri: String) -> Self {
        Self(uri)
    }

    /// The text before the `@`. One may stand in an unescaped password, so the last one counts. In
    /// an option it is not valid.
    fn user_info(&self) -> Option<&str> {
        let (_, rest) = self.0.split_once("://")?;
        Some(rest.rsplit_once('@')?.0)
    }

    /// The hosts as they stand in the URI.
    pub(crate) fn hosts(&self) -> String {
        let (_, rest) = self.0.split_once("://").unwrap_or_default();
        let (_, rest) = rest.rsplit_once('@').unwrap_or(("", rest));
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        rest[..end].to_owned()
    }

    /// Whether it is a valid URI as far as the hosts, and names no database behind them.
    pub(crate) fn lacks_database(&self) -> bool {
        let Some(rest) = self.0.strip_prefix("mongodb") else {
            return false;
        };
        let rest = rest.strip_prefix("+srv").unwrap_or(rest);
        let Some(rest) = rest.strip_prefix("://") else {
            return false;
        };
        let (_, rest) = rest.rsplit_once('@').unwrap_or(("", rest));
        let (path, _) = rest.split_once('?').unwrap_or((rest, ""));
        let (_, database) = path.split_once('/').unwrap_or_default();
        database.is_empty()
    }

    pub(crate) fn has_password(&self) -> bool {
        self.user_info().is_some_and(|user| user.contains(':'))
    }

    fn is_without_password(&self) -> bool {
        let (_, options) = self.0.split_once('?').unwrap_or_default();
        let mut options = options.split('&').filter_map(|it| it.split_once('='));
        options.any(|(name, value)| {
            name.eq_ignore_ascii_case("authMechanism") && WITHOUT_PASSWORD.contains(&value)
        })
    }

    /// The URI with its password: its own, or that of the file, or the one that the user types.
    pub(crate) fn complete(self, file: Option<&Path>) -> Result<String> {
        let user = self.user_info().filter(|user| !user.is_empty());
        let Some(user) = user.map(str::to_owned) else {
            return match file {
                Some(file) => Err(Failure::usage(format!(
                    "there is a password file, {}, but the URI names no user; write \
                     mongodb://USER@HOST",
                    file.display()
                ))),
                None => Ok(self.0),
            };
        };
        if self.has_password() {
            return match file {
                Some(file) => Err(Failure::usage(format!(
                    "there are two passwords, one in the URI and one in {}; remove one of them",
                    file.display()
                ))),
                None => Ok(self.0),
            };
        }
        let password = match file {
            Some(file) => read(file)?,
            None if self.is_without_password() => return Ok(self.0),
            None => ask(&user)?,
        };
        let password = utf8_percent_encode(&password, NON_ALPHANUMERIC);
        // The user's own part of the URI, which may contain an unescaped `@` too.
        let end = self.0.find("://").map_or(0, |at| at + 3) + user.len();
        let (before, after) = self.0.split_at(end);
        Ok(format!("{before}:{password}{after}"))
    }
}

fn read(file: &Path) -> Result<String> {
    let name = file.display();
    let bytes = fs::read(file).map_err(|error| {
        Failure::usage(format!("cannot read the password file {name}: {error}"))
    })?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Failure::usage(format!("the password file {name} is not UTF-8 text")))?;
    let password = text.strip_suffix('\n').unwrap_or(&text);
    let password = password.strip_suffix('\r').unwrap_or(password);
    if password.is_empty() {
        return Err(Failure::usage(format!("the password file {name} is empty")));
    }
    Ok(password.to_owned())
}

/// Asks on the terminal, also while the standard input is a file.
fn ask(user: &str) -> Result<String> {
    if !std::io::stderr().is_terminal() {
        return Err(Failure::usage(format!(
            "there is no password for user {user}, and no terminal to ask on; set --password-file \
             or QUEUECTL_PASSWORD_FILE, or password_file in the profile"
        )));
    }
    let question = format!("Password of {user}");
    let asked = dialoguer::Password::new()
        .with_prompt(question)
        .report(false)
        // Else it asks for ever at the end of the input.
        .allow_empty_password(true)
        .interact();
    let wrong = |why: &str| Failure::usage(format!("cannot read the password: {why}"));
    match asked {
        Ok(password) if password.is_empty() => Err(wrong("it is empty")),
        Ok(password) => Ok(password),
        Err(error) => Err(wrong(&error.to_string())),
    }
}

/// The text with the passwords of URIs in it replaced. Errors of libraries may quote a URI.
///
/// A password may contain every character, so all counts as one up to the last `@` of the line.
pub(crate) fn redact(text: &str) -> String {
    text.split_inclusive('\n').map(redact_line).collect()
}

fn redact_line(line: &str) -> String {
    let password = || {
        let user = line.find("://")? + 3;
        let begin = user + line[user..].find(':')?;
        let end = begin + line[begin..].rfind('@')?;
        Some((&line[..begin], &line[end..]))
    };
    match password() {
        Some((before, after)) => format!("{before}:***{after}"),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_in_uris_are_found() {
        let has = |uri: &str| SecretUri::new(uri.to_owned()).has_password();
        assert!(has("mongodb://ada:x@host/db"));
        assert!(has("mongodb://ada:a/b@c@host"));
        assert!(!has("mongodb://ada@host:27017/db"));
        assert!(has("mongodb://ada:a?b@host"));
        assert!(!has("mongodb://host:27017/?appName=a:b"));
    }

    #[test]
    fn hosts_have_no_user() {
        let hosts = |uri: &str| SecretUri::new(uri.to_owned()).hosts();
        assert_eq!(
            hosts("mongodb://ada:a/b?@h1:27017,h2/db?x=y"),
            "h1:27017,h2"
        );
        assert_eq!(hosts("mongodb+srv://host?x=y"), "host");
    }

    #[test]
    fn no_text_keeps_a_password() {
        for password in ["s3@cr/et", "pa ss", "it's", "\"", "a`b", "a:b://c@d"] {
            let text = format!("a 'mongodb://ada:{password}@host/db' is wrong\nas http://h/x");
            let expected = "a 'mongodb://ada:***@host/db' is wrong\nas http://h/x";
            assert_eq!(redact(&text), expected);
        }
        let two = "\"mongodb://ada:x@h\" and 'mongodb+srv://bob:y@h'\nhttp://b:c@d";
        let expected = "\"mongodb://ada:***@h'\nhttp://b:***@d";
        assert_eq!(redact(two), expected);
        assert_eq!(redact("mongodb://ada@h:1/x"), "mongodb://ada@h:1/x");
        assert_eq!(redact("no URI: at all@"), "no URI: at all@");
    }
}
