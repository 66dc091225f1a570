//! Ties a process to its parent: it stops when its standard input ends. The parent holds the other
//! end of the pipe, and the kernel closes that however the parent dies, SIGKILL included.

use std::{
    io::{self, Read},
    process, thread,
    time::Duration,
};

use countersign_shared::tasks::{OnFailure, Tasks};
use rustix::process::{Signal, getpid, kill_process};

/// How long a graceful stop may take before the process is ended: longer than the control plane's
/// and the agent's own deadlines.
const DEADLINE: Duration = Duration::from_secs(15);

/// From now on, the end of standard input is as SIGTERM, and the end of the process at the latest
/// 15 seconds later.
///
/// # Errors
/// When the operating system gives no thread.
pub(crate) fn stop_when_it_ends() -> io::Result<()> {
    let (tasks, _failures) = Tasks::new();
    tasks.spawn_thread("standard input", OnFailure::Log, || {
        read_to_end(io::stdin().lock());
        kill_process(getpid(), Signal::TERM)?;
        thread::sleep(DEADLINE);
        process::exit(1);
        #[allow(unreachable_code)] // names the closure's type
        io::Result::Ok(())
    })
}

/// Reads and forgets; an error is an end too.
fn read_to_end(mut input: impl Read) {
    let mut buffer = [0; 256];
    loop {
        match input.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Once(io::ErrorKind, u8);

    impl Read for Once {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            self.1 += 1;
            match self.1 {
                1 => Ok(3),
                2 => Err(self.0.into()),
                _ => Ok(0),
            }
        }
    }

    #[test]
    fn it_reads_until_the_end_or_an_error() {
        let mut interrupted = Once(io::ErrorKind::Interrupted, 0);
        read_to_end(&mut interrupted);
        assert_eq!(interrupted.1, 3);
        let mut broken = Once(io::ErrorKind::BrokenPipe, 0);
        read_to_end(&mut broken);
        assert_eq!(broken.1, 2);
    }
}
