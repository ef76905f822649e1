//! The section `block_sleep`.

use super::*;

fn what(text: &str) -> Vec<&'static str> {
    let config = parse(&format!("block_sleep: {{what: {text}}}")).unwrap();
    config.block_sleep.unwrap().what.into_iter().map(Blocked::as_str).collect()
}

#[test]
fn one_word_or_a_list_says_what_is_blocked() {
    assert_eq!(what("sleep"), ["sleep"]);
    assert_eq!(what("[idle]"), ["idle"]);
    assert_eq!(what("[idle, shutdown, sleep]"), ["sleep", "shutdown", "idle"]);
}

#[test]
fn defaults_may_be_written_down() {
    let config = parse("block_sleep: {what: [sleep], strength: lock, lid: leave}").unwrap();
    assert_eq!(config.block_sleep, Some(BlockSleep::default()));
}

#[test]
fn says_what_is_wrong_and_where() {
    assert_eq!(
        mistakes(
            "\
block_sleep:
  what:
    - sleep
    - shutdwon
    -
    - sleep
    - [idle]
  strength: hard
  lid: ignored
  mode: block
"
        ),
        [
            "4:7: `block_sleep.what`: expected `sleep`, `shutdown` or `idle`, found `shutdwon` (did you mean `shutdown`?)",
            "5:6: `block_sleep.what`: expected `sleep`, `shutdown` or `idle`, found nothing",
            "6:7: `block_sleep.what`: `sleep` stands here for the second time (keep one of the two)",
            "7:7: `block_sleep.what`: expected `sleep`, `shutdown` or `idle`, found a list",
            "8:13: `block_sleep.strength`: expected `lock` or `mask`, found `hard`",
            "9:8: `block_sleep.lid`: expected `ignore` or `leave`, found `ignored` (did you mean `ignore`?)",
            "10:3: unknown key `mode` in `block_sleep` (`mode` is a key of `shared_memory`; allowed here: `what`, `strength` or `lid`)",
        ]
    );
}

#[test]
fn blocks_something() {
    assert_eq!(
        mistakes("block_sleep: {what: []}"),
        ["1:21: `block_sleep.what`: blocks nothing: the list is empty (fill it, or remove the key)"]
    );
    assert_eq!(
        mistakes("block_sleep:\n  what:\n"),
        ["2:3: `block_sleep.what` has no value (write one after the colon, or remove the key)"]
    );
    for text in ["{what: idle, strength: mask}", "{what: [shutdown, idle], strength: mask}"] {
        let mistakes = mistakes(&format!("block_sleep: {text}"));
        assert!(mistakes[0].contains("`mask` has no effect"), "{mistakes:?}");
        assert_eq!(mistakes.len(), 1);
    }
}
