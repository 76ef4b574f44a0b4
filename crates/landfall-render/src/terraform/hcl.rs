//! Writing HCL as `tofu fmt` lays it out.
//!
//! Crates for HCL write it without the alignment that `fmt -check` asks for, so the layout is ours; a real parser and the
//! real formatter read the result in the tests. Only what the roots need is here; the modules are plain files.

use std::fmt::Write as _;

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// A text, which is quoted.
    Text(String),
    /// An expression as it stands, such as `module.network.network_id`.
    Expression(String),
    /// Values in brackets.
    List(Vec<Value>),
    /// Values by key.
    Object(Vec<(String, Value)>),
}

impl Value {
    /// A list of texts.
    pub(super) fn texts<T: ToString>(items: impl IntoIterator<Item = T>) -> Self {
        Self::List(items.into_iter().map(|item| Self::Text(item.to_string())).collect())
    }

    /// An object.
    pub(super) fn object<K: ToString>(fields: impl IntoIterator<Item = (K, Self)>) -> Self {
        Self::Object(fields.into_iter().map(|(key, value)| (key.to_string(), value)).collect())
    }
}

/// An expression as it stands.
pub(super) fn raw(expression: impl Into<String>) -> Value {
    Value::Expression(expression.into())
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Expression(value.to_string())
    }
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Expression(value.to_string())
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::Expression(value.to_string())
    }
}

/// A block, or with no words the content of a file.
#[derive(Debug, Clone, Default)]
pub(super) struct Block {
    comment: Option<String>,
    head: String,
    attributes: Vec<(String, Value)>,
    blocks: Vec<Block>,
}

impl Block {
    /// A block of a type with labels.
    pub(super) fn new(kind: &str, labels: &[&str]) -> Self {
        let labels: String = labels.iter().map(|label| format!(" {}", quoted(label))).collect();
        Self { head: format!("{kind}{labels}"), ..Self::default() }
    }

    /// With a line above it, which says why it is there.
    pub(super) fn comment(mut self, text: impl Into<String>) -> Self {
        self.comment = Some(text.into());
        self
    }

    /// With an attribute.
    pub(super) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.attributes.push((name.to_owned(), value.into()));
        self
    }

    /// With a block in it.
    pub(super) fn block(mut self, block: Block) -> Self {
        self.blocks.push(block);
        self
    }
}

/// The text of a file with these blocks.
pub(super) fn file(blocks: &[Block]) -> String {
    let texts: Vec<String> = blocks.iter().map(|block| of_block(block, 0)).collect();
    texts.join("\n")
}

fn of_block(block: &Block, depth: usize) -> String {
    let indent = "  ".repeat(depth);
    let mut text = block.comment.iter().map(|comment| format!("{indent}# {comment}\n")).collect::<String>();
    if block.attributes.is_empty() && block.blocks.is_empty() {
        let _ = writeln!(text, "{indent}{} {{}}", block.head);
        return text;
    }
    let _ = writeln!(text, "{indent}{} {{", block.head);
    text += &assignments(&block.attributes, depth + 1);
    for (index, inner) in block.blocks.iter().enumerate() {
        if index > 0 || !block.attributes.is_empty() {
            text.push('\n');
        }
        text += &of_block(inner, depth + 1);
    }
    let _ = writeln!(text, "{indent}}}");
    text
}

/// One `name = value` a line, aligned where lines follow each other; a value of several lines stands apart.
fn assignments(fields: &[(String, Value)], depth: usize) -> String {
    let indent = "  ".repeat(depth);
    let written: Vec<(&str, String)> =
        fields.iter().map(|(name, value)| (name.as_str(), of_value(value, depth))).collect();
    let mut text = String::new();
    let mut rest = written.as_slice();
    while let Some((name, value)) = rest.first() {
        if !text.is_empty() {
            text.push('\n');
        }
        if value.contains('\n') {
            let _ = writeln!(text, "{indent}{name} = {value}");
            rest = &rest[1..];
            continue;
        }
        let count = rest.iter().take_while(|(_, value)| !value.contains('\n')).count();
        let width = rest[..count].iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
        for (name, value) in &rest[..count] {
            let _ = writeln!(text, "{indent}{name:width$} = {value}");
        }
        rest = &rest[count..];
    }
    text
}

fn of_value(value: &Value, depth: usize) -> String {
    match value {
        Value::Text(text) => quoted(text),
        Value::Expression(expression) => expression.clone(),
        Value::List(items) => {
            let items: Vec<String> = items.iter().map(|item| of_value(item, depth)).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(fields) if fields.is_empty() => "{}".to_owned(),
        Value::Object(fields) => {
            let fields: Vec<_> = fields.iter().map(|(key, value)| (key_of(key), value.clone())).collect();
            format!("{{\n{}{}}}", assignments(&fields, depth + 1), "  ".repeat(depth))
        }
    }
}

/// A key of an object: bare where it is a name.
fn key_of(key: &str) -> String {
    let bare = key.starts_with(|c: char| c.is_ascii_alphabetic())
        && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    if bare { key.to_owned() } else { quoted(key) }
}

/// A text in quotes; nothing in it is a template.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '$' | '%' if rest.peek() == Some(&'{') => quoted.extend([c, c]),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
