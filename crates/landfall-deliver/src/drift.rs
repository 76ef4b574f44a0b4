//! Drift: what is otherwise in the cluster than the releases and the audit log say. Whoever administers a cluster can go around
//! everything that is in it; this is how others see it.

use jiff::Timestamp;
use kube::{Client, ResourceExt as _};
use landfall_model::Architecture;

use crate::approval::{Expiry, SignersState, Subject};
use crate::audit::{Action, AuditLog, PIECES};
use crate::cluster::{ClusterError, workload};
use crate::gate::Gate;
use crate::propose::{list, phase_of};
use crate::release::Release;
use crate::rollout::Phase;
use crate::schema::has_begun;
use crate::{admission, freeze};

/// What is otherwise than it should be, for people; nothing when all is well. Reads only.
pub async fn drift(client: &Client, architecture: &Architecture) -> Result<Vec<String>, ClusterError> {
    let (name, namespace) = (architecture.document.name.as_str(), architecture.namespace().as_str());
    let releases = list(client, namespace, name).await?;
    let log = AuditLog::read(client, namespace, name).await?;
    let mut drift: Vec<String> = log.verify().into_iter().map(|problem| format!("audit log: {problem}")).collect();
    drift.extend(changed_past_releases(client, &releases).await?);
    drift.extend(releases.iter().flat_map(|release| unwritten(release, &releases, &log)));
    drift.extend(unapproved(client, namespace, name, &releases, &log).await?);
    let protected = log.entries.iter().rfind(|entry| matches!(entry.action, Action::Protect | Action::Admit));
    if let Some(entry) = protected {
        if let Err(problem) = admission::is_guarded(client, architecture).await? {
            drift.push(problem);
        }
        match admission::read(client, namespace, name).await? {
            None => drift.push("what the environment admits is gone".to_owned()),
            Some(admitted) => {
                // An entry has room for so many images only; the others are not compared.
                let told = |image: &&String| entry.evidence.len() < PIECES && !entry.evidence.contains(image);
                drift.extend(admitted.images.iter().filter(told).map(|image| {
                    format!("`{image}` is admitted, and entry {} of the audit log does not say so", entry.number)
                }));
            }
        }
    }
    let froze = log.entries.iter().rfind(|entry| matches!(entry.action, Action::Freeze | Action::Thaw));
    if let Some(entry) = froze.filter(|entry| entry.action == Action::Freeze)
        && freeze::read(client, namespace, name).await?.is_none()
    {
        drift.push(format!("`{}` froze the environment, and somebody has taken the freeze away", entry.who));
    }
    Ok(drift)
}

/// Services that run another image than the last release brought.
async fn changed_past_releases(client: &Client, releases: &[Release]) -> Result<Vec<String>, ClusterError> {
    let mut drift = Vec::new();
    let under_way = releases.iter().any(|release| {
        let phase = phase_of(release);
        !phase.is_terminal() && phase != Phase::Pending
    });
    if under_way {
        return Ok(drift);
    }
    let mut seen = std::collections::BTreeSet::new();
    for release in releases.iter().rev() {
        let phase = phase_of(release);
        if !matches!(phase, Phase::Succeeded | Phase::RolledBack { .. } | Phase::Failed { .. }) {
            continue;
        }
        for service in &release.spec.services {
            if !seen.insert(service.name.clone()) {
                continue;
            }
            let image = if phase == Phase::Succeeded { &service.new_image } else { &service.old_image };
            let live = workload::deployment(client, &service.namespace, &service.name).await?;
            let runs = live.and_then(|live| workload::image(&live, &service.name));
            if runs.as_ref() != Some(image) {
                drift.push(format!(
                    "`{}` runs `{}`, and after release `{}` it had `{image}`: somebody changed it past Landfall",
                    service.name,
                    runs.as_deref().unwrap_or("nothing"),
                    release.name_any()
                ));
            }
        }
    }
    Ok(drift)
}

/// What does not fit together of a release: what it says of itself, what the audit log says of it, and where it is.
fn unwritten(release: &Release, releases: &[Release], log: &AuditLog) -> Vec<String> {
    let (name, spec) = (release.name_any(), &release.spec);
    let mut drift: Vec<String> =
        spec.contradiction().into_iter().map(|why| format!("release `{name}` is not what was signed: {why}")).collect();
    if !log.says(Action::Propose, &name, &spec.digest) {
        drift.push(format!("the audit log does not say that anybody wrote release `{name}` down"));
    }
    if !has_begun(release) {
        return drift;
    }
    if !log.says(Action::Begin, &name, &spec.digest) {
        drift.push(format!(
            "release `{name}` is {}, and the audit log does not say that its gates were open",
            phase_of(release).name()
        ));
    }
    let Some(taken) = &spec.takes_back else { return drift };
    match releases.iter().find(|other| other.name_any() == *taken).map(|other| spec.brings_back(&other.spec)) {
        Some(Ok(())) => {}
        Some(Err(why)) => {
            drift.push(format!("release `{name}` went around the gates to take `{taken}` back, and {why}"));
        }
        None => {
            drift.push(format!("release `{name}` went around the gates to take `{taken}` back, which is not there"));
        }
    }
    drift
}

