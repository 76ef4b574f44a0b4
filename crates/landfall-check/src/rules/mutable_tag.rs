//! Images: what runs is what was tested, and the version before can be run again.

use landfall_model::{Finding, ServiceKind, Severity};

use super::wording::{count, proof};
use crate::report::{Report, Verdict};
use crate::rule::{Context, Rule, Subject};

pub(super) const RULE: Rule = Rule {
    name: "mutable-tag",
    subject: Subject::Security,
    severity: Severity::Error,
    summary: "Every service has an image or a build, and no image is named by a tag that moves.",
    explanation: "A tag such as `latest`, no tag at all (which means `latest`), or the name of a branch is moved to each new \
        image. Two pods of one Deployment can then run different code, a node that pulls again changes the release without \
        anybody deploying, and a rollback deploys the same name and so the same broken image \
        (https://kubernetes.io/docs/concepts/containers/images/#image-names). In production this is an error, elsewhere a \
        warning. A version tag can be overwritten as well, so a digest is recommended in production; images that are built \
        here are pushed and deployed by digest anyway. A service with neither image nor build cannot be deployed at all: \
        until it has one, a stand-in takes its place.",
    passing: include_str!("../../tests/it/rules/mutable-tag/ok.yaml"),
    failing: include_str!("../../tests/it/rules/mutable-tag/bad.yaml"),
    run: Some(run),
};

/// Tags that name a branch or an environment.
const MOVING: [&str; 18] = [
    "latest",
    "main",
    "master",
    "develop",
    "dev",
    "development",
    "trunk",
    "head",
    "edge",
    "nightly",
    "stable",
    "release",
    "prod",
    "production",
    "staging",
    "test",
    "next",
    "snapshot",
];

/// An image name taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Image<'a> {
    /// Host and path without tag and digest.
    pub(super) repository: &'a str,
    pub(super) tag: Option<&'a str>,
    pub(super) digest: Option<&'a str>,
}

impl<'a> Image<'a> {
    pub(super) fn parse(text: &'a str) -> Self {
        let (name, digest) = text.split_once('@').map_or((text, None), |(name, digest)| (name, Some(digest)));
        // A colon before the last slash belongs to the port of the registry.
        let from = name.rfind('/').map_or(0, |slash| slash + 1);
        match name[from..].find(':') {
            Some(colon) => Self { repository: &name[..from + colon], tag: Some(&name[from + colon + 1..]), digest },
            None => Self { repository: name, tag: None, digest },
        }
    }

    /// Whether its tag is moved to each new image; without a tag, `latest` is meant.
    pub(super) fn moves(self) -> bool {
        let tag = self.tag.unwrap_or("latest").to_ascii_lowercase();
        self.digest.is_none()
            && (MOVING.contains(&tag.as_str()) || tag.ends_with("-latest") || tag.ends_with("-snapshot"))
    }
}

fn run(context: &Context<'_>, report: &mut Report) {
    let architecture = context.architecture;
    let severity = if architecture.is_production() { Severity::Error } else { Severity::Warning };
    let (mut by_digest, mut by_version, mut built, mut moving, mut without) = (0, 0, 0, 0, 0);
    for (name, service) in &architecture.document.services {
        let subject = format!("service.{name}");
        let Some(text) = &service.image else {
            if service.build.is_some() {
                built += 1;
            } else if service.kind.value != ServiceKind::Mock {
                without += 1;
                let finding =
                    Finding::warning(RULE.name, name.span, format!("`{name}` has neither an image nor a build"))
                        .on(subject);
                report.findings.push(
                    finding
                        .because("there is nothing to deploy but a stand-in")
                        .help("add `image: …` with a digest, or `build: …`"),
                );
            }
            continue;
        };
        let image = Image::parse(text);
        if image.digest.is_some() {
            by_digest += 1;
        } else if image.tag.is_none() && service.build.is_some() {
            // The name of the repository that the build pushes to, by digest.
            built += 1;
        } else if image.moves() {
            moving += 1;
            let label = match image.tag {
                Some(tag) => format!("`{tag}` is moved to each new image"),
                None => "no tag means `latest`, which is moved to each new image".to_owned(),
            };
            let finding =
                Finding::new(RULE.name, severity, text.span, format!("the image of `{name}` has a tag that moves"))
                    .label(label)
                    .on(subject);
            let finding =
                finding.because("the version before has the same name, so a rollback deploys the same image again");
            report.findings.push(
                finding.help(format!("name a version, best with its digest: `{}:1.4.2@sha256:…`", image.repository)),
            );
        } else {
            by_version += 1;
            if architecture.is_production() && service.build.is_none() {
                let finding =
                    Finding::note(RULE.name, text.span, format!("the image of `{name}` has no digest")).on(subject);
                report.findings.push(
                    finding
                        .because("whoever may push can overwrite a version tag")
                        .help(format!("write `{text}@sha256:…`")),
                );
            }
        }
    }
    if architecture.document.services.is_empty() {
        return;
    }
    let verdict = match (moving, without) {
        (0, 0) => Verdict::Proved,
        (0, _) => Verdict::Undecided,
        _ => Verdict::Refuted,
    };
    let derivation = vec![
        format!("{} by digest, {built} built here and deployed by digest", count(by_digest, "image")),
        format!("{by_version} by a version tag, {moving} by a tag that moves, {without} without an image"),
    ];
    let span = architecture.document.name.span;
    report.proofs.push(proof(
        RULE.name,
        "images",
        "every service runs an image that can be named again",
        verdict,
        span,
        derivation,
    ));
}

#[cfg(test)]
mod tests {
    use super::Image;

    #[track_caller]
    fn check(text: &str, repository: &str, tag: Option<&str>, moves: bool) {
        let image = Image::parse(text);
        assert_eq!((image.repository, image.tag, image.moves()), (repository, tag, moves));
    }

    #[test]
    fn a_port_of_the_registry_is_no_tag() {
        check("registry.example:5000/shop/web", "registry.example:5000/shop/web", None, true);
        check("registry.example:5000/shop/web:1.2", "registry.example:5000/shop/web", Some("1.2"), false);
    }

    #[test]
    fn a_digest_fixes_any_tag() {
        check("web:latest@sha256:0123", "web", Some("latest"), false);
    }

    #[test]
    fn branches_move_and_versions_do_not() {
        check("shop/web:main", "shop/web", Some("main"), true);
        check("shop/web:api-latest", "shop/web", Some("api-latest"), true);
        check("postgres:17.6", "postgres", Some("17.6"), false);
    }
}
