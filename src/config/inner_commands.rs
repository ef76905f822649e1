//! The programs that a command runs: itself, what a wrapper such as `timeout` runs, what stands in a shell's text.

use super::word_list::WordList;

/// Shells, whose text is looked at command by command.
const SHELLS: WordList = WordList("sh bash dash ash zsh ksh fish busybox");

/// Programs that run others, in a language of their own: a name in their text counts wherever it stands.
const OTHER_LANGUAGES: WordList = WordList("nu perl ruby expect lua");

/// The same, with a version behind the name.
const PYTHON: &str = "python";

/// Programs that run the program among their arguments.
pub(super) const WRAPPERS: WordList = WordList(
    "env sudo doas nice ionice timeout setsid stdbuf chrt taskset nohup time flock \
    systemd-inhibit nsenter unshare systemd-run su runuser xargs find eval exec command",
);

/// Words of a shell before a command.
const KEYWORDS: WordList = WordList("if then else elif do while until ! time exec command eval nohup { &&");

/// Programs whose arguments are no programs, behind a wrapper.
const RUN_NOTHING: WordList = WordList(
    "echo printf logger grep egrep fgrep sed awk gawk mawk cat ls test stat head tail wc cut tr tee sort \
    pgrep pidof pkill killall kill notify-send systemctl service jq",
);

/// Wrappers and shells within each other: more than anyone writes.
const MOST_LEVELS: usize = 8;

/// So many words of a program are looked at: the text may be as long as a file.
const MOST_WORDS: usize = 50;

/// One program and its arguments, and the number of the word that it stands in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct InnerCommand<'w> {
    pub(super) number: usize,
    pub(super) words: Vec<&'w str>,
}

impl<'w> InnerCommand<'w> {
    /// The program's name without its folder.
    pub(super) fn name(&self) -> &'w str {
        self.words.first().map_or("", |word| name_of(word))
    }

    /// Its arguments.
    pub(super) fn arguments(&self) -> &[&'w str] {
        self.words.get(1..).unwrap_or_default()
    }
}

/// Every program that a command may run and wait for.
pub(super) fn inner_commands(words: &[String]) -> Vec<InnerCommand<'_>> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut found = Vec::new();
    add(0, &words, MOST_LEVELS, &mut found);
    found
}

fn add<'w>(number: usize, words: &[&'w str], levels: usize, found: &mut Vec<InnerCommand<'w>>) {
    let (Some(first), Some(levels)) = (words.first(), levels.checked_sub(1)) else { return };
    let words = &words[..words.len().min(MOST_WORDS)];
    let name = name_of(first);
    found.push(InnerCommand { number, words: words.to_vec() });
    if SHELLS.contain(name) {
        for (offset, text) in words.iter().enumerate().skip(1).filter(|(_, text)| !text.starts_with('-')) {
            add_of_shell(number + offset, text, levels, found);
        }
    } else if OTHER_LANGUAGES.contain(name) || name.starts_with(PYTHON) {
        let between = |c: char| !(c.is_ascii_alphanumeric() || "-_./".contains(c));
        for (offset, text) in words.iter().enumerate().skip(1) {
            let parts = text.split(between).filter(|part| !part.is_empty());
            found.extend(parts.map(|part| InnerCommand { number: number + offset, words: vec![part] }));
        }
    } else if WRAPPERS.contain(name) {
        for offset in 1..words.len() {
            let inner = name_of(words[offset]);
            if SHELLS.contain(inner) || WRAPPERS.contain(inner) || inner.starts_with(PYTHON) {
                return add(number + offset, &words[offset..], levels, found);
            }
            // `su -c "virsh list"`.
            match words[offset].contains(' ') {
                true => add_of_shell(number + offset, words[offset], levels, found),
                false => {
                    found.push(InnerCommand { number: number + offset, words: words[offset..].to_vec() });
                }
            }
            if RUN_NOTHING.contain(inner) {
                return;
            }
        }
    }
}

/// The commands of a shell's text. Nothing of one with something in the background counts: what a shell does not wait
/// for.
fn add_of_shell<'w>(number: usize, text: &'w str, levels: usize, found: &mut Vec<InnerCommand<'w>>) {
    let lone = text.replace("&&", " ").replace(">&", " ").replace("&>", " ");
    if lone.contains('&') {
        return;
    }
    for part in text.split([';', '|', '&', '(', ')', '`', '\n', '{', '}']) {
        let words = part.split_whitespace().map(|word| word.trim_matches(['"', '\'']));
        let is_before = |word: &&str| KEYWORDS.contain(word) || is_assignment(word);
        let words: Vec<&str> = words.skip_while(is_before).collect();
        add(number, &words, levels, found);
    }
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    })
}

pub(super) fn name_of(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(line: &[&str]) -> Vec<String> {
        let words: Vec<String> = line.iter().map(|word| (*word).to_owned()).collect();
        inner_commands(&words).iter().map(|inner| format!("{}:{}", inner.number, inner.name())).collect()
    }

    #[test]
    fn what_runs_within_a_command_is_found() {
        for (line, found) in [
            (&["/bin/true", "virsh"][..], &["0:true"][..]),
            (&["/usr/bin/env", "A=1", "virsh"], &["0:env", "1:A=1", "2:virsh"]),
            (&["/usr/bin/timeout", "5", "grep", "virsh"], &["0:timeout", "1:5", "2:grep"]),
            (&["/bin/sh", "-c", "A=1 if x; then grep y; fi"], &["0:sh", "2:x", "2:grep", "2:fi"]),
            (&["/bin/sh", "-c", "echo $(virsh list)"], &["0:sh", "2:echo", "2:virsh"]),
            (&["/bin/sh", "-c", "sleep 1 &"], &["0:sh"]),
            (&["/usr/bin/sudo", "sh", "-c", "a | b"], &["0:sudo", "1:sh", "3:a", "3:b"]),
            (&["/usr/bin/su", "-c", "virsh list"], &["0:su", "1:-c", "2:virsh"]),
            (&["/usr/bin/python3", "-c", "run('virsh')"], &["0:python3", "1:-c", "2:run", "2:virsh"]),
        ] {
            assert_eq!(names(line), found, "{line:?}");
        }
    }
}
