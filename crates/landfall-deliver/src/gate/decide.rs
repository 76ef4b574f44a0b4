//! Whether a gate is open, by what is known. Pure.

use jiff::{SignedDuration, Timestamp};

use super::capacity;
use super::evidence::{EvidenceKind, EvidenceSpec};
use super::window::{self, Window};
use super::{Facts, Gate, GateState, Standing};
use crate::approval::{ApprovalSpec, Decision, Expiry, Policy, SKEW, Statement, Subject, Tally, digest_of};
use crate::release::ReleaseSpec;

/// Decides one gate of a release; without a name the release is not written down yet.
pub(super) fn decide(gate: &Gate, name: Option<&str>, spec: &ReleaseSpec, facts: &Facts) -> GateState {
    match gate {
        Gate::Approval { of, count, expire_seconds } => approval(of, *count, *expire_seconds, name, spec, facts),
        Gate::After { environment, soak_seconds } => after(environment, *soak_seconds, spec, facts),
        Gate::Window { windows } => in_a_window(windows, facts.now),
        Gate::Check { says, shown_by: EvidenceKind::CapacityFits, .. } => {
            let room = facts.room.as_ref().expect("who asks for room is told of it");
            match capacity::fits(room, spec) {
                Ok(evidence) => open(says, "the live nodes have room".to_owned(), evidence),
                Err(why) => closed(says, why, Some("add nodes, or make room on them".to_owned())),
            }
        }
        Gate::Check { says, shown_by, environment, fresh_seconds } => {
            check(says, *shown_by, environment, *fresh_seconds, spec, facts)
        }
        Gate::Thawed => match &facts.freeze {
            None => open("nothing is frozen", "nobody has frozen it".to_owned(), Vec::new()),
            Some(freeze) => closed(
                "nothing is frozen",
                format!("frozen by {} since {}: {}", freeze.by, freeze.at, freeze.because),
                Some(format!("landfall thaw {} --because …", environment_of(spec))),
            ),
        },
    }
}

fn open(gate: &str, why: String, evidence: Vec<String>) -> GateState {
    GateState { gate: gate.to_owned(), standing: Standing::Open, why, bring: None, evidence }
}

fn closed(gate: &str, why: String, bring: Option<String>) -> GateState {
    GateState { gate: gate.to_owned(), standing: Standing::Closed, why, bring, evidence: Vec::new() }
}

fn environment_of(spec: &ReleaseSpec) -> &str {
    spec.environment.as_deref().unwrap_or_default()
}

fn approval(
    of: &[String],
    count: u32,
    expire_seconds: u64,
    name: Option<&str>,
    spec: &ReleaseSpec,
    facts: &Facts,
) -> GateState {
    let environment = environment_of(spec);
    let gate = format!("approved by {count} of {}", of.join(", "));
    let Some(policy) = &facts.signers.policy else {
        let why = match facts.signers.problems.first() {
            Some(problem) => problem.clone(),
            None => "the cluster does not know who may approve".to_owned(),
        };
        return closed(&gate, why, Some(format!("landfall signers set allowed_signers --env {environment}")));
    };
    if let Some(problem) = facts.signers.problems.first() {
        return closed(&gate, problem.clone(), Some(format!("landfall signers show --env {environment}")));
    }
    if policy.of != of || policy.count != count || policy.expire_seconds != expire_seconds {
        return closed(
            &gate,
            format!(
                "the cluster asks for {} of {}, for {} s, and the file for {count} of {}, for {expire_seconds} s",
                policy.count,
                policy.of.join(", "),
                policy.expire_seconds,
                of.join(", ")
            ),
            Some(format!(
                "change the file, or have the signers change the cluster: landfall signers set allowed_signers --env {environment}"
            )),
        );
    }
    let Some(name) = name else {
        let why = "it can be approved when it is written down".to_owned();
        return closed(&gate, why, Some(format!("landfall ship --env {environment}, then landfall approve RELEASE")));
    };
    let subject = Subject { architecture: &spec.architecture, namespace: &facts.namespace, name, digest: &spec.digest };
    let tally = policy.tally(subject, &facts.approvals, Expiry::At(facts.now));
    if let Some(no) = tally.rejected.first() {
        let because = no.statement.because.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        let why = format!("{} rejects it{because}", no.person);
        let evidence = Tally::names(&tally.rejected);
        return GateState { gate, standing: Standing::Rejected, why, bring: None, evidence };
    }
    let there = tally.approved.len();
    if tally.is_enough(count) {
        return open(&gate, format!("{there} have approved {}", spec.digest), Tally::names(&tally.approved));
    }
    let mut why = format!("{there} of {count}");
    if there > 0 {
        let names: Vec<&str> = tally.approved.iter().map(|one| one.person.as_str()).collect();
        why += &format!(": {}", names.join(", "));
    }
    why.extend(tally.void.iter().map(|void| format!("; not counted: {void}")));
    closed(&gate, why, Some(format!("landfall approve {name} --env {environment} --key ~/.ssh/id_ed25519")))
}

