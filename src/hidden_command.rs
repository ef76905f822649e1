//! What the program starts itself as: commands for no person, and none of the command line's, which would cost each of
//! these processes five times what it does otherwise.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::Path;
use std::str::FromStr;

use crate::exit::Exit;
use crate::guest::GuestUuid;
use crate::host::{self, APART, KEEPER, Orphaned, RUN_PROGRAM, RunAs, WITH_ITS_PARENT, WORKER};
use crate::keeper;
use crate::restart::{START_AGAIN, StartAgain, start_again};

/// What such a process does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HiddenCommand<'a> {
    /// Looks after a guest until its lease is given back: `keeper UUID`.
    Keeper(GuestUuid),
    /// Starts a guest again that rebooted itself and was stopped for it: `start-again [--apart] UUID -- NAME`.
    StartAgain {
        /// Which part of it.
        part: StartAgain,
        /// The guest.
        guest: GuestUuid,
        /// Its name, for the log.
        name: &'a OsStr,
    },
    /// Touches what may hang in the kernel, monitors among it, as it is told on standard input: `worker`.
    Worker,
    /// Runs a program in this process's place, as a user's command begins: `run-program USER -- PROGRAM ARGUMENT...`.
    RunProgram {
        /// As whom.
        run_as: RunAs,
        /// What becomes of it if the process that starts it is killed.
        orphaned: Orphaned,
        /// The program.
        program: &'a Path,
        /// Its arguments.
        arguments: &'a [OsString],
    },
}

/// What is wrong with the arguments of such a process.
type Misuse = String;

impl<'a> HiddenCommand<'a> {
    /// What the program's arguments, without its own name, are meant for; none where that is a command for people.
    ///
    /// # Errors
    /// The first is such a command, and the others make no sense for it.
    pub fn of(arguments: &'a [OsString]) -> Option<Result<Self, Misuse>> {
        let (word, rest) = arguments.split_first()?;
        let command = match word.to_str()? {
            KEEPER => Self::keeper(rest),
            START_AGAIN => Self::start_again(rest),
            WORKER if rest.is_empty() => Ok(Self::Worker),
            WORKER => Err("needs no arguments".to_owned()),
            RUN_PROGRAM => Self::run_program(rest),
            _ => return None,
        };
        Some(command.map_err(|wrong| format!("`{}` {wrong}", word.display())))
    }

    fn keeper(rest: &[OsString]) -> Result<Self, Misuse> {
        match rest {
            [guest] => text(guest, "UUID").map(Self::Keeper),
            _ => Err("needs a UUID".to_owned()),
        }
    }

    fn start_again(rest: &'a [OsString]) -> Result<Self, Misuse> {
        let (part, rest) = match rest {
            [first, rest @ ..] if first == APART => (StartAgain::Apart, rest),
            _ => (StartAgain::Here, rest),
        };
        match rest {
            [guest, dashes, name] if dashes == "--" => {
                text(guest, "UUID").map(|guest| Self::StartAgain { part, guest, name })
            }
            _ => Err("needs a UUID, `--` and a name".to_owned()),
        }
    }

    fn run_program(rest: &'a [OsString]) -> Result<Self, Misuse> {
        let orphaned = |word: &OsString| match word.to_str()? {
            "--" => Some(Orphaned::RunsOn),
            WITH_ITS_PARENT => Some(Orphaned::Ends),
            _ => None,
        };
        let [run_as, word, program, arguments @ ..] = rest else {
            return Err("needs a user, `--` and a program".to_owned());
        };
        let orphaned = orphaned(word).ok_or_else(|| "needs a user, `--` and a program".to_owned())?;
        let run_as = text(run_as, "user")?;
        Ok(Self::RunProgram { run_as, orphaned, program: Path::new(program), arguments })
    }

