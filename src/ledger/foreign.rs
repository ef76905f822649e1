//! What somebody else changed while guests held it.

use super::combine::pages_of;
use super::knob::CombineRule;
use super::plan::Note;
use super::record::Entry;
use super::value::Value;

/// A value that is neither the baseline nor ours was set by somebody else meanwhile: it is the baseline from now on.
pub(super) fn adopt_foreign_change(entry: &mut Entry, now: &Value) -> Option<Note> {
    if entry.knob.rule() == CombineRule::Shares {
        return adopt_foreign_pages(entry, pages_of(now));
    }
    let was_interrupted = entry.pending.is_some() && entry.knob.is_written_in_parts();
    if was_interrupted || entry.is_ours(now) {
        return None;
    }
    let note = Note::warning(format!(
        "{} was changed by somebody else, from {} to {}: left alone",
        entry.knob,
        entry.written.beside(now),
        now.beside(&entry.written)
    ));
    entry.baseline = now.clone();
    entry.written = now.clone();
    Some(note)
}

/// Pages that somebody added belong to the baseline; pages that somebody took away are gone for everybody.
pub(super) fn adopt_foreign_pages(entry: &mut Entry, now: u64) -> Option<Note> {
    let expected = pages_of(&entry.written);
    // An announced write may have been made. The kernel grows a pool in part, but does not shrink it in part.
    let announced = entry.pending.as_ref().map_or(expected, |pending| pages_of(&pending.value));
    if (expected..=announced).contains(&now) || now == expected || now == announced {
        return None;
    }
    let known = if now > expected { expected.max(announced) } else { announced };
    let note =
        Note::warning(format!("{} were changed by somebody else, from {expected} to {now}", entry.knob));
    let baseline = pages_of(&entry.baseline);
    entry.baseline = Value::Pages(if now > known { baseline + (now - known) } else { baseline.min(now) });
    entry.written = Value::Pages(now);
    Some(note)
}
