//! How much of everything a guest's XML may have. The parser's time grows with the square of some of it, so the text is
//! looked over once before it is parsed.

use std::ops::Range;

use super::error::{GuestError, Position};

/// Attributes of one element: libvirt's have at most some twenty.
const ATTRIBUTES: Bound = Bound { most: 256, what: "attributes on one element" };
/// Attributes of all elements.
const ALL_ATTRIBUTES: Bound = Bound { most: 250_000, what: "attributes" };
/// Namespaces that one element and those around it declare: the parser copies them to each element that declares one
/// more. libvirt's own root declares one.
const NAMESPACES: Bound =
    Bound { most: 256, what: "namespace declarations on one element and those around it" };
/// Namespaces that are declared anywhere, in `<metadata>` for example.
const ALL_NAMESPACES: Bound = Bound { most: 1024, what: "namespace declarations" };
/// Elements inside each other: what libvirt reads with (libxml2) gives up at 256, or at 2048 where it is told to go on.
const DEPTH: Bound = Bound { most: 2048, what: "elements inside each other" };
/// Elements, comments and the like: 4 MiB, the most that libvirt's own protocol carries in one string, have no more.
const MARKUP: Bound = Bound { most: 250_000, what: "elements, comments and other markup" };
/// Signs that the parser sets memory aside for, wherever they stand.
const SIGNS: usize = 1_000_000;

/// The most nodes that the parser may make of what was looked over: one for each piece of markup, one for the text after
/// it, and the root.
pub(super) const MAX_NODES: u32 = 2 * 250_000 + 2;

#[derive(Clone, Copy)]
struct Bound {
    most: usize,
    what: &'static str,
}

/// What a look over the text comes to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Overview {
    /// A document type declaration before the first element, with nothing declared in it: `<!DOCTYPE domain>`.
    pub(super) doctype: Option<Range<usize>>,
    /// The name of the first element; none where there is none.
    pub(super) root: Option<Range<usize>>,
}

/// Looks a text over. What is no XML may get through: the parser stops where it finds that, and all before is within
/// the bounds.
pub(super) fn check(text: &str) -> Result<Overview, GuestError> {
    for (sign, what) in [('<', "`<`"), ('=', "`=`")] {
        if let Some((at, _)) = text.match_indices(sign).nth(SIGNS) {
            return Err(Look::new(text).beyond(Bound { most: SIGNS, what }, at));
        }
    }
    let mut look = Look::new(text);
    look.run()?;
    Ok(look.overview)
}

/// What was counted so far.
struct Look<'t> {
    text: &'t str,
    /// The elements that are open, each with the namespace declarations that it is within.
    open: Vec<usize>,
    markup: usize,
    attributes: usize,
    namespaces: usize,
    overview: Overview,
}

/// How a start tag ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TagEnd {
    /// `>`
    Open,
    /// `/>`
    Empty,
}

impl<'t> Look<'t> {
    fn new(text: &'t str) -> Self {
        let overview = Overview::default();
        Self { text, open: Vec::new(), markup: 0, attributes: 0, namespaces: 0, overview }
    }

    fn run(&mut self) -> Result<(), GuestError> {
        let mut at = 0;
        while let Some(start) = self.find("<", at) {
            self.markup += 1;
            self.hold(MARKUP, self.markup, start)?;
            let rest = &self.text[start..];
            let end = if rest.starts_with("<!--") {
                self.after("-->", start + "<!--".len())
            } else if rest.starts_with("<![CDATA[") {
                self.after("]]>", start + "<![CDATA[".len())
            } else if rest.starts_with("<?") {
                self.after("?>", start + "<?".len())
            } else if rest.starts_with("</") {
                self.open.pop();
                self.after(">", start)
            } else if rest.starts_with("<!DOCTYPE") && self.overview == Overview::default() {
                // With declarations in it it is left to the parser, which takes none.
                let end = self.after(">", start).filter(|end| !self.text[start..*end].contains('['));
                self.overview.doctype = end.map(|end| start..end);
                end
            } else if rest.starts_with("<!") {
                None
            } else {
                if self.overview.root.is_none() {
                    self.overview.root = Some(self.name_from(start + 1));
                }
                self.start_tag(start)?
            };
            match end {
                Some(end) => at = end,
                None => break,
            }
        }
        Ok(())
    }

