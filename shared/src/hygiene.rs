//! What a process that holds secrets leaves behind: no memory image when it crashes, no file that others may
//! read, and no secret in its environment, which its children inherit and `/proc` shows.

use std::{env, io};

use rustix::{
    fs::Mode,
    process::{Resource, Rlimit, setrlimit, umask},
};

/// From now on the process dumps no core, for good, and what it makes is its owner's alone. To be called
/// before any secret is read and before there are threads.
///
/// # Errors
/// When the operating system refuses the limit.
pub fn keep_to_itself() -> io::Result<()> {
    umask(Mode::RWXG | Mode::RWXO);
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    Ok(setrlimit(Resource::Core, none)?)
}

/// What the name of a variable of ours holds when the variable is meant to hold a secret.
const SECRETS: [&str; 6] = ["KEY", "KEK", "TOKEN", "SECRET", "PASSWORD", "PIN"];

/// A variable of the environment that was meant for us and holds a secret; `None` when there is none. We read
/// none of them: whoever set it expects what will not happen, and has put a secret where many can read it.
pub fn secret_in_environment() -> Option<String> {
    let names = env::vars_os().map(|(name, _)| name);
    secret_among(names.filter_map(|name| name.into_string().ok()))
}

fn secret_among(mut names: impl Iterator<Item = String>) -> Option<String> {
    names.find(|name| {
        let ours = name.strip_prefix("COUNTERSIGN_");
        ours.is_some_and(|rest| rest.split('_').any(|word| SECRETS.contains(&word)))
    })
}

/// What to tell who set the variable `name`.
pub fn instead_of_environment(name: &str) -> String {
    format!(
        "the environment variable {name} is refused: an environment is no place for a secret, as children inherit \
         it and /proc shows it. Put the secret in a file of mode 0600, name that in the configuration, and unset \
         the variable"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_that_hold_secrets_for_us_are_found_and_no_others() {
        let found = |name: &str| secret_among([name.to_owned()].into_iter()).is_some();
        for name in [
            "COUNTERSIGN_ADMIN_KEY",
            "COUNTERSIGN_TOKEN",
            "COUNTERSIGN_KEK_FILE",
        ] {
            assert!(found(name), "{name}");
        }
        for name in [
            "COUNTERSIGN_BIN",
            "COUNTERSIGN_MONKEY",
            "ADMIN_KEY",
            "PGHOST",
            "PATH",
        ] {
            assert!(!found(name), "{name}");
        }
    }
}