fn after(environment: &str, soak_seconds: u64, spec: &ReleaseSpec, facts: &Facts) -> GateState {
    let gate = match soak_seconds {
        0 => format!("has run in {environment}"),
        seconds => format!("has run in {environment} for {}", length(seconds)),
    };
    let bring = || Some(format!("landfall promote {environment} {}", environment_of(spec)));
    let mut shown = Vec::new();
    for service in &spec.services {
        let seen = facts.evidence.iter().filter(|evidence| {
            evidence.kind == EvidenceKind::Ran
                && evidence.environment == environment
                && evidence.images.get(&service.name) == Some(&service.new_image)
        });
        let longest = seen.filter_map(|evidence| Some((evidence.ran_seconds()?, evidence))).max_by_key(|(ran, _)| *ran);
        match longest {
            None => {
                let why = format!("nobody has seen `{}` of `{}` run in {environment}", service.new_image, service.name);
                return closed(&gate, why, bring());
            }
            Some((ran, _)) if ran < soak_seconds => {
                let why = format!("`{}` had run there for {} when it was looked at", service.new_image, length(ran));
                return closed(&gate, why, bring());
            }
            Some((ran, evidence)) => shown.push(format!(
                "`{}` had run in {environment} for {} at {}, seen by {}",
                service.new_image,
                length(ran),
                evidence.at,
                evidence.by
            )),
        }
    }
    open(&gate, format!("every image has run in {environment}"), shown)
}

fn in_a_window(windows: &[Window], now: Timestamp) -> GateState {
    let gate = format!("the time is {}", windows.iter().map(ToString::to_string).collect::<Vec<_>>().join(", or "));
    match window::is_open(windows, now) {
        Ok(true) => open(&gate, "it is".to_owned(), Vec::new()),
        Ok(false) => {
            let next = window::next(windows, now);
            let next = next.map_or_else(|| "no window follows".to_owned(), |next| format!("the next begins at {next}"));
            closed(&gate, format!("it is not; {next}"), Some("wait: it begins by itself".to_owned()))
        }
        Err(why) => closed(&gate, why, None),
    }
}