    /// Counts what is in a start tag; where it ends, or none where the parser does not get to its end either.
    fn start_tag(&mut self, start: usize) -> Result<Option<usize>, GuestError> {
        let bytes = self.text.as_bytes();
        let (mut attributes, mut namespaces) = (0, self.open.last().copied().unwrap_or_default());
        let mut at = start + 1;
        let end = loop {
            match bytes.get(at) {
                Some(quote @ (b'"' | b'\'')) => {
                    let Some(closing) = bytes[at + 1..].iter().position(|byte| byte == quote) else {
                        return Ok(None);
                    };
                    at += closing + 1;
                }
                Some(b'=') => {
                    if is_namespace(name_before(&self.text[start..at])) {
                        namespaces += 1;
                        self.namespaces += 1;
                        self.hold(NAMESPACES, namespaces, start)?;
                        self.hold(ALL_NAMESPACES, self.namespaces, start)?;
                    } else {
                        attributes += 1;
                        self.attributes += 1;
                        self.hold(ATTRIBUTES, attributes, start)?;
                        self.hold(ALL_ATTRIBUTES, self.attributes, start)?;
                    }
                }
                Some(b'>') if bytes[at - 1] == b'/' => break TagEnd::Empty,
                Some(b'>') => break TagEnd::Open,
                Some(b'<') | None => return Ok(None),
                Some(_) => {}
            }
            at += 1;
        };
        if end == TagEnd::Open {
            self.open.push(namespaces);
            self.hold(DEPTH, self.open.len(), start)?;
        }
        Ok(Some(at + 1))
    }

    fn name_from(&self, begins: usize) -> Range<usize> {
        let ends = self.text[begins..].find(|character: char| {
            character.is_ascii_whitespace() || matches!(character, '/' | '>' | '<' | '=')
        });
        begins..ends.map_or(self.text.len(), |ends| begins + ends)
    }

    fn find(&self, what: &str, from: usize) -> Option<usize> {
        self.text.get(from..)?.find(what).map(|found| from + found)
    }

    fn after(&self, what: &str, from: usize) -> Option<usize> {
        self.find(what, from).map(|found| found + what.len())
    }

    fn hold(&self, bound: Bound, count: usize, at: usize) -> Result<(), GuestError> {
        if count > bound.most { Err(self.beyond(bound, at)) } else { Ok(()) }
    }

    fn beyond(&self, Bound { most, what }: Bound, at: usize) -> GuestError {
        GuestError::TooMuch { at: Position::of_byte(self.text.as_bytes(), at), most, what: what.to_owned() }
    }
}

/// The name that an attribute's `=` follows.
fn name_before(text: &str) -> &str {
    let text = text.trim_end_matches([' ', '\t', '\r', '\n']);
    let begins = text.rfind([' ', '\t', '\r', '\n', '"', '\'', '=', '<']).map_or(0, |before| before + 1);
    &text[begins..]
}

