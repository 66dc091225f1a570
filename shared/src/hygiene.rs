//! What a process that holds secrets leaves behind: no memory image when it crashes, and no file that
//! others may read.

use std::io;

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