/// Releases that began without the approvals that they needed at that time, and lists of signers that nobody signed.
async fn unapproved(
    client: &Client,
    namespace: &str,
    name: &str,
    releases: &[Release],
    log: &AuditLog,
) -> Result<Vec<String>, ClusterError> {
    let (signers, signed) = SignersState::read(client, namespace, name).await?;
    let mut drift = signers.problems.clone();
    let changes: Vec<&str> = log
        .entries
        .iter()
        .filter(|entry| entry.action == Action::ChangeSigners)
        .filter_map(|entry| entry.digest.as_deref())
        .collect();
    if signers.policy.is_some() && !changes.contains(&signers.digest.as_str()) {
        drift.push("the audit log knows nothing of the list of signers that counts".to_owned());
    }
    if signers.policy.is_none() && !changes.is_empty() {
        drift.push("the list of signers is gone".to_owned());
    }
    // Not handled: releases that began under an earlier list of signers are judged by the one that counts now.
    let Some(policy) = &signers.policy else { return Ok(drift) };
    let since = log.entries.iter().find(|entry| entry.action == Action::ChangeSigners).map(|entry| entry.number);
    // One that takes another one back is asked for nothing, if it does just that.
    for release in releases.iter().filter(|release| has_begun(release) && release.spec.takes_back.is_none()) {
        let release_name = release.name_any();
        let begun = log.entries.iter().find(|entry| entry.action == Action::Begin && entry.subject == release_name);
        // Where signers are known, they are asked whatever the release says.
        let asked = release.spec.gates.iter().any(|gate| matches!(gate, Gate::Approval { .. }))
            || begun.is_some_and(|begun| since.is_some_and(|since| since < begun.number));
        let begun = begun.and_then(|entry| entry.at.parse::<Timestamp>().ok());
        let Some(begun) = begun.filter(|_| asked) else { continue };
        let subject = Subject { architecture: name, namespace, name: &release_name, digest: &release.spec.digest };
        let tally = policy.tally(subject, &signed, Expiry::At(begun));
        if !tally.is_enough(policy.count) {
            drift.push(format!(
                "release `{release_name}` began with {} of {} approvals: {}",
                tally.approved.len(),
                policy.count,
                if tally.void.is_empty() { "the others are not there".to_owned() } else { tally.void.join("; ") }
            ));
        }
    }
    Ok(drift)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::{Entry, ReleaseSpec, ReleaseStatus, ServiceRelease};

    /// The release of that number, with this many things that have happened to it.
    fn release(number: u32, phase: Phase, happened: usize) -> Release {
        let mut spec = ReleaseSpec { number, ..ReleaseSpec::sample(vec![ServiceRelease::sample("web")]) };
        for service in &mut spec.services {
            (service.old_image, service.new_image) = (String::new(), String::new());
        }
        spec.digest = spec.computed_digest();
        let mut release = Release::new(&format!("shop-{number}"), spec);
        let history = vec![Entry { at: String::new(), what: String::new() }; happened];
        release.status = Some(ReleaseStatus { phase, history, ..ReleaseStatus::default() });
        release
    }

    fn told(release: &Release, says: &[Action]) -> String {
        let says: Vec<_> = says.iter().map(|action| (*action, "shop-1", release.spec.digest.as_str())).collect();
        unwritten(release, std::slice::from_ref(release), &AuditLog::sample(&says)).join("\n")
    }

    #[test]
    fn a_release_that_nobody_wrote_down_or_let_begin_is_seen() {
        let (both, propose) = ([Action::Propose, Action::Begin], [Action::Propose]);
        insta::assert_snapshot!(told(&release(1, Phase::Succeeded, 3), &both), @"");
        insta::assert_snapshot!(told(&release(1, Phase::Pending, 0), &propose), @"");
        insta::assert_snapshot!(told(&release(1, Phase::Pending, 0), &[]), @"the audit log does not say that anybody wrote release `shop-1` down");
        insta::assert_snapshot!(told(&release(1, Phase::Succeeded, 0), &propose), @"release `shop-1` is Succeeded, and the audit log does not say that its gates were open");
        let mut changed = release(1, Phase::Succeeded, 3);
        "elsewhere".clone_into(&mut changed.spec.services[0].namespace);
        assert!(told(&changed, &both).starts_with("release `shop-1` is not what was signed: "));
        let mut back = release(1, Phase::Succeeded, 3);
        back.spec.takes_back = Some("shop-0".to_owned());
        back.spec.digest = back.spec.computed_digest();
        insta::assert_snapshot!(told(&back, &both), @"release `shop-1` went around the gates to take `shop-0` back, which is not there");
    }
}
