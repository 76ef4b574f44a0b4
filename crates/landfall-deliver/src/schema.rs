//! Schemas of stores: which versions a release reads, which one it brings, and whether it could run against the one that is there.
//! Pure.
//!
//! A migration is not undone by going back. So a version that brings a schema is let through only when the version before it
//! reads that schema as well: expanding and contracting are two releases, and between them there is a way back.
//!
//! Not handled: a schema that was changed past releases, such as by a restore; the last one that a release brought counts.

use std::collections::BTreeMap;

use kube::ResourceExt as _;
use landfall_model::Service;
use serde::{Deserialize, Serialize};

use crate::release::{Release, ReleaseSpec, ServiceRelease};
use crate::rollout::Phase;

/// What a version of a service does with the schema of a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SchemaUse {
    /// The store.
    pub store: String,
    /// The oldest version that it reads.
    pub reads_from: u32,
    /// The newest version that it reads.
    pub reads_to: u32,
    /// The version that it migrates to.
    pub writes: u32,
}

/// The schema of a store, as releases have left it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Live {
    version: u32,
    /// The release that brought it.
    by: String,
    number: u32,
}

impl SchemaUse {
    /// What the file declares for a service.
    pub(crate) fn of(service: &Service) -> Option<Self> {
        let schema = service.schema.as_ref()?;
        Some(Self {
            store: schema.store.to_string(),
            reads_from: schema.reads.low,
            reads_to: schema.reads.high,
            writes: schema.writes.value,
        })
    }

    fn reads(&self, version: u32) -> bool {
        (self.reads_from..=self.reads_to).contains(&version)
    }

    fn range(&self) -> String {
        if self.reads_from == self.reads_to {
            format!("version {}", self.reads_from)
        } else {
            format!("the versions {} to {}", self.reads_from, self.reads_to)
        }
    }
}

/// What the version of a service that runs does with its schema, if the release that brought it said so.
pub(crate) fn of_image(releases: &[Release], service: &str, image: &str) -> Option<SchemaUse> {
    let shipped = releases.iter().rev().filter(|release| has_begun(release));
    let mut own = shipped.flat_map(|release| &release.spec.services).filter(|own| own.name == service);
    own.find_map(|own| {
        if own.new_image == image {
            own.schema.clone()
        } else if own.old_image == image {
            own.old_schema.clone()
        } else {
            None
        }
    })
}

/// Why a release cannot run against the schemas that are there, or leaves no way back. What cannot be known goes into the notes.
pub(crate) fn forward(spec: &ReleaseSpec, releases: &[Release], notes: &mut Vec<String>) -> Vec<String> {
    let live = live(releases);
    let mut refusals = Vec::new();
    for service in &spec.services {
        let name = &service.name;
        let Some(new) = &service.schema else {
            // A version that says nothing of a schema that is kept by releases cannot be judged.
            if let Some((store, there)) = service.old_schema.as_ref().and_then(|old| live.get_key_value(&old.store)) {
                refusals.push(format!(
                    "`{name}` does not say any more which versions of the schema of `{store}` it reads, and release `{}` left version {}: declare `schema` again",
                    there.by, there.version
                ));
            }
            continue;
        };
        let there = live.get(&new.store);
        let then = there.map_or(new.writes, |there| there.version.max(new.writes));
        if !new.reads(then) {
            let by = there.filter(|there| there.version == then).map_or_else(
                || format!("it brings version {then} itself"),
                |there| format!("release `{}` has brought version {then}, which is not undone by going back", there.by),
            );
            refusals.push(format!(
                "`{name}` reads {} of the schema of `{}`, and {by}: ship a version that reads {then}",
                new.range(),
                new.store
            ));
            continue;
        }
        let is_there = there.is_some_and(|there| there.version >= new.writes);
        match &service.old_schema {
            Some(old) if old.store == new.store && !old.reads(then) => refusals.push(format!(
                "`{name}` brings version {then} of the schema of `{}`, and `{}`, which runs beside it and is the way back, reads {} only: first ship a version that reads {} to {then} and brings none, then this one",
                new.store,
                service.old_image,
                old.range(),
                old.reads_from
            )),
            None if !is_there => notes.push(format!(
                "`{name}` brings version {then} of the schema of `{}`; whether `{}` reads that is not known, as no release has said so: there may be no way back",
                new.store, service.old_image
            )),
            _ => {}
        }
    }
    refusals
}