    /// Runs the command to its end.
    #[must_use]
    pub fn run(self) -> Exit {
        match self {
            Self::Keeper(guest) => keeper::run(guest),
            Self::StartAgain { part, guest, name } => start_again(part, guest, name),
            Self::Worker => host::run_worker(),
            Self::RunProgram { run_as, orphaned, program, arguments } => {
                host::run_program(&run_as, orphaned, program, arguments)
            }
        }
    }
}

/// Carries out what arguments are meant for, or says what is wrong with them.
#[must_use]
pub fn run_hidden_command(command: Result<HiddenCommand<'_>, Misuse>) -> Exit {
    match command {
        Ok(command) => command.run(),
        Err(wrong) => {
            report(&wrong);
            report_help();
            Exit::Usage
        }
    }
}

fn report(error: &str) {
    let _ = writeln!(io::stderr(), "error: {error}");
}

fn report_help() {
    let _ = writeln!(
        io::stderr(),
        "help: the program starts this by itself; `vfio-hook --help` lists the commands for people"
    );
}

fn text<T: FromStr>(argument: &OsStr, what: &str) -> Result<T, Misuse> {
    let parsed = argument.to_str().and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| format!("needs a {what}, and `{}` is none", argument.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUEST: &str = "c0ffee00-1111-4222-8333-44445555666f";

    fn arguments(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[test]
    fn a_guests_name_may_look_like_an_option() {
        for (words, expected) in [
            (&[START_AGAIN, APART, GUEST, "--", "--help"][..], StartAgain::Apart),
            (&[START_AGAIN, GUEST, "--", "--help"], StartAgain::Here),
        ] {
            let arguments = arguments(words);
            let name = OsStr::new("--help");
            let command = HiddenCommand::StartAgain { part: expected, guest: GUEST.parse().unwrap(), name };
            assert_eq!(HiddenCommand::of(&arguments), Some(Ok(command)), "{words:?}");
        }
    }

    #[test]
    fn a_program_gets_its_arguments_as_they_are() {
        let words = arguments(&[RUN_PROGRAM, "caller", "--", "/bin/sh", "--", "-c"]);
        let Some(Ok(HiddenCommand::RunProgram { run_as, orphaned, program, arguments })) =
            HiddenCommand::of(&words)
        else {
            panic!("{words:?}")
        };
        assert_eq!((run_as, orphaned, program), (RunAs::Caller, Orphaned::RunsOn, Path::new("/bin/sh")));
        assert_eq!(arguments, ["--", "-c"]);
        let words: Vec<OsString> =
            [RUN_PROGRAM, "caller", WITH_ITS_PARENT, "/bin/sh"].map(OsString::from).into();
        assert!(matches!(
            HiddenCommand::of(&words),
            Some(Ok(HiddenCommand::RunProgram { orphaned: Orphaned::Ends, .. }))
        ));
    }

    #[test]
    fn what_is_no_such_command_is_left_to_the_command_line() {
        for words in [
            &[][..],
            &["status"],
            &["keepers"],
            &["write-attribute", "a", "1"],
            &["talk-to-monitors", "{}"],
            &["--help", KEEPER],
        ] {
            assert_eq!(HiddenCommand::of(&arguments(words)), None, "{words:?}");
        }
    }

    #[test]
    fn half_of_one_is_a_mistake() {
        for words in [
            &[KEEPER][..],
            &[KEEPER, "win11"],
            &[KEEPER, "--help"],
            &[KEEPER, GUEST, "x"],
            &[START_AGAIN, GUEST],
            &[START_AGAIN, GUEST, "win11"],
            &[START_AGAIN, APART, "--", "win11"],
            &[WORKER, "x"],
            &[RUN_PROGRAM, "caller", "--"],
            &[RUN_PROGRAM, "root", "--", "/bin/sh"],
        ] {
            let words = arguments(words);
            assert!(matches!(HiddenCommand::of(&words), Some(Err(_))), "{words:?}");
        }
        let words = arguments(&[KEEPER, "win11"]);
        let wrong = HiddenCommand::of(&words).unwrap().unwrap_err();
        assert_eq!(wrong, "`keeper` needs a UUID, and `win11` is none");
    }
}
