//! Commands that were written for a shell: there is none, and `>` would be an argument like any other.

use super::inner_commands::name_of;
use super::tree::shortened;
use super::value::Fault;
use super::word_list::WordList;

/// Programs whose arguments are a language of their own, in which `$x`, `*`, `;` and `|` have a meaning.
const WITH_A_LANGUAGE: WordList = WordList(
    "sh bash dash ash zsh ksh fish busybox nu perl ruby awk gawk mawk sed grep egrep find \
    xargs ssh jq envsubst expect cut tr systemd-run eval su runuser lua",
);

/// The same, with a version behind the name.
const WITH_A_LANGUAGE_AND_VERSION: [&str; 1] = ["python"];

/// Programs for whose files a shell fills in patterns.
const FOR_FILES: WordList = WordList("rm cp mv ln cat ls chmod chown touch tee mkdir rmdir echo stat");

/// What no program takes for an argument of its own.
const OPERATORS: WordList = WordList("&& || |& >> &> &>> << <<< 1> 2> 2>> 2>&1 1>&2 >&2");

/// What a program may well take for one, behind an option: `cut -d ';'`.
const SHORT_OPERATORS: WordList = WordList("| > < ; &");

/// Beginnings of a word with the file that a shell would write to or read from.
const REDIRECTIONS: WordList = WordList("&>>/ &>/ 2>>/ 2>/ 1>>/ 1>/ >>/ >/ </");

/// What a shell would have made of one of these words, the program first; none where the program gets what was meant.
pub(super) fn fault(words: &[String], number: usize) -> Option<Fault> {
    let word = words.get(number)?;
    if number == 0 || words.iter().any(|word| has_a_language(word)) {
        return None;
    }
    let what = if is_operator(words, number) {
        "is shell syntax"
    } else if is_filled_in(words, word) {
        "is filled in by a shell only"
    } else {
        return None;
    };
    let message =
        format!("`{}` {what}, and no shell runs here: the program gets it as it stands", shortened(word));
    Some(Fault::new(message, with_a_shell(words)))
}

/// How a command line that stands in one text is written.
pub(super) fn help_for_line(line: &str) -> Option<String> {
    let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    let is_plain = |word: &String| word.chars().all(is_plain_letter);
    let program = words.first().filter(|program| program.starts_with('/'))?;
    if words.iter().all(is_plain) {
        return Some(format!("write `[{}]`", words.join(", ")));
    }
    let for_a_shell = (1..words.len()).any(|number| fault(&words, number).is_some());
    (for_a_shell && !has_a_language(program)).then(|| with_a_shell(&words))
}

fn has_a_language(word: &str) -> bool {
    let name = name_of(word);
    WITH_A_LANGUAGE.contain(name) || WITH_A_LANGUAGE_AND_VERSION.iter().any(|start| name.starts_with(start))
}

fn is_operator(words: &[String], number: usize) -> bool {
    let word = words[number].as_str();
    if OPERATORS.contain(word)
        || REDIRECTIONS.iter().any(|start| word.starts_with(start))
        || writes_to_file(word)
    {
        return true;
    }
    if word == "&" && number + 1 == words.len() {
        return true;
    }
    let is_value = number > 1 && words[number - 1].starts_with('-') && words[number - 1].len() <= 2;
    if !SHORT_OPERATORS.contain(word) || is_value {
        return false;
    }
    match (word, words.get(number + 1)) {
        (">" | "<", Some(next)) => next.starts_with('/') || next.starts_with('.'),
        ("|" | ";" | "&", Some(next)) => next.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/'),
        _ => false,
    }
}

/// `>file`, `2>>log.txt`: a file without its path.
fn writes_to_file(word: &str) -> bool {
    let behind = word.trim_start_matches(|c: char| c.is_ascii_digit() || c == '&');
    let Some(file) = behind.strip_prefix(">>").or_else(|| behind.strip_prefix('>')) else { return false };
    file.starts_with(|c: char| c.is_ascii_alphabetic() || "_~$.".contains(c))
        && file.chars().all(|c| is_plain_letter(c) || "~$".contains(c))
}

/// A variable, a command in a command, a home, a pattern for files.
fn is_filled_in(words: &[String], word: &str) -> bool {
    is_filled_in_anywhere(word) || is_pattern_for_files(words, word)
}

/// A variable, a command in a command, a home.
fn is_filled_in_anywhere(word: &str) -> bool {
    has_variable(word) || word.matches('`').count() > 1 || word == "~" || word.starts_with("~/")
}

/// What a shell would have made of the value of a variable; none where the program gets what was meant.
pub(super) fn fault_of_variable(value: &str) -> Option<Fault> {
    let message = format!("`{}` is filled in by a shell only, and no shell runs here", shortened(value));
    is_filled_in_anywhere(value)
        .then(|| Fault::new(message, "write the value out: for example `/home/anna/x`"))
}

