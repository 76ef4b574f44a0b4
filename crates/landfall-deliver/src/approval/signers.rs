//! Who may approve: a list in the format of OpenSSH's `allowed_signers`, kept in the cluster, which only those change who are in
//! it. Pure but for reading and writing it.
//!
//! The first list is taken as it comes. Each later one is valid when as many of the list before have signed its digest as a
//! release needs. Whoever writes one past that, administrators included, has written a list that does not count.

use jiff::{SignedDuration, Timestamp, civil, tz::TimeZone};
use kube::{Client, CustomResource};
use serde::{Deserialize, Serialize};
use serde_json::json;
use ssh_key::PublicKey;

use super::{ApprovalSpec, Expiry, SIGNATURE_NAMESPACE, Subject, Tally, approvals, digest_of};
use crate::audit::{Action, Author, Fact};
use crate::cluster::records::{self, Record};
use crate::cluster::{ClusterError, During as _};
use crate::release::sorted;

/// How far the clocks of two machines may be apart.
pub(crate) const SKEW: SignedDuration = SignedDuration::from_mins(5);

/// The longest time for which an approval counts, in seconds: ten years.
const LONGEST: i64 = 315_360_000;

/// A list of signers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomResource)]
#[kube(
    group = "landfall.dev",
    version = "v1alpha1",
    kind = "Signers",
    plural = "signers",
    namespaced,
    schema = "disabled"
)]
#[serde(rename_all = "camelCase")]
pub struct SignersSpec {
    /// The architecture.
    pub architecture: String,
    /// From one, without a gap.
    pub number: u64,
    /// The digest of the list before; empty for the first.
    pub previous: String,
    /// The groups or people who are asked.
    pub of: Vec<String>,
    /// How many people of them.
    pub count: u32,
    /// How long their approval counts.
    pub expire_seconds: u64,
    /// The list, in the format of `allowed_signers`. The first principal of a line is the person, the others are groups.
    pub list: String,
}

impl Record for Signers {
    fn architecture(&self) -> &str {
        &self.spec.architecture
    }
}

/// Somebody who may sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signer {
    /// Who.
    pub person: String,
    /// In which groups.
    pub groups: Vec<String>,
    /// The key.
    pub key: PublicKey,
    after: Option<Timestamp>,
    before: Option<Timestamp>,
}

/// A list that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The number of the list.
    pub number: u64,
    /// The groups or people who are asked.
    pub of: Vec<String>,
    /// How many people of them.
    pub count: u32,
    /// How long their approval counts.
    pub expire_seconds: u64,
    /// Everybody who may sign.
    pub signers: Vec<Signer>,
}

/// The lists of an architecture, as they stand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SignersState {
    /// The list that counts.
    pub policy: Option<Policy>,
    /// Its digest.
    pub digest: String,
    /// The one that is to take its place.
    pub proposed: Option<(SignersSpec, Tally)>,
    /// What does not fit together.
    pub problems: Vec<String>,
}

impl Signer {
    /// Whether this is a name of the person, or of a group that they are in.
    pub fn is(&self, name: &str) -> bool {
        self.person == name || self.groups.iter().any(|group| group == name)
    }

    /// The fingerprint of the key.
    pub fn fingerprint(&self) -> String {
        self.key.fingerprint(ssh_key::HashAlg::Sha256).to_string()
    }

    /// Whether the key is valid at that time.
    pub fn is_valid(&self, at: Timestamp) -> bool {
        self.after.is_none_or(|after| at >= after) && self.before.is_none_or(|before| at < before)
    }
}

impl Policy {
    /// How long an approval counts.
    pub fn expire(&self) -> SignedDuration {
        SignedDuration::from_secs(i64::try_from(self.expire_seconds).unwrap_or(LONGEST).min(LONGEST))
    }
}

impl SignersSpec {
    /// What is signed when it is changed.
    pub fn digest(&self) -> String {
        digest_of(&sorted(&json!(self)).to_string())
    }

    /// The name of the object.
    pub fn name(&self) -> String {
        format!("{}-signers-{}", self.architecture, self.number)
    }

