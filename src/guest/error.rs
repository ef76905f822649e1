//! Why a guest's XML could not be read.
//!
//! The XML may hold passwords (`restore`, `migrate`), so a message quotes nothing but the one value it complains of.

use std::fmt;

use thiserror::Error;

use super::uuid::ParseUuidError;
use crate::cpuset::ParseListError;
use crate::pages::MemorySize;
use crate::printable::excerpt;

/// The largest XML that is read; the largest ones of real guests have some 100 KiB.
pub const MAX_XML_BYTES: usize = 16 * 1024 * 1024;

/// How much of a value a message quotes.
const QUOTED_CHARACTERS: usize = 64;

/// A place in the XML, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The line.
    pub line: u32,
    /// The column, in characters.
    pub column: u32,
}

/// Why a guest's XML could not be read.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum GuestError {
    /// More than [`MAX_XML_BYTES`].
    #[error("the guest's XML is larger than {}", MemorySize::from_bytes(MAX_XML_BYTES as u64))]
    TooLarge,
    /// More of something than any guest has.
    #[error("{at}: the guest's XML has more than {most} {what}")]
    TooMuch {
        /// What is one too many, or the element that has it.
        at: Position,
        /// How many there may be.
        most: usize,
        /// The part of the XML, in words.
        what: String,
    },
    /// Bytes that are no UTF-8.
    #[error("{at}: the guest's XML is not UTF-8")]
    NotUtf8 {
        /// The first such byte.
        at: Position,
    },
    /// Not well-formed.
    #[error("{at}: the guest's XML is broken: {problem}")]
    Broken {
        /// Where the parser stopped.
        at: Position,
        /// What it stopped at, in words of its own.
        problem: &'static str,
    },
    /// The end before the end: a download or a copy that was cut off.
    #[error("{at}: the guest's XML ends here, before its end: it is cut off")]
    CutOff {
        /// The end of the text.
        at: Position,
    },
    /// Some other kind of file.
    #[error("this is no XML")]
    NotXml,
    /// A document type declaration with declarations in it, which could be entities.
    #[error("the guest's XML has a DOCTYPE with declarations in it, which are not read")]
    Dtd,
    /// Another XML file of libvirt's.
    #[error("{at}: this is libvirt's status file (`domstatus`), not a guest's XML (`domain`)")]
    StatusFile {
        /// The root element.
        at: Position,
    },
    /// Some other XML.
    #[error("{at}: this is no guest's XML (`domain`): {}", in_words(root))]
    NotADomain {
        /// The root element.
        at: Position,
        /// The name of the element.
        root: String,
    },
    /// Something that every guest has.
    #[error("the guest's XML has no {place}")]
    Missing {
        /// The element's path, and the attribute if it is one.
        place: String,
    },
    /// `<vcpus>` has the first vCPU off.
    #[error("the guest's XML has vCPU 0 off in <vcpus>, without which no guest starts")]
    FirstVcpuOff,
    /// A value that means nothing.
    #[error("{place} `{}`: {reason}", excerpt(value, QUOTED_CHARACTERS))]
    BadValue {
        /// The element's path, and the attribute if it is one.
        place: String,
        /// The value as it stands there.
        value: String,
        /// What is wrong with it.
        reason: ValueError,
    },
}

