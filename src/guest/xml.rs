//! Elements of the domain XML: what they hold, as typed values, and how a message names them.

use roxmltree::{Attribute, Node};

use super::error::{GuestError, ValueError};
use super::scaled::{amount, decimal};
use crate::cpuset::{CpuSet, NodeSet, ParseListError};
use crate::pages::{MemorySize, PageSize};

/// The most elements of one kind in one place, where the kind has no bound of its own. QEMU has at most 128 NUMA nodes,
/// and some hundred devices.
const MAX_ALIKE: usize = 1024;

/// The longest text that is kept: names of files end at 255 bytes, paths at 4096.
const MAX_TEXT: usize = 4096;

/// An element and its path below the root, such as `cputune/vcpupin[vcpu=3]`.
#[derive(Clone)]
pub(super) struct Element<'a> {
    node: Node<'a, 'a>,
    path: String,
}

impl<'a> Element<'a> {
    /// The root, whose name no path repeats.
    pub(super) fn root(node: Node<'a, 'a>) -> Self {
        Self { node, path: String::new() }
    }

    /// All elements on a path, as XPath finds them. Elements of a foreign namespace are none of libvirt's.
    ///
    /// # Errors
    /// There are more than [`MAX_ALIKE`].
    pub(super) fn find_all(&self, path: &str) -> Result<Vec<Self>, GuestError> {
        self.find_up_to(MAX_ALIKE, path)
    }

    /// As [`Self::find_all`], but so many.
    pub(super) fn find_up_to(&self, most: usize, path: &str) -> Result<Vec<Self>, GuestError> {
        path.split('/').try_fold(vec![self.clone()], |parents, name| {
            let mut found: Vec<Self> = Vec::new();
            for child in parents.iter().flat_map(|parent| parent.children(name)) {
                if found.len() == most {
                    let at = child.node.document().text_pos_at(child.node.range().start).into();
                    return Err(GuestError::TooMuch { at, most, what: format!("elements `{}`", child.path) });
                }
                found.push(child);
            }
            Ok(found)
        })
    }

    /// The first element on a path.
    pub(super) fn find(&self, path: &str) -> Option<Self> {
        match path.split_once('/') {
            None => self.children(path).next(),
            Some((name, rest)) => self.children(name).find_map(|child| child.find(rest)),
        }
    }

    /// The elements of a namespace that stand in this one.
    pub(super) fn children_in(&self, namespace: &str, name: &str) -> impl Iterator<Item = Self> {
        let is_named = move |node: &Node<'_, '_>| {
            node.is_element()
                && node.tag_name().name() == name
                && node.tag_name().namespace() == Some(namespace)
        };
        self.node.children().filter(is_named).map(move |node| Self { node, path: name.to_owned() })
    }

    fn children(&self, name: &str) -> impl Iterator<Item = Self> {
        // has_tag_name("x") would find an x of any namespace.
        let is_named = move |node: &Node<'_, '_>| {
            node.is_element() && node.tag_name().name() == name && node.tag_name().namespace().is_none()
        };
        self.node.children().filter(is_named).map(move |node| {
            let path = if self.path.is_empty() { name.to_owned() } else { format!("{}/{name}", self.path) };
            Self { node, path }
        })
    }

    /// Names the element by what tells it from its neighbours: `vcpupin[vcpu=3]`.
    pub(super) fn known_by(mut self, key: &str, value: impl std::fmt::Display) -> Self {
        self.path = format!("{}[{key}={value}]", self.path);
        self
    }