/// Why a release cannot be taken back. `number` is that of the release that is taken back.
pub(crate) fn back(services: &[ServiceRelease], releases: &[Release], number: u32) -> Vec<String> {
    let live = live(releases);
    let mut refusals = Vec::new();
    for service in services {
        let store = service.schema.as_ref().or(service.old_schema.as_ref()).map(|schema| schema.store.clone());
        let Some(there) = store.as_ref().and_then(|store| live.get(store)) else { continue };
        let (name, store) = (&service.name, store.unwrap_or_default());
        let forward = format!(
            "go forward instead: ship a version that is mended and reads {}; or restore `{store}` to before release `{}` first",
            there.version, there.by
        );
        match &service.schema {
            Some(target) if target.reads(there.version) => {}
            Some(target) => refusals.push(format!(
                "`{name}` cannot go back to `{}`: that reads {} of the schema of `{store}`, and release `{}` has brought version {}; {forward}",
                service.new_image,
                target.range(),
                there.by,
                there.version
            )),
            // What was there before the schema changed said nothing of it.
            None if there.number >= number => refusals.push(format!(
                "`{name}` cannot go back to `{}`: nobody has said which versions of the schema of `{store}` that reads, and release `{}` has brought version {}; {forward}",
                service.new_image, there.by, there.version
            )),
            None => {}
        }
    }
    refusals
}

/// The schema of each store, by the releases that have begun: also of those that went back.
fn live(releases: &[Release]) -> BTreeMap<String, Live> {
    let mut live: BTreeMap<String, Live> = BTreeMap::new();
    for release in releases.iter().filter(|release| has_begun(release) && release.spec.takes_back.is_none()) {
        for schema in release.spec.services.iter().filter_map(|service| service.schema.as_ref()) {
            let there = live.get(&schema.store).map_or(0, |there| there.version);
            if schema.writes > there {
                let (by, number) = (release.name_any(), release.spec.number);
                live.insert(schema.store.clone(), Live { version: schema.writes, by, number });
            }
        }
    }
    live
}