/// The parser takes `a:xmlns` for a declaration too.
fn is_namespace(name: &str) -> bool {
    name.split(':').any(|part| part == "xmlns")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::Look;
    use crate::guest::testing::guest;
    use crate::guest::{Guest, MAX_XML_BYTES};

    fn refusal(xml: &str) -> String {
        Guest::parse(xml.as_bytes()).unwrap_err().to_string()
    }

    fn attributes(count: usize) -> String {
        (0..count).map(|number| format!(" a{number}=''")).collect()
    }

    fn namespaces(count: usize) -> String {
        (0..count).map(|number| format!(" xmlns:n{number}='u{number}'")).collect()
    }

    fn nested(depth: usize) -> String {
        format!("{}{}", "<a>".repeat(depth), "</a>".repeat(depth))
    }

    #[test]
    fn up_to_the_bounds_all_is_read_and_beyond_refused_with_the_place() {
        let domain = |inner: &str| format!("<domain>\n {inner}</domain>");
        let inherited = |count: usize| {
            let opened: String = (0..count).map(|number| format!("<a xmlns:n{number}='u'>")).collect();
            format!("{opened}{}", "</a>".repeat(count))
        };
        let declared = |count: usize| "<a xmlns:n='u'/>".repeat(count);
        let is_read = "the guest's XML has no name";
        for (inside, beyond, message) in [
            (
                format!("<a{}/>", attributes(256)),
                format!("<a{}/>", attributes(257)),
                "2:2: the guest's XML has more than 256 attributes on one element",
            ),
            (
                format!("<a{}/>", namespaces(256)),
                format!("<a{}/>", namespaces(257)),
                "2:2: the guest's XML has more than 256 namespace declarations on one element and those around it",
            ),
            (
                inherited(256),
                inherited(257),
                "2:4500: the guest's XML has more than 256 namespace declarations on one element and those around it",
            ),
            (
                declared(1024),
                declared(1025),
                "2:16386: the guest's XML has more than 1024 namespace declarations",
            ),
            (
                nested(2047),
                nested(2048),
                "2:6143: the guest's XML has more than 2048 elements inside each other",
            ),
            (
                "<a/>".repeat(249_998),
                "<a/>".repeat(250_000),
                "2:999998: the guest's XML has more than 250000 elements, comments and other markup",
            ),
            (
                "<!---->".repeat(100_000),
                "<!---->".repeat(250_000),
                "2:1749995: the guest's XML has more than 250000 elements, comments and other markup",
            ),
            (
                format!("<a{}/>", attributes(250)).repeat(1000),
                format!("<a{}/>", attributes(250)).repeat(1001),
                "2:1894002: the guest's XML has more than 250000 attributes",
            ),
            (
                format!("<![CDATA[{}]]>", "<".repeat(900_000)),
                format!("<![CDATA[{}]]>", "<".repeat(1_000_000)),
                "2:1000009: the guest's XML has more than 1000000 `<`",
            ),
            (
                "=".repeat(1_000_000),
                "=".repeat(1_000_001),
                "2:1000002: the guest's XML has more than 1000000 `=`",
            ),
        ] {
            let began = Instant::now();
            assert_eq!(refusal(&domain(&inside)), is_read, "{message}");
            assert_eq!(refusal(&domain(&beyond)), message);
            assert!(began.elapsed() < Duration::from_secs(20), "{message}: {:?}", began.elapsed());
        }
    }

    #[test]
    fn nothing_that_is_hostile_takes_long() {
        let filled = |begin: &str, each: &str| {
            format!("{begin}{}", each.repeat((MAX_XML_BYTES / 4 - begin.len()) / each.len()))
        };
        for xml in [
            format!("<domain{}/>", attributes(60_000)),
            format!("<domain{}/>", namespaces(70_000)),
            format!("<domain{}/>", " a:xmlns='u'".repeat(70_000)),
            filled("<domain>", "<a>"),
            filled("<domain>", "<a x='<' y=\">\""),
            filled("<domain>", "<!-- <a b=''> -->"),
            filled("<domain><a ", "b = '=' "),
            filled("<domain ", "="),
            filled("<domain ", " "),
            filled("<domain ", "'"),
            filled("", "<"),
            filled("<", "a"),
            filled("<domain>", "&amp;"),
            filled("<domain>", "]]"),
            filled("<domain>", "<![CDATA[x]]>"),
            filled("<domain><a b='", "&#x9;"),
            filled("<domain><uuid>", "é"),
        ] {
            let began = Instant::now();
            assert!(Guest::parse(xml.as_bytes()).is_err());
            let (took, start) = (began.elapsed(), &xml[..30.min(xml.len())]);
            assert!(took < Duration::from_secs(20), "{start}: {took:?}");
        }
    }

    #[test]
    fn what_only_looks_like_markup_does_not_count() {
        let much = 300;
        for inner in [
            format!("<!-- <a {}> -->", namespaces(much)),
            format!("<metadata><![CDATA[<a {}>]]></metadata>", namespaces(much)),
            format!("<?pi <a {}> ?>", namespaces(much)),
            format!("<metadata a=\"{}\"/>", namespaces(much)),
            format!("<metadata a = '>' b\n=\t\"'>\" >{}</metadata>", "xmlns:a=".repeat(much)),
            format!("<metadata>{}</metadata>", "<a></a>".repeat(3000)),
            format!("<metadata>{}</metadata>", "<a b='/'/>".repeat(3000)),
        ] {
            guest(&inner);
        }
    }

    /// Well-formed pieces that a careless look would take for something else.
    const PIECES: [&str; 12] = [
        "<a/>",
        "<a x='>' y=\"/>\"/>",
        "<a x = '=' y\n=\t\"xmlns='\">='/'</a >",
        "<a xmlns:q='u' q:b='1' xmlns='v'><q:c/></a>",
        "<!-- <a x='1'> ' \" -->",
        "<![CDATA[</a><!-- ]] > ' ]]>",
        "<?p <a x='1'> ?>",
        "text ' \" = / é\u{1f600} &lt;a&gt;",
        "<é ü='é'/>",
        "<a-b.c:d xmlns:a-b.c='u' a-b.c:xmlnsx='1' xml:lang='x'/>",
        "<a x='/'/>",
        "<a x=''><b y=\"'\"></b></a>",
    ];

    proptest! {
        #[test]
        fn as_much_is_counted_as_the_parser_finds(
            pieces in proptest::collection::vec(proptest::sample::select(&PIECES[..]), 0..20), depth in 0_usize..4,
        ) {
            let text = format!("<?xml version='1.0'?>{}{}{}", "<d>".repeat(depth + 1), pieces.concat(), "</d>".repeat(depth + 1));
            let document = roxmltree::Document::parse(&text).unwrap();
            let mut look = Look::new(&text);
            look.run().unwrap();
            let nodes = document.descendants().filter(|node| !node.is_text() && !node.is_root()).count();
            prop_assert!(look.markup >= nodes, "{} of {nodes}", look.markup);
            prop_assert_eq!(look.attributes, document.descendants().map(|node| node.attributes().len()).sum::<usize>());
            prop_assert_eq!(look.namespaces, text.matches("xmlns:q=").count() + text.matches(" xmlns='v'").count()
                + text.matches("xmlns:a-b.c=").count());
            prop_assert!(look.open.is_empty());
        }
    }

    #[test]
    fn what_libvirt_takes_is_read() {
        let arguments: String =
            (0..20_000).map(|number| format!("<qemu:arg value='-set device.x{number}=é'/>")).collect();
        let foreign: String =
            (0..1000).map(|number| format!("<n:x xmlns:n='urn:{number}'>\u{1f600}</n:x>")).collect();
        guest(&format!("<metadata>{foreign}</metadata>"));
        guest(&format!(
            "<q:commandline xmlns:q='urn:q'>{}</q:commandline>",
            arguments.replace("qemu:", "q:")
        ));
    }
}
