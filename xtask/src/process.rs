//! Starting other programs so that none of them outlives this process.
//!
//! Two kinds: a program that is run to its end with its output going where ours goes ([`run`], [`run_group`],
//! [`output`]), and a server that stays ([`serve`]).

use std::env;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::error::command_line;
use crate::signals::{self, POLL};
use crate::{Error, Result};

/// Runs a program to its end; Ctrl-C reaches it too, since it stays in the terminal's foreground (sudo may ask for a
/// password there).
pub fn run(command: &mut Command) -> Result<()> {
    let child = command.spawn().map_err(Error::start(command))?;
    finish(command, child, rustix::process::kill_process)
}

/// Runs a program that starts others in turn, as `cargo test` does: an interruption ends all of them.
pub fn run_group(command: &mut Command) -> Result<()> {
    let child = command.process_group(0).stdin(Stdio::null()).spawn().map_err(Error::start(command))?;
    finish(command, child, rustix::process::kill_process_group)
}

/// What a program that ends soon printed to its standard output.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.stderr(Stdio::inherit()).output().map_err(Error::start(command))?;
    succeeded(command, output.status)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The path of a program on the PATH.
#[must_use]
pub fn find(name: &str) -> Option<PathBuf> {
    let folders = env::var_os("PATH")?;
    env::split_paths(&folders).map(|folder| folder.join(name)).find(|program| program.is_file())
}

/// A command that runs as `user` (`None`: as the user we are) and gets `death` when we die without having ended it,
/// even by SIGKILL.
///
/// setpriv replaces itself with the program, so that the child's pid is the program's own, which runuser and sudo,
/// staying in between, would not give. The environment is empty: what a developer's shell exports (a live Stripe
/// key, RUST_BACKTRACE, which makes pgrx show backtraces to clients) must not reach a server by accident.
#[must_use]
pub fn server_command(program: &Path, user: Option<&str>, death: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").args(["--pdeathsig", death]);
    if let Some(user) = user {
        command.args(["--reuid", user, "--regid", user, "--init-groups"]);
    }
    command.arg("--").arg(program);
    command
}

/// Starts a server, out of the reach of the terminal's Ctrl-C: its owner ends it, in the right order.
///
/// The kernel sends the death signal when the *thread* that started the child ends, and a test's thread ends before
/// the test run does; so one thread, which lives as long as the process, starts them all.
pub fn serve(mut command: Command) -> Result<Child> {
    struct Order(Command, SyncSender<io::Result<Child>>);
    static STARTER: LazyLock<Sender<Order>> = LazyLock::new(|| {
        let (orders, inbox) = channel::<Order>();
        thread::spawn(move || {
            for Order(mut command, reply) in inbox {
                // The receiver waits for this one answer and cannot have gone.
                let _ = reply.send(command.spawn());
            }
        });
        orders
    });

    let failed = Error::start(&command);
    command.process_group(0);
    let (reply, answer) = sync_channel(1);
    // Neither fails while the starter lives, and it never ends.
    let _ = STARTER.send(Order(command, reply));
    answer.recv().unwrap_or_else(|_| Err(io::Error::other("the starting thread is gone"))).map_err(failed)
}

/// Sends a signal to a child that has not been waited for yet, so that its pid cannot be another's by now.
pub(crate) fn signal(child: &Child, signal: Signal) {
    // It may have ended by itself, which is what the signal is for.
    let _ = rustix::process::kill_process(pid(child), signal);
}

/// Waits until the child has ended, `None` if it still runs after `limit`.
pub fn wait_for(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let start = Instant::now();
    loop {
        // An error means that there is no such child to wait for any more.
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if start.elapsed() < limit => thread::sleep(POLL),
            Ok(None) | Err(_) => return None,
        }
    }
}

/// Ends a child with SIGKILL.
pub fn kill(child: &mut Child) {
    // Both fail only for a child that is gone already.
    let _ = child.kill();
    let _ = child.wait();
}

fn finish(
    command: &Command,
    mut child: Child,
    kill: fn(Pid, Signal) -> rustix::io::Result<()>,
) -> Result<()> {
    loop {
        if let Some(status) = wait_for(&mut child, POLL) {
            // A child that Ctrl-C ended is no failure of its own.
            signals::check()?;
            return succeeded(command, status);
        }
        if let Err(interrupted) = signals::check() {
            let _ = kill(pid(&child), Signal::TERM);
            let _ = child.wait();
            return Err(interrupted);
        }
    }
}

fn succeeded(command: &Command, status: ExitStatus) -> Result<()> {
    if status.success() { Ok(()) } else { Err(Error::Failed { command: command_line(command), status }) }
}

fn pid(child: &Child) -> Pid {
    Pid::from_child(child)
}
