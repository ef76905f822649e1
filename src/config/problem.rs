//! What is wrong with a file, noted while it is read, before the places are looked for.

use std::fmt;

use super::locate::Part;
use super::value::Fault;

/// One mistake and the entry it is in.
#[derive(Debug)]
pub(super) struct Problem {
    /// Entries and elements counted from 0, the outermost first.
    pub(super) path: Vec<usize>,
    pub(super) part: Part,
    pub(super) fault: Fault,
    /// Whether it is one at all, where only the text of the file tells.
    judge: Option<Judge>,
}

/// What is wrong with a value as it is written in the file.
pub(super) struct Judge {
    /// The key that the value belongs to, as messages name it.
    name: String,
    judge: Box<Judging>,
}

/// What is wrong with a value that is written like this; none if nothing is.
type Judging = dyn Fn(&str) -> Option<Fault>;

impl Judge {
    pub(super) fn new(name: String, judge: impl Fn(&str) -> Option<Fault> + 'static) -> Self {
        Self { name, judge: Box::new(judge) }
    }
}

impl fmt::Debug for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Judge").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Problem {
    pub(super) fn new(path: Vec<usize>, part: Part, fault: Fault) -> Self {
        Self { path, part, fault, judge: None }
    }

    /// One that the text of the key or the value in the file has yet to show.
    pub(super) fn as_written(path: Vec<usize>, part: Part, judge: Judge) -> Self {
        let fault = Fault { message: String::new(), help: None };
        Self { judge: Some(judge), ..Self::new(path, part, fault) }
    }

    pub(super) fn is_decided(&self) -> bool {
        self.judge.is_none()
    }

    /// The same once the value's text is known; none if nothing is wrong with it.
    pub(super) fn decided_by(self, written: Option<&str>) -> Option<Self> {
        let Some(Judge { name, judge }) = &self.judge else { return Some(self) };
        let fault = written.and_then(judge)?;
        let fault = Fault { message: format!("`{name}`: {}", fault.message), ..fault };
        Some(Self::new(self.path, self.part, fault))
    }
}