    /// As a list that counts. The error says what is wrong with it.
    pub fn policy(&self) -> Result<Policy, String> {
        let signers = parse_signers(&self.list)?;
        let people: std::collections::BTreeSet<&str> = signers
            .iter()
            .filter(|signer| self.of.iter().any(|of| signer.is(of)))
            .map(|signer| signer.person.as_str())
            .collect();
        if self.count == 0 || people.len() < usize::try_from(self.count).unwrap_or(usize::MAX) {
            return Err(format!(
                "{} of {} have to approve, and the list has {} of them",
                self.count,
                self.of.join(", "),
                people.len()
            ));
        }
        Ok(Policy {
            number: self.number,
            of: self.of.clone(),
            count: self.count,
            expire_seconds: self.expire_seconds,
            signers,
        })
    }
}

impl SignersState {
    /// How the lists stand: each counts if enough of the one before have signed it. Pure.
    pub fn of(namespace: &str, mut lists: Vec<SignersSpec>, approvals: &[ApprovalSpec]) -> Self {
        lists.sort_by_key(|list| list.number);
        let mut state = Self::default();
        for list in lists {
            let name = list.name();
            let expected = state.policy.as_ref().map_or(1, |policy| policy.number + 1);
            if list.number != expected || list.previous != state.digest {
                state.problems.push(format!("the list `{name}` does not follow the one that counts"));
                continue;
            }
            let policy = match list.policy() {
                Ok(policy) => policy,
                Err(why) => {
                    state.problems.push(format!("the list `{name}`: {why}"));
                    break;
                }
            };
            let digest = list.digest();
            if let Some(before) = &state.policy {
                let subject = Subject { architecture: &list.architecture, namespace, name: &name, digest: &digest };
                let tally = before.tally(subject, approvals, Expiry::Never);
                if !tally.is_enough(before.count) {
                    state.proposed = Some((list, tally));
                    break;
                }
            }
            state.policy = Some(policy);
            state.digest = digest;
        }
        state
    }

    /// The same from the cluster, and all that has been signed about the architecture.
    pub async fn read(
        client: &Client,
        namespace: &str,
        architecture: &str,
    ) -> Result<(Self, Vec<ApprovalSpec>), ClusterError> {
        let approvals = approvals(client, namespace, architecture).await?;
        let lists = records::list::<Signers>(client, namespace, architecture, "the signers").await?;
        let lists = lists.into_iter().map(|signers| signers.spec).collect();
        Ok((Self::of(namespace, lists, &approvals), approvals))
    }

    /// What a list would be that takes the place of the one that counts.
    pub fn next(
        &self,
        architecture: &str,
        of: Vec<String>,
        count: u32,
        expire_seconds: u64,
        list: String,
    ) -> SignersSpec {
        let number = self.policy.as_ref().map_or(1, |policy| policy.number + 1);
        SignersSpec {
            architecture: architecture.to_owned(),
            number,
            previous: self.digest.clone(),
            of,
            count,
            expire_seconds,
            list,
        }
    }
}

/// Writes a list: the first one counts at once, a later one when it has been signed.
pub async fn propose_signers(
    client: &Client,
    namespace: &str,
    author: &Author,
    list: SignersSpec,
) -> Result<(), ClusterError> {
    let name = list.name();
    let people: Vec<String> = parse_signers(&list.list)
        .unwrap_or_default()
        .iter()
        .map(|signer| format!("{} {}", signer.person, signer.fingerprint()))
        .collect();
    author
        .write(Fact {
            action: Action::ChangeSigners,
            subject: name.clone(),
            digest: Some(list.digest()),
            says: format!("{} of {} approve, for {} s", list.count, list.of.join(", "), list.expire_seconds),
            evidence: people,
        })
        .await?;
    let written = records::create(client, namespace, Signers::new(&name, list)).await;
    written.during(|| format!("write the signers `{name}`")).map(drop)
}