fn check(
    says: &str,
    kind: EvidenceKind,
    environment: &str,
    fresh_seconds: Option<u64>,
    spec: &ReleaseSpec,
    facts: &Facts,
) -> GateState {
    let own = environment_of(spec);
    let bring = || Some(bring(says, kind, environment, own));
    let of_kind = |evidence: &&EvidenceSpec| {
        evidence.kind == kind
            && evidence.environment == environment
            && (kind != EvidenceKind::Attested || evidence.says == says)
    };
    // What each piece has to be about: every image, or nothing in particular.
    let images: Vec<Option<(&str, &str)>> = if kind.is_about_images() {
        spec.services.iter().map(|service| Some((service.name.as_str(), service.new_image.as_str()))).collect()
    } else {
        vec![None]
    };
    let mut shown: Vec<String> = Vec::new();
    for image in images {
        let fitting = facts.evidence.iter().filter(of_kind).filter(|evidence| {
            image.is_none_or(|(service, image)| evidence.images.get(service).map(String::as_str) == Some(image))
        });
        let about = image.map(|(service, image)| format!(" for `{image}` of `{service}`")).unwrap_or_default();
        let timed = fitting.filter_map(|evidence| Some((evidence.time()?, evidence)));
        // What is said to have been seen later than now would be fresh for ever.
        let last = timed.filter(|(time, _)| *time <= facts.now + SKEW).max_by_key(|(time, _)| *time);
        let Some((time, last)) = last else {
            return closed(says, format!("there is no evidence{about} from {environment}"), bring());
        };
        if !last.passed {
            return closed(says, format!("it did not hold{about} at {}: {}", last.at, last.says), bring());
        }
        if let Some(fresh) = fresh_seconds {
            let age = facts.now.duration_since(time).as_secs();
            if age > i64::try_from(fresh).unwrap_or(i64::MAX) {
                let why = format!("the evidence{about} is of {time}, and may be {} old", length(fresh));
                return closed(says, why, bring());
            }
        }
        let mut piece = format!("{} at {} by {}", last.says, last.at, last.by);
        if let (Some(policy), true) = (&facts.signers.policy, kind.is_said_by_a_person() && last.report.is_none()) {
            match signed(last, policy, spec, facts) {
                Ok(person) => piece += &format!(", signed by {person}"),
                Err(why) => return closed(says, format!("who said so is not known: {why}"), bring()),
            }
        }
        if let Some(report) = &last.report {
            piece += &format!(", report {report}");
        }
        if !shown.contains(&piece) {
            shown.push(piece);
        }
    }
    open(says, format!("it held in {environment}"), shown)
}

/// Who has signed a piece of evidence.
fn signed(evidence: &EvidenceSpec, policy: &Policy, spec: &ReleaseSpec, facts: &Facts) -> Result<String, String> {
    let (Some(text), Some(signature)) = (&evidence.statement, &evidence.signature) else {
        return Err("it is not signed".to_owned());
    };
    let statement = Statement::parse(text)?;
    if statement.decision != Decision::Confirm || statement.at.to_string() != evidence.at {
        return Err("what was signed is something else".to_owned());
    }
    let approval =
        ApprovalSpec { architecture: spec.architecture.clone(), statement: text.clone(), signature: signature.clone() };
    let digest = digest_of(&evidence.says);
    let subject = Subject {
        architecture: &spec.architecture,
        namespace: &facts.namespace,
        name: evidence.kind.as_str(),
        digest: &digest,
    };
    if statement.subject != subject.name {
        return Err("what was signed is something else".to_owned());
    }
    policy.check(&statement, &approval, Some(subject), Expiry::Never).map(|counted| counted.person)
}

/// How evidence of a kind is brought.
fn bring(says: &str, kind: EvidenceKind, environment: &str, own: &str) -> String {
    let from = if environment == own { String::new() } else { format!(" --seen-in {environment}") };
    let how = match kind {
        EvidenceKind::TestsPassed => " --report junit.xml",
        EvidenceKind::NoVulnerabilities => " --report SERVICE=trivy.json",
        EvidenceKind::RestoreDrilled | EvidenceKind::OnCallConfirmed => " --because …",
        EvidenceKind::Attested => return format!("landfall attest attested --env {own}{from} --because '{says}'"),
        EvidenceKind::CapacityFits | EvidenceKind::Ran => "",
    };
    format!("landfall attest {} --env {own}{from}{how}", kind.as_str())
}

/// `2h`, `3d 4h`, `90s`.
fn length(seconds: u64) -> String {
    let span = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
    let (days, hours, minutes) = (span.as_hours() / 24, span.as_hours() % 24, span.as_mins() % 60);
    let parts = [(days, "d"), (hours, "h"), (minutes, "min"), (span.as_secs() % 60, "s")];
    let said: Vec<String> =
        parts.iter().filter(|(count, _)| *count > 0).take(2).map(|(count, unit)| format!("{count} {unit}")).collect();
    if said.is_empty() { "0 s".to_owned() } else { said.join(" ") }
}

#[cfg(test)]
mod tests;