/// What a shell would have made of a path; none for one that means itself.
pub(super) fn fault_of_path(path: &str) -> Option<Fault> {
    let is_pattern = path.contains(['*', '?']) || path.contains('[') && path.contains(']');
    let message = format!("`{}` is filled in by a shell only: no file is called so", shortened(path));
    (is_filled_in_anywhere(path) || is_pattern)
        .then(|| Fault::new(message, "name one file, with its whole path"))
}

/// `$HOME`, `${HOME}`, `$(date)`: what a shell fills in. Neither `$5` nor a `$` at the end is.
fn has_variable(word: &str) -> bool {
    let is_name = |rest: &str| rest.starts_with(|c: char| c.is_ascii_alphabetic() || "_{(".contains(c));
    word.match_indices('$').any(|(at, _)| is_name(&word[at + 1..]))
}

fn is_pattern_for_files(words: &[String], word: &str) -> bool {
    let program = words.first().map_or("", |program| name_of(program));
    FOR_FILES.contain(program) && word.starts_with('/') && word.contains(['*', '?'])
}

fn is_plain_letter(c: char) -> bool {
    c.is_ascii_alphanumeric() || "/._-+=@%:".contains(c)
}

/// The same command for a shell.
fn with_a_shell(words: &[String]) -> String {
    const LONGEST: usize = 70;
    let line = words.join(" ");
    let fits = |word: &String| {
        !word.is_empty()
            && !word.contains(|c: char| c.is_whitespace() || c.is_control() || "\"'\\".contains(c))
    };
    match words.iter().all(fits) && line.len() <= LONGEST {
        true => format!("have a shell run it: `command: [/bin/sh, -c, \"{line}\"]`"),
        false => "have a shell run it: `command: [/bin/sh, -c, \"...\"]`".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &[&str]) -> Vec<String> {
        line.iter().map(|word| (*word).to_owned()).collect()
    }

    /// The first word that a shell would have read in another way.
    fn found(line: &[&str]) -> Option<usize> {
        let words = words(line);
        (0..words.len()).find(|number| fault(&words, *number).is_some())
    }

    #[test]
    fn what_a_shell_would_read_is_found() {
        for (line, number) in [
            (&["/usr/bin/echo", "1", ">", "/sys/x"][..], Some(2)),
            (&["/usr/bin/echo", "1", ">/sys/x"], Some(2)),
            (&["/bin/echo", "a", ">file"], Some(2)),
            (&["/bin/echo", "a", "2>>log.txt"], Some(2)),
            (&["/bin/echo", "a", ">~/x"], Some(2)),
            (&["/bin/true", "&&", "/bin/false"], Some(1)),
            (&["/bin/true", "2>/dev/null"], Some(1)),
            (&["/bin/cat", "/x", "|", "wc"], Some(2)),
            (&["/bin/sleep", "5", "&"], Some(2)),
            (&["/bin/true", ";", "logger", "x"], Some(1)),
            (&["/usr/bin/logger", "$VFIO_HOOK_GUEST"], Some(1)),
            (&["/usr/bin/logger", "at ${HOME}"], Some(1)),
            (&["/usr/bin/logger", "$(date)"], Some(1)),
            (&["/usr/bin/logger", "`date`"], Some(1)),
            (&["/bin/ls", "~/x"], Some(1)),
            (&["/bin/rm", "/tmp/*.lock"], Some(1)),
            (&["/usr/bin/env", "A=1", "/bin/true", "&&", "x"], Some(3)),
        ] {
            assert_eq!(found(line), number, "{line:?}");
        }
    }

    #[test]
    fn what_a_program_may_want_is_left_to_it() {
        for line in [
            &["/bin/sh", "-c", "echo $HOME > ~/x; true"][..],
            &["/usr/bin/env", "bash", "-c", "a && b"],
            &["/usr/bin/awk", "{print $NF}", "/x"],
            &["/usr/bin/sort", "-t", ";", "/x"],
            &["/usr/bin/find", "/x", "-name", "*.y", "-exec", "rm", "{}", ";"],
            &["/usr/bin/systemctl", "stop", "nvidia*"],
            &["/usr/bin/logger", "it costs 5$ or $5"],
            &["/usr/bin/logger", "a > b", "x|y", "a; b", "it's"],
            &["/usr/bin/python3.12", "-c", "print('$HOME')"],
            &["/usr/bin/curl", "http://x/?a=1&b=2"],
            &["/usr/bin/logger", "-p", "<", "x"],
            &["/usr/bin/logger", "host:~/x"],
            &["/usr/bin/logger", ">5", "<b>", "->x", ">> done <<", ">a b"],
        ] {
            assert_eq!(found(line), None, "{line:?}");
        }
    }

    #[test]
    fn a_line_is_shown_as_a_list() {
        for (line, help) in [
            ("/usr/bin/logger up", Some("write `[/usr/bin/logger, up]`")),
            ("logger up", None),
            ("/bin/echo 1 > /x", Some("have a shell run it: `command: [/bin/sh, -c, \"/bin/echo 1 > /x\"]`")),
            ("/bin/sh -c 'x'", None),
            ("", None),
        ] {
            assert_eq!(help_for_line(line).as_deref(), help, "{line:?}");
        }
    }
}
