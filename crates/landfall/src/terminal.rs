//! Where output goes: data to stdout, findings and hints to stderr, with colours where they are wanted.

use std::borrow::Cow;
use std::io::{self, BufWriter, IsTerminal, Stderr, Stdout, Write};

use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Renderer, Snippet};
use landfall_model::{Finding, Label, Severity, Sources, Span};

use crate::cli::Color;
use crate::project::ReadError;

/// The two streams, and whether they take colours.
pub(crate) struct Terminal {
    stdout: BufWriter<Stdout>,
    stderr: Stderr,
    colored_stdout: bool,
    colored_stderr: bool,
    /// The lines at the end of the terminal that change while one looks.
    live: Vec<String>,
}

impl Terminal {
    /// Streams that use colours as `color` says.
    pub(crate) fn new(color: Color) -> Self {
        let wanted = |is_terminal: bool| match color {
            Color::Always => true,
            Color::Never => false,
            // https://no-color.org: any value that is not empty.
            Color::Auto => is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        };
        Self {
            colored_stdout: wanted(io::stdout().is_terminal()),
            colored_stderr: wanted(io::stderr().is_terminal()),
            stdout: BufWriter::new(io::stdout()),
            stderr: io::stderr(),
            live: Vec::new(),
        }
    }

    /// The stream for data.
    pub(crate) fn data(&mut self) -> &mut impl Write {
        &mut self.stdout
    }

    /// Whether stdout takes colours.
    pub(crate) fn colored(&self) -> bool {
        self.colored_stdout
    }

    /// Whether stderr takes colours.
    pub(crate) fn colors_errors(&self) -> bool {
        self.colored_stderr
    }

    /// A line that is not data: progress or a summary.
    pub(crate) fn say(&mut self, line: &str) -> io::Result<()> {
        self.stdout.flush()?;
        let text = format!("{}{line}\n{}", self.erasing(), lines(&self.live));
        self.stderr.write_all(text.as_bytes())
    }

    /// Whether lines can be changed that are printed already.
    pub(crate) fn is_live(&self) -> bool {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb" || term.is_empty());
        self.stderr.is_terminal() && !dumb
    }

    /// Whether progress takes colours.
    pub(crate) fn colored_progress(&self) -> bool {
        self.colored_stderr
    }

    /// How many characters a line has.
    pub(crate) fn columns(&self) -> usize {
        rustix::termios::tcgetwinsize(&self.stderr).map_or(80, |size| usize::from(size.ws_col).max(20))
    }

    /// Shows these lines at the end in the place of those before; none takes them away. They must fit.
    pub(crate) fn show(&mut self, live: Vec<String>) -> io::Result<()> {
        if live == self.live {
            return Ok(());
        }
        let text = format!("{}{}", self.erasing(), lines(&live));
        self.live = live;
        self.stderr.write_all(text.as_bytes())
    }

    /// Goes back to the first of the live lines, and clears from there.
    fn erasing(&self) -> String {
        if self.live.is_empty() { String::new() } else { format!("\u{1b}[{}A\u{1b}[J", self.live.len()) }
    }

    /// A line for somebody who waits: only on a terminal.
    pub(crate) fn progress(&mut self, line: &str) -> io::Result<()> {
        if self.stderr.is_terminal() { self.say(line) } else { Ok(()) }
    }

    /// The findings, a blank line after each.
    pub(crate) fn findings(&mut self, findings: &[Finding], sources: &Sources) -> io::Result<()> {
        self.stdout.flush()?;
        let renderer = if self.colored_stderr { Renderer::styled() } else { Renderer::plain() };
        let mut text = String::new();
        for finding in findings {
            text.push_str(&render(finding, sources, &renderer));
            text.push_str("\n\n");
        }
        self.stderr.write_all(text.as_bytes())
    }

    /// An error of the world with its causes, once.
    pub(crate) fn error(&mut self, error: &anyhow::Error) {
        // Nothing is left to try when not even stderr can be written to.
        let _ = self.stdout.flush();
        let prefix = if self.colored_stderr { "\u{1b}[1;91merror\u{1b}[0m" } else { "error" };
        let _ = writeln!(self.stderr, "{prefix}: {error:#}");
        if let Some(hint) = error.downcast_ref::<ReadError>().and_then(ReadError::hint) {
            let _ = writeln!(self.stderr, "hint: {hint}");
        }
    }

    /// Writes out what is buffered.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.stdout.flush()
    }
}

fn lines(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// A finding as people read it.
fn render(finding: &Finding, sources: &Sources, renderer: &Renderer) -> String {
    let level = match finding.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
        Severity::Note => Level::NOTE,
    };
    let mut group = Group::with_title(level.primary_title(&finding.message).id(finding.rule));
    for snippet in snippets(finding, sources) {
        group = group.element(snippet);
    }
    for line in &finding.why {
        group = group.element(Level::NOTE.with_name("because").message(line));
    }
    if !finding.environments.is_empty() {
        group = group.element(Level::NOTE.with_name("in").message(finding.environments.join(", ")));
    }
    let mut report = vec![group];
    if let Some(help) = &finding.help {
        report.push(Group::with_title(Level::HELP.secondary_title(help)));
    }
    renderer.render(&report)
}

/// One snippet for each file that the finding points into, the primary one first.
fn snippets<'a>(finding: &'a Finding, sources: &'a Sources) -> Vec<Snippet<'a, Annotation<'a>>> {
    let labels = std::iter::once((AnnotationKind::Primary, &finding.primary))
        .chain(finding.secondary.iter().map(|label| (AnnotationKind::Context, label)))
        .filter(|(_, label)| label.span.is_written());
    let mut by_source: Vec<(Span, Vec<(AnnotationKind, &Label)>)> = Vec::new();
    for (kind, label) in labels {
        match by_source.iter_mut().find(|(span, _)| span.source() == label.span.source()) {
            Some((_, labels)) => labels.push((kind, label)),
            None => by_source.push((label.span, vec![(kind, label)])),
        }
    }
    by_source
        .into_iter()
        .map(|(span, labels)| {
            let text = sources.text(span.source());
            let annotations = labels.into_iter().map(|(kind, label)| {
                let annotation = kind.span(first_line(text, label.span));
                if label.text.is_empty() { annotation } else { annotation.label(Cow::Borrowed(label.text.as_str())) }
            });
            Snippet::source(text).path(sources.name(span.source())).annotations(annotations)
        })
        .collect()
}

/// The part of a span on its first line: a mark over a whole section hides what it points at.
fn first_line(text: &str, span: Span) -> std::ops::Range<usize> {
    let range = span.range();
    let start = range.start.min(text.len());
    let end = range.end.clamp(start, text.len());
    let line = text[start..end].find('\n').map_or(end, |newline| start + newline);
    start..line
}
