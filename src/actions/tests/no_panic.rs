//! Files of any content are read or refused.

use proptest::prelude::*;

use super::*;

fn never_panics(text: &str) {
    let source = ConfigSource::new(FILE, text);
    let guest = GuestConfig::read(&source);
    if let Some(switches) = guest.as_ref().ok().and_then(|config| config.switch_input.as_ref()) {
        let _ = source.check_against(switches, &HostConfig::default());
    }
    for errors in [guest.err(), source.parse_host().err()].into_iter().flatten() {
        assert!(!errors.diagnostics().is_empty());
        assert!(errors.to_string().len() <= 2048);
        assert!(!errors.render(Style::Plain).is_empty());
    }
    let diagnostic = ConfigSource::new(FILE, text).diagnose(&["hugepages", "timeout"], "wrong", None);
    assert!(!diagnostic.render(Style::Coloured).is_empty());
}

proptest! {
    #[test]
    fn no_text_panics(text in any::<String>()) {
        never_panics(&text);
    }

    #[test]
    fn no_yaml_like_text_panics(text in "([ \\n\\t]|- |: |[a-d]:|[\\[\\]{},&*!|>'\"#?%]|---\\n|ü|警|hugepages|cpus|run|scripts|command|stop|unit|what|switch_input|monitors?|deviations|gpu_families|ids|reboot|1002:|inputs|guest|host|set|gpu|devices|holders|bars|recover|0xD6|hdmi-1|<<){0,40}") {
        never_panics(&text);
    }

    #[test]
    fn no_change_of_a_good_file_panics(
        at in 0..GOOD.len(), removed in 0_usize..12, added in "[ \\n\\t:\\-{}\\[\\]&*!'\"a-c0-9ü]{0,6}",
    ) {
        let end = (at + removed).min(GOOD.len());
        never_panics(&format!("{}{added}{}", &GOOD[..at], &GOOD[end..]));
    }

    #[test]
    fn no_change_of_a_good_host_file_panics(
        at in 0..host::HOST.len(), removed in 0_usize..12, added in "[ \\n\\t:\\-{}\\[\\]&*!'\"a-c0-9ü]{0,6}",
    ) {
        let end = (at + removed).min(host::HOST.len());
        never_panics(&format!("{}{added}{}", &host::HOST[..at], &host::HOST[end..]));
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        if let Err(errors) = ConfigSource::from_bytes(FILE, bytes) {
            prop_assert!(!errors.render(Style::Plain).is_empty());
        }
    }
}