/// Whether a release has changed something: one that was rejected has not.
pub(crate) fn has_begun(release: &Release) -> bool {
    let Some(status) = &release.status else { return false };
    match status.phase {
        Phase::Pending => false,
        // One that ended before it began has one entry only.
        Phase::RolledBack { .. } => status.history.len() > 1,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::{Entry, ReleaseStatus};

    #[expect(clippy::unnecessary_wraps, reason = "a version may say nothing")]
    fn uses(from: u32, to: u32, writes: u32) -> Option<SchemaUse> {
        Some(SchemaUse { store: "ledger".to_owned(), reads_from: from, reads_to: to, writes })
    }

    fn service(old: (&str, Option<SchemaUse>), new: (&str, Option<SchemaUse>)) -> ServiceRelease {
        ServiceRelease {
            old_image: old.0.to_owned(),
            new_image: new.0.to_owned(),
            schema: new.1,
            old_schema: old.1,
            ..ServiceRelease::sample("web")
        }
    }

    fn spec(number: u32, service: ServiceRelease) -> ReleaseSpec {
        ReleaseSpec { number, ..ReleaseSpec::sample(vec![service]) }
    }

    fn shipped(number: u32, phase: Phase, service: ServiceRelease) -> Release {
        let mut release = Release::new(&format!("shop-{number}"), spec(number, service));
        let entry = || Entry { at: String::new(), what: String::new() };
        release.status = Some(ReleaseStatus { phase, history: vec![entry(), entry()], ..ReleaseStatus::default() });
        release
    }

    /// What is said of the third release after two that have brought 3 and 5.
    fn third(new: Option<SchemaUse>) -> String {
        let before = history();
        let mut own = service(("web:2", None), ("web:3", new));
        own.old_schema = of_image(&before, "web", "web:2");
        let mut notes = Vec::new();
        let refusals = forward(&spec(3, own), &before, &mut notes);
        [refusals, notes].concat().join("\n")
    }

    fn history() -> Vec<Release> {
        vec![
            shipped(1, Phase::Succeeded, service(("web:0", None), ("web:1", uses(2, 3, 3)))),
            shipped(2, Phase::Succeeded, service(("web:1", uses(2, 3, 3)), ("web:2", uses(3, 5, 5)))),
        ]
    }

    #[test]
    fn a_release_runs_against_the_schema_that_is_there_and_leaves_a_way_back() {
        insta::assert_snapshot!(third(uses(3, 5, 5)), @"");
        insta::assert_snapshot!(third(uses(3, 4, 4)), @"`web` reads the versions 3 to 4 of the schema of `ledger`, and release `shop-2` has brought version 5, which is not undone by going back: ship a version that reads 5");
        insta::assert_snapshot!(third(uses(5, 6, 6)), @"`web` brings version 6 of the schema of `ledger`, and `web:2`, which runs beside it and is the way back, reads the versions 3 to 5 only: first ship a version that reads 3 to 6 and brings none, then this one");
        insta::assert_snapshot!(third(uses(3, 4, 6)), @"`web` reads the versions 3 to 4 of the schema of `ledger`, and it brings version 6 itself: ship a version that reads 6");
        insta::assert_snapshot!(third(None), @"`web` does not say any more which versions of the schema of `ledger` it reads, and release `shop-2` left version 5: declare `schema` again");
    }

    #[test]
    fn the_first_release_that_says_something_is_told_that_its_way_back_is_not_known() {
        let mut notes = Vec::new();
        let first = spec(1, service(("web:0", None), ("web:1", uses(2, 3, 3))));
        assert_eq!(forward(&first, &[], &mut notes), Vec::<String>::new());
        insta::assert_snapshot!(notes.join("\n"), @"`web` brings version 3 of the schema of `ledger`; whether `web:0` reads that is not known, as no release has said so: there may be no way back");
    }

    #[test]
    fn a_migration_is_there_after_its_release_went_back_and_not_when_it_never_began() {
        let cause = crate::rollout::Cause { reason: crate::rollout::Reason::Worse, why: String::new() };
        let taken_back = Phase::RolledBack { cause };
        let mut second = shipped(2, taken_back, service(("web:1", uses(2, 3, 3)), ("web:2", uses(3, 5, 5))));
        let versions = |second: &Release| live(&[history().remove(0), second.clone()])["ledger"].version;
        assert_eq!(versions(&second), 5);
        second.status.as_mut().expect("it has one").history.truncate(1);
        assert_eq!(versions(&second), 3);
    }

    #[test]
    fn what_cannot_read_the_schema_does_not_come_back() {
        let before = history();
        let to = |image: &str, target: Option<SchemaUse>| {
            back(&[service(("web:2", uses(3, 5, 5)), (image, target))], &before, 2).join("\n")
        };
        insta::assert_snapshot!(to("web:1", uses(2, 3, 3)), @"`web` cannot go back to `web:1`: that reads the versions 2 to 3 of the schema of `ledger`, and release `shop-2` has brought version 5; go forward instead: ship a version that is mended and reads 5; or restore `ledger` to before release `shop-2` first");
        insta::assert_snapshot!(to("web:1", uses(2, 5, 3)), @"");
        insta::assert_snapshot!(to("web:0", None), @"`web` cannot go back to `web:0`: nobody has said which versions of the schema of `ledger` that reads, and release `shop-2` has brought version 5; go forward instead: ship a version that is mended and reads 5; or restore `ledger` to before release `shop-2` first");
        assert_eq!(back(&[service(("web:2", None), ("web:1", None))], &before, 2), Vec::<String>::new());
    }
}