/// What is wrong with a value.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ValueError {
    /// No number, or one with a sign or a fraction.
    #[error("not a whole number")]
    NotANumber,
    /// A number beyond what the place allows.
    #[error("too large")]
    TooLarge,
    /// A text beyond all names and paths.
    #[error("longer than {0} bytes")]
    TooLong(usize),
    /// Zero where there has to be something.
    #[error("must be at least 1")]
    Zero,
    /// No unit of libvirt's.
    #[error("no unit that libvirt knows (b, KiB, MiB, GiB …)")]
    Unit,
    /// No list of CPUs or nodes.
    #[error("{}", excerpt(&.0.to_string(), 2 * QUOTED_CHARACTERS))]
    List(ParseListError),
    /// A list that holds nothing.
    #[error("names nothing")]
    EmptyList,
    /// No UUID.
    #[error("not a UUID")]
    Uuid(#[from] ParseUuidError),
    /// None of the words that may stand there.
    #[error("not one of {0}")]
    Choice(&'static str),
    /// A second element about the same thing.
    #[error("is there twice")]
    Twice,
    /// A slot above 31 or a function above 7.
    #[error("no PCI device has that")]
    Pci,
    /// A memory device on a node that the guest has not.
    #[error("the guest has no such NUMA cell")]
    NoSuchCell,
}

/// The roots of libvirt's other files, and what those are: one a line, as an array costs two relocations each.
const OTHER_FILES: &str = "\
capabilities what a host can do
cpu a CPU
device a host's device
devices the devices of a guest
disk a disk
domainCapabilities what QEMU can do
domainbackup a backup
domaincheckpoint a checkpoint
domainsnapshot a snapshot
domstatus a guest that runs
filter a network filter
hostdev a device
interface a network interface
network a network
networkport a port of a network
pool a storage pool
secret a secret
volume a storage volume";

/// What XML with this root is.
fn in_words(root: &str) -> String {
    let quoted = excerpt(root, QUOTED_CHARACTERS);
    match OTHER_FILES.lines().filter_map(|line| line.split_once(' ')).find(|(known, _)| *known == root) {
        Some((_, what)) => format!("it describes {what} (`{quoted}`)"),
        None => format!("its root element is `{quoted}`"),
    }
}

impl GuestError {
    /// What a person can do about it who gave the file.
    #[must_use]
    pub fn help(&self) -> &'static str {
        const WHERE: &str = "`virsh dumpxml --inactive GUEST > FILE` writes a guest's XML, `virsh list --all` names the guests";
        match self {
            Self::TooLarge | Self::TooMuch { .. } => "no guest has that much: is it the right file?",
            Self::NotUtf8 { .. } => "save it as UTF-8, or let `virsh dumpxml` write it",
            Self::StatusFile { .. } => "the guest's XML is /etc/libvirt/qemu/GUEST.xml",
            Self::NotADomain { root, .. } if root == "domainsnapshot" => {
                "the guest is the <domain> in it, in a file of its own"
            }
            Self::Broken { .. } => {
                "`xmllint --noout FILE` shows the place; `virsh dumpxml GUEST` writes it anew"
            }
            Self::CutOff { .. } | Self::NotXml | Self::NotADomain { .. } => WHERE,
            Self::Dtd => "remove the DOCTYPE: libvirt has none",
            Self::Missing { .. } | Self::FirstVcpuOff | Self::BadValue { .. } => {
                "libvirt does not take it so either: fix it in the file, or with `virsh edit`"
            }
        }
    }
}

// Not its source: the message tells it already.
impl From<ParseListError> for ValueError {
    fn from(error: ParseListError) -> Self {
        Self::List(error)
    }
}

impl Position {
    /// The place of a byte; of the end if the text is shorter.
    pub(super) fn of_byte(text: &[u8], offset: usize) -> Self {
        let before = String::from_utf8_lossy(&text[..offset.min(text.len())]);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX).saturating_add(1);
        Self {
            line: count(before.matches('\n').count()),
            column: count(before[line_start..].chars().count()),
        }
    }
}

impl From<roxmltree::TextPos> for Position {
    fn from(position: roxmltree::TextPos) -> Self {
        Self { line: position.row, column: position.col }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

impl From<roxmltree::Error> for GuestError {
    /// Keeps the position only: roxmltree's own texts quote names, and in a broken file anything may look like a name.
    fn from(error: roxmltree::Error) -> Self {
        use roxmltree::Error;

        let problem = match &error {
            Error::DtdDetected => return Self::Dtd,
            // Never of a text that was looked over before.
            Error::NodesLimitReached | Error::AttributesLimitReached | Error::NamespacesLimitReached => {
                "more in it than can be read"
            }
            Error::NoRootNode => "there is no element in it",
            Error::UnexpectedCloseTag(..) => "an element is closed under another name",
            Error::UnknownNamespace(..) => "a prefix that is declared nowhere",
            Error::DuplicatedNamespace(..) | Error::DuplicatedAttribute(..) => "an attribute is there twice",
            Error::UnknownEntityReference(..) | Error::MalformedEntityReference(_) => {
                "a `&` that starts no known entity"
            }
            Error::InvalidAttributeValue(_) => "a `<` in an attribute",
            Error::NonXmlChar(..) => "a character that XML does not allow",
            _ => "not well-formed here",
        };
        Self::Broken { at: error.pos().into(), problem }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_libvirts_has_one_name() {
        let names = OTHER_FILES.lines().map(|line| line.split_once(' ').unwrap().0);
        assert!(names.is_sorted_by(|one, next| one < next));
    }

    #[test]
    fn finds_the_line_and_column_of_a_byte() {
        let text = "é<\nab\u{1f600}c".as_bytes();
        for (offset, line, column) in [(0, 1, 1), (2, 1, 2), (4, 2, 1), (10, 2, 4), (99, 2, 5)] {
            assert_eq!(Position::of_byte(text, offset), Position { line, column }, "{offset}");
        }
    }
}