    /// An attribute as it stands there.
    pub(super) fn attribute(&self, name: &str) -> Option<&'a str> {
        // Node::attribute("x") would find an x of any namespace.
        let is_named =
            |attribute: &Attribute<'_, '_>| attribute.name() == name && attribute.namespace().is_none();
        self.node.attributes().find(is_named).map(|attribute| attribute.value())
    }

    /// All text within, as XPath's `string()`: a comment does not end it.
    pub(super) fn text(&self) -> String {
        self.node.descendants().filter(Node::is_text).filter_map(|node| node.text()).collect()
    }

    /// As [`Self::text`], of what is kept: a name, a path.
    ///
    /// # Errors
    /// It is longer than those can be.
    pub(super) fn short_text(&self) -> Result<String, GuestError> {
        let text = self.text();
        let result = if text.len() > MAX_TEXT { Err(ValueError::TooLong(MAX_TEXT)) } else { Ok(()) };
        self.judge("", &text, result)?;
        Ok(text)
    }

    /// A decimal number in an attribute.
    pub(super) fn number(&self, name: &str) -> Result<Option<u32>, GuestError> {
        self.attribute(name).map(|text| self.judge(name, text, number(text))).transpose()
    }

    /// A decimal number that has to be there.
    pub(super) fn required_number(&self, name: &str) -> Result<u32, GuestError> {
        self.number(name)?.ok_or_else(|| self.missing(name))
    }

    /// The decimal number that is the element's text.
    pub(super) fn text_number(&self) -> Result<u32, GuestError> {
        let text = self.text();
        self.judge("", &text, number(&text))
    }

    /// A number in C's notation (`0x0b`, `013`, `11`), as addresses are written; 0 without the attribute.
    pub(super) fn address_part(&self, name: &str) -> Result<u32, GuestError> {
        self.attribute(name).map_or(Ok(0), |text| self.judge(name, text, c_number(text)))
    }

    /// The set of CPUs in an attribute; libvirt allows no empty one.
    pub(super) fn cpus(&self, name: &str) -> Result<Option<CpuSet>, GuestError> {
        self.attribute(name)
            .map(|text| self.judge(name, text, set(CpuSet::from_libvirt(text), CpuSet::is_empty)))
            .transpose()
    }

    /// The set of nodes in an attribute; libvirt allows no empty one.
    pub(super) fn nodes(&self, name: &str) -> Result<Option<NodeSet>, GuestError> {
        self.attribute(name)
            .map(|text| self.judge(name, text, set(NodeSet::from_libvirt(text), NodeSet::is_empty)))
            .transpose()
    }

    /// The set of nodes that is the element's text.
    pub(super) fn text_nodes(&self) -> Result<NodeSet, GuestError> {
        let text = self.text();
        self.judge("", &text, set(NodeSet::from_libvirt(&text), NodeSet::is_empty))
    }

    /// An amount of memory in an attribute, with its unit in another.
    pub(super) fn memory(&self, name: &str) -> Result<Option<MemorySize>, GuestError> {
        self.attribute(name).map(|text| self.scaled(name, text)).transpose()
    }

    /// The amount of memory that is the element's text.
    pub(super) fn text_memory(&self) -> Result<MemorySize, GuestError> {
        self.scaled("", &self.text())
    }

    fn scaled(&self, name: &str, text: &str) -> Result<MemorySize, GuestError> {
        let unit = self.attribute("unit");
        match amount(text, unit) {
            Err(ValueError::Unit) => Err(self.bad("unit", unit.unwrap_or_default(), ValueError::Unit)),
            other => self.judge(name, text, other),
        }
    }

    /// A word out of a few.
    pub(super) fn choice<T: Copy>(
        &self,
        name: &str,
        words: &[(&str, T)],
        allowed: &'static str,
    ) -> Result<Option<T>, GuestError> {
        let Some(text) = self.attribute(name) else { return Ok(None) };
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        self.judge(name, text, found.ok_or(ValueError::Choice(allowed))).map(Some)
    }

    /// Gives an error its place.
    pub(super) fn judge<T, E: Into<ValueError>>(
        &self,
        name: &str,
        value: &str,
        result: Result<T, E>,
    ) -> Result<T, GuestError> {
        result.map_err(|reason| self.bad(name, value, reason.into()))
    }

    /// An error about an attribute, or about the element's text if the name is empty.
    pub(super) fn bad(&self, name: &str, value: &str, reason: ValueError) -> GuestError {
        GuestError::BadValue { place: self.place(name), value: value.to_owned(), reason }
    }

    /// An error about an attribute or a child that should be there.
    pub(super) fn missing(&self, name: &str) -> GuestError {
        GuestError::Missing { place: self.place(name) }
    }

    fn place(&self, name: &str) -> String {
        match (self.path.as_str(), name) {
            (path, "") => path.to_owned(),
            ("", name) => name.to_owned(),
            (path, name) => format!("{path}: {name}"),
        }
    }
}

/// A page's size; none of zero, which libvirt takes as the host's default.
pub(super) fn page_size(memory: MemorySize) -> Option<PageSize> {
    PageSize::from_kib(memory.bytes().div_ceil(1024))
}

fn number(text: &str) -> Result<u32, ValueError> {
    u32::try_from(decimal(text)?).map_err(|_| ValueError::TooLarge)
}

fn c_number(text: &str) -> Result<u32, ValueError> {
    let text = text.trim_ascii();
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if text.len() > 1 && text.starts_with('0') => (text, 8),
        None => (text, 10),
    };
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return Err(ValueError::NotANumber);
    }
    u32::from_str_radix(digits, radix).map_err(|_| ValueError::TooLarge)
}

fn set<T>(read: Result<T, ParseListError>, is_empty: fn(&T) -> bool) -> Result<T, ValueError> {
    let set = read?;
    if is_empty(&set) { Err(ValueError::EmptyList) } else { Ok(set) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_numbers_as_c_does() {
        for (text, number) in [
            ("0x0b", Ok(11)),
            ("0X1F", Ok(31)),
            ("013", Ok(11)),
            ("11", Ok(11)),
            ("0", Ok(0)),
            ("00", Ok(0)),
            ("09", Err(ValueError::NotANumber)),
            ("0x", Err(ValueError::NotANumber)),
            ("0x-1", Err(ValueError::NotANumber)),
            ("", Err(ValueError::NotANumber)),
            ("b", Err(ValueError::NotANumber)),
            ("0x100000000", Err(ValueError::TooLarge)),
        ] {
            assert_eq!(c_number(text), number, "{text:?}");
        }
    }

    #[test]
    fn finds_elements_of_no_namespace_only() {
        let xml =
            "<d xmlns:q='urn:q'><q:a><b>0</b></q:a><a q:n='7'><b>1<!-- - -->2</b></a><a><b>3</b></a></d>";
        let document = roxmltree::Document::parse(xml).unwrap();
        let root = Element::root(document.root_element());
        let texts: Vec<_> = root.find_all("a/b").unwrap().iter().map(Element::text).collect();
        assert_eq!(texts, ["12", "3"]);
        assert_eq!(root.find("a").unwrap().attribute("n"), None);
        assert!(root.find("a/c").is_none());
    }

    #[test]
    fn too_many_of_a_kind_are_refused_with_their_place() {
        let xml = format!("<d><a>{}\n </a><a><b/></a></d>", "\n<b/>".repeat(5));
        let document = roxmltree::Document::parse(&xml).unwrap();
        let root = Element::root(document.root_element());
        assert_eq!(root.find_up_to(6, "a/b").unwrap().len(), 6);
        let error = root.find_up_to(4, "a/b").map(drop).unwrap_err();
        assert_eq!(error.to_string(), "6:1: the guest's XML has more than 4 elements `a/b`");
        assert_eq!(
            root.find_up_to(1, "a/c").map(drop).unwrap_err().to_string(),
            "7:6: the guest's XML has more than 1 elements `a`"
        );
    }
}
