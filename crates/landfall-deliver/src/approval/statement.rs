//! What a person signs: a few lines that can be read before they are signed, and read back as they were written only.

use std::collections::BTreeMap;

use jiff::Timestamp;

/// The first line.
const TITLE: &str = "landfall statement 1";

/// What a person says about something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Whether it may go on.
    pub decision: Decision,
    /// The architecture.
    pub architecture: String,
    /// The namespace.
    pub namespace: String,
    /// What it is about: a release, a list of signers, or a kind of evidence.
    pub subject: String,
    /// The digest of that.
    pub digest: String,
    /// The images that are shipped, by service: for the reader, as the digest has them.
    pub images: BTreeMap<String, String>,
    /// When it was said.
    pub at: Timestamp,
    /// Until when it counts at most.
    pub until: Timestamp,
    /// Why.
    pub because: Option<String>,
}

/// What is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It may go on.
    Approve,
    /// It must not.
    Reject,
    /// It is so.
    Confirm,
}

impl Decision {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Reject => "reject",
            Self::Confirm => "confirm",
        }
    }

    /// Whether only those count who are asked for approval.
    pub(crate) fn needs_a_group(self) -> bool {
        matches!(self, Self::Approve | Self::Reject)
    }
}

impl Statement {
    /// The text that is signed.
    pub fn text(&self) -> String {
        let mut lines = vec![
            TITLE.to_owned(),
            format!("decision: {}", self.decision.as_str()),
            format!("architecture: {}", self.architecture),
            format!("namespace: {}", self.namespace),
            format!("subject: {}", self.subject),
            format!("digest: {}", self.digest),
        ];
        lines.extend(self.images.iter().map(|(service, image)| format!("image: {service} {image}")));
        lines.push(format!("at: {}", self.at));
        lines.push(format!("until: {}", self.until));
        // One line: a second one could pass for another field.
        lines.extend(self.because.as_ref().map(|why| format!("because: {}", why.replace(['\n', '\r'], " "))));
        lines.join("\n") + "\n"
    }

    /// Reads what [`Self::text`] has written; what would be written otherwise is refused.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut fields: BTreeMap<&str, &str> = BTreeMap::new();
        let mut images = BTreeMap::new();
        let mut lines = text.lines();
        if lines.next() != Some(TITLE) {
            return Err(format!("a statement begins with `{TITLE}`"));
        }
        for line in lines {
            let (key, value) = line.split_once(": ").ok_or_else(|| format!("`{line}` is no `key: value`"))?;
            if key == "image" {
                let (service, image) = value.split_once(' ').ok_or_else(|| format!("`{value}` names no image"))?;
                images.insert(service.to_owned(), image.to_owned());
            } else {
                fields.insert(key, value);
            }
        }
        let field = |key: &str| fields.get(key).copied().ok_or_else(|| format!("the statement has no `{key}`"));
        let time = |key: &str| field(key)?.parse::<Timestamp>().map_err(|error| format!("`{key}` is no time: {error}"));
        let decision = match field("decision")? {
            "approve" => Decision::Approve,
            "reject" => Decision::Reject,
            "confirm" => Decision::Confirm,
            other => return Err(format!("`{other}` is no decision")),
        };
        let statement = Self {
            decision,
            architecture: field("architecture")?.to_owned(),
            namespace: field("namespace")?.to_owned(),
            subject: field("subject")?.to_owned(),
            digest: field("digest")?.to_owned(),
            images,
            at: time("at")?,
            until: time("until")?,
            because: fields.get("because").map(|why| (*why).to_owned()),
        };
        if statement.text() == text {
            Ok(statement)
        } else {
            Err("the statement is not written as it is read".to_owned())
        }
    }
}