/// Reads a list in the format of `allowed_signers`, of `ssh-keygen(1)`.
///
/// Not handled: authorities that sign keys (`cert-authority`), and patterns in names. Both are refused.
pub fn parse_signers(text: &str) -> Result<Vec<Signer>, String> {
    let mut signers = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(signer) = parse_line(line).map_err(|why| format!("line {} of the signers: {why}", number + 1))? {
            signers.push(signer);
        }
    }
    if let Some((one, other)) = signers.iter().enumerate().find_map(|(place, signer)| {
        Some((signer, signers[..place].iter().find(|other| other.key.key_data() == signer.key.key_data())?))
    }) {
        return Err(format!("{} and {} have the same key", other.person, one.person));
    }
    Ok(signers)
}

/// `None` for a key that signs other things.
fn parse_line(line: &str) -> Result<Option<Signer>, String> {
    let (principals, rest) = word(line)?;
    let (mut options, mut rest) = (String::new(), rest);
    let is_key = |word: &str| ["ssh-", "ecdsa-", "sk-"].iter().any(|kind| word.starts_with(kind));
    if !is_key(rest) {
        let (first, after) = word(rest)?;
        (options, rest) = (first, after);
    }
    let key = PublicKey::from_openssh(rest).map_err(|error| format!("`{rest}` is no public key: {error}"))?;
    let mut names = principals.split(',').map(|name| name.trim_matches('"').to_owned());
    let person = names.next().filter(|name| !name.is_empty()).ok_or("it names nobody")?;
    let groups: Vec<String> = names.collect();
    if std::iter::once(&person).chain(&groups).any(|name| name.contains(['*', '?', '!'])) {
        return Err(format!("`{principals}` is a pattern; name the person, then their groups"));
    }
    let (mut after, mut before, mut ours) = (None, None, true);
    for option in split_outside_quotes(&options, ',') {
        let (key, value) = option.split_once('=').unwrap_or((&option, ""));
        let value = value.trim_matches('"');
        match key.to_ascii_lowercase().as_str() {
            "" => {}
            "namespaces" => ours = value.split(',').any(|name| name == SIGNATURE_NAMESPACE),
            "valid-after" => after = Some(time(value)?),
            "valid-before" => before = Some(time(value)?),
            "cert-authority" => return Err("authorities that sign keys are not handled; list the keys".to_owned()),
            other => return Err(format!("`{other}` is no option that is known")),
        }
    }
    Ok(ours.then_some(Signer { person, groups, key, after, before }))
}

/// The first word, which may have quoted parts, and the rest.
fn word(text: &str) -> Result<(String, &str), String> {
    let mut quoted = false;
    for (place, character) in text.char_indices() {
        match character {
            '"' => quoted = !quoted,
            ' ' | '\t' if !quoted => return Ok((text[..place].to_owned(), text[place..].trim_start())),
            _ => {}
        }
    }
    Err("a line has a name, a kind of key, and a key".to_owned())
}

fn split_outside_quotes(text: &str, at: char) -> Vec<String> {
    let (mut parts, mut quoted) = (vec![String::new()], false);
    for character in text.chars() {
        if character == '"' {
            quoted = !quoted;
        }
        if character == at && !quoted {
            parts.push(String::new());
        } else if let Some(last) = parts.last_mut() {
            last.push(character);
        }
    }
    parts
}

/// `YYYYMMDD[Z]` or `YYYYMMDDHHMM[SS][Z]`. Without `Z` OpenSSH takes the machine's time zone; here it is always UTC.
fn time(text: &str) -> Result<Timestamp, String> {
    let wrong = || format!("`{text}` is no time such as 20261128 or 202611281200Z");
    let digits = text.strip_suffix('Z').unwrap_or(text);
    let number = |from: usize, to: usize| -> Result<i8, String> {
        digits.get(from..to).map_or(Ok(0), |part| part.parse::<i8>().map_err(|_| wrong()))
    };
    if ![8, 12, 14].contains(&digits.len()) || !digits.is_ascii() {
        return Err(wrong());
    }
    let year = digits[..4].parse::<i16>().map_err(|_| wrong())?;
    let time =
        civil::DateTime::new(year, number(4, 6)?, number(6, 8)?, number(8, 10)?, number(10, 12)?, number(12, 14)?, 0);
    let zoned = time.and_then(|time| time.to_zoned(TimeZone::UTC)).map_err(|_| wrong())?;
    Ok(zoned.timestamp())
}
