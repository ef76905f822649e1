//! What lines of the kernel's log mean: rows of the host's file, and the table that is built in.

use super::host::{HOST, host_mistakes, parse_host};
use super::*;
use crate::gpu::{KERNEL_LINES, Severity, known_kernel_lines};

#[test]
fn the_built_in_table_is_a_file_like_the_hosts() {
    let read = HostConfig::parse(Path::new("kernel_lines.yaml"), KERNEL_LINES);
    let read = read.unwrap_or_else(|errors| panic!("{}", errors.render(Style::Plain)));
    assert_eq!(read.kernel_lines, known_kernel_lines());
}

#[test]
fn a_row_of_the_hosts_says_what_it_says_and_of_a_built_in_one_the_rest_stays() {
    let host = parse_host(HOST).unwrap();
    let [changed, mine] = host.kernel_lines.as_slice() else { panic!("{:?}", host.kernel_lines) };
    let built_in = known_kernel_lines().iter().find(|row| row.name.as_str() == "ring-test").unwrap();
    assert_eq!(built_in.severity, Severity::Wedged);
    assert_eq!(changed.severity, Severity::Suspicious);
    assert_eq!((&changed.patterns, &changed.meaning), (&built_in.patterns, &built_in.meaning));
    assert_eq!(changed.fix, built_in.fix);
    assert_eq!(mine.name.as_str(), "my-line");
    assert_eq!((mine.severity, mine.meaning.as_str()), (Severity::Wedged, "it says so"));
    assert_eq!(mine.fix.as_deref(), Some("read it"));
    let patterns: Vec<String> = mine.patterns.iter().map(ToString::to_string).collect();
    assert_eq!(patterns, ["my * line", "another ** line"]);
    assert!(mine.fits("amdgpu 0000:03:00.0: amdgpu: another of those, a line"));
    assert_eq!(mine.since.unwrap().to_string(), "6.6");
    assert_eq!(mine.until.unwrap().to_string(), "6.12");
}

#[test]
fn says_what_is_wrong_and_where() {
    assert_eq!(
        host_mistakes(
            "\
kernel_lines:
  nothing: {fix: x}
  short: {pattern: \"** a\", severity: wedge, meaning: 5}
  number: {pattern: 79, severity: harmless, meaning: x, since: 6.6, until: \"6\"}
  lines:
    pattern: \"ring * test failed\"
    severity: wedged
    meaning: x
    example: \"amdgpu 0000:03:00.0: amdgpu: ring gfx timeout\"
    near_miss: \"amdgpu 0000:03:00.0: amdgpu: ring gfx test failed (-110)\"
  ring-test: {severty: harmless}
  my line: {severity: harmless}
  ring-tset: {pattern: \"ring * tset\", severity: harmless}
"
        ),
        [
            "2:12: `kernel_lines.nothing.pattern` is missing (write what the line's message begins with, with `*` for a word \
             and `**` for anything)",
            "2:12: `kernel_lines.nothing.severity` is missing (write `wedged`, `suspicious`, `recovered` or `harmless`)",
            "2:12: `kernel_lines.nothing.meaning` is missing (say what it means, with the card as `it`: `meaning: \"it does \
             not answer\"`)",
            "3:20: `kernel_lines.short.pattern`: the pattern `** a` has fewer than 6 letters beside its wildcards (write more \
             of the line: what is so short fits lines that you do not mean)",
            "3:38: `kernel_lines.short.severity`: expected `wedged`, `suspicious`, `recovered` or `harmless`, found `wedge` \
             (did you mean `wedged`?)",
            "3:54: `kernel_lines.short.meaning`: expected a text, found the number 5 (put quotes around it)",
            "4:21: `kernel_lines.number.pattern`: expected what a line begins with, such as \"ring * test failed\", found the \
             number 79 (put quotes around it)",
            "4:64: `kernel_lines.number.since`: expected a release of the kernel in quotes, such as \"6.6\", found the number \
             6.6",
            "4:76: `kernel_lines.number.until`: expected a release of the kernel in quotes, such as \"6.6\", found `6`",
            "9:14: `kernel_lines.lines.example`: no pattern fits this line (the names of driver and device before a message \
             are no part of it; `*` is one word, `**` anything)",
            "10:16: `kernel_lines.lines.near_miss`: a pattern fits this line, which it should not (the names of driver and \
             device before a message are no part of it; `*` is one word, `**` anything)",
            "11:15: unknown key `severty` in `kernel_lines.ring-test` (did you mean `severity`? allowed here: `pattern`, \
             `severity`, `meaning`, `fix`, `since`, `until`, `source`, `example` or `near_miss`)",
            "12:3: `kernel_lines`: expected a line's name, found `my line` (letters, digits, `-` and `_`, a letter first, at \
             most 32 of them)",
            "13:14: `kernel_lines.ring-tset.meaning` is missing (did you mean `ring-test`, which is built in? Else say what it \
             means, with the card as `it`: `meaning: \"it does not answer\"`)",
        ]
    );
    assert_eq!(
        host_mistakes("kernel_lines: {}"),
        [
            "1:15: `kernel_lines`: names no line (fill it, for example `{my-line: {pattern: \"ring * timeout\", severity: \
             harmless, meaning: \"a job did not end\"}}`, or remove the key)"
        ]
    );
}
