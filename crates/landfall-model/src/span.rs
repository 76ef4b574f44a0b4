//! Where a value was written: sources, spans and the values that carry them.
//!
//! Every leaf of the document is a [`Spanned`], so that a finding can point at the character to change. A value
//! that nobody wrote (a default) has [`Span::NONE`].

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

/// A file that was read, by its place in [`Sources`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(pub(crate) u16);

/// A range of bytes in one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    source: SourceId,
    start: u32,
    end: u32,
}

impl Span {
    /// The place of a value that nobody wrote.
    pub const NONE: Self = Self { source: SourceId(u16::MAX), start: 0, end: 0 };

    /// A range of bytes in `source`; `end` is exclusive.
    pub fn new(source: SourceId, start: usize, end: usize) -> Self {
        let clamp = |offset: usize| u32::try_from(offset).unwrap_or(u32::MAX);
        Self { source, start: clamp(start), end: clamp(end.max(start)) }
    }

    /// Whether somebody wrote the value, as opposed to a default.
    pub fn is_written(self) -> bool {
        self != Self::NONE
    }

    /// The source; meaningless for [`Span::NONE`].
    pub fn source(self) -> SourceId {
        self.source
    }

    /// Bytes from the beginning of the source.
    pub fn range(self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }

    /// From the beginning of `self` to the end of `other`, when both are in one source.
    #[must_use]
    pub fn to(self, other: Self) -> Self {
        if self.source == other.source { Self { end: other.end.max(self.end), ..self } } else { self }
    }
}

/// A value and the place where it was written.
///
/// Comparison, hashing and ordering look at the value alone.
#[derive(Clone, Copy)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Where it stands, or [`Span::NONE`] for a default.
    pub span: Span,
}

impl<T> Spanned<T> {
    /// A value that stands at `span`.
    pub fn new(value: T, span: Span) -> Self {
        Self { value, span }
    }

    /// A value that nobody wrote.
    pub fn unwritten(value: T) -> Self {
        Self { value, span: Span::NONE }
    }
}

impl<T> Deref for Spanned<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: fmt::Debug> fmt::Debug for Spanned<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

impl<T: fmt::Display> fmt::Display for Spanned<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

impl<T: Default> Default for Spanned<T> {
    fn default() -> Self {
        Self::unwritten(T::default())
    }
}

impl<T: PartialEq> PartialEq for Spanned<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T: Eq> Eq for Spanned<T> {}

impl<T: PartialOrd> PartialOrd for Spanned<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.value.partial_cmp(&other.value)
    }
}

impl<T: Ord> Ord for Spanned<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.value.cmp(&other.value)
    }
}

impl<T: Hash> Hash for Spanned<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.value.hash(state);
    }
}

impl<T: Borrow<str>> Borrow<str> for Spanned<T> {
    fn borrow(&self) -> &str {
        self.value.borrow()
    }
}

/// The files that were read, with their texts.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    files: Vec<Source>,
}

#[derive(Debug, Clone)]
struct Source {
    name: String,
    text: String,
    line_starts: Vec<u32>,
}

/// A place as people count it: both numbers begin at 1, columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl Sources {
    /// Adds a file and returns its id.
    ///
    /// # Panics
    /// With more than 65,534 files.
    pub fn add(&mut self, name: impl Into<String>, text: impl Into<String>) -> SourceId {
        let id = u16::try_from(self.files.len()).ok().filter(|id| *id < u16::MAX).expect("fewer than 65,535 files");
        let text = text.into();
        let newline =
            |(index, byte): (usize, u8)| (byte == b'\n').then(|| u32::try_from(index + 1).unwrap_or(u32::MAX));
        let line_starts = std::iter::once(0).chain(text.bytes().enumerate().filter_map(newline)).collect();
        self.files.push(Source { name: name.into(), text, line_starts });
        SourceId(id)
    }

    fn get(&self, id: SourceId) -> Option<&Source> {
        self.files.get(usize::from(id.0))
    }

    /// The name under which a file was added; empty for an unknown one.
    pub fn name(&self, id: SourceId) -> &str {
        self.get(id).map_or("", |file| &file.name)
    }

    /// The text of a file; empty for an unknown one.
    pub fn text(&self, id: SourceId) -> &str {
        self.get(id).map_or("", |file| &file.text)
    }

    /// Where `span` begins, or `None` for a value that nobody wrote.
    pub fn position(&self, span: Span) -> Option<Position> {
        let file = self.get(span.source)?;
        let line = file.line_starts.partition_point(|start| *start <= span.start).max(1);
        let line_start = file.line_starts[line - 1] as usize;
        let before = file.text.get(line_start..span.start as usize).unwrap_or_default();
        Some(Position { line, column: before.chars().count() + 1 })
    }

    /// `landfall.yaml:7`, or `None` for a value that nobody wrote.
    pub fn line_reference(&self, span: Span) -> Option<String> {
        self.position(span).map(|position| format!("{}:{}", self.name(span.source), position.line))
    }
}
