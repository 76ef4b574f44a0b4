//! What a release is known by: the digest that people sign, and whether a release is what it says of itself. Pure.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{ReleaseSpec, ServiceRelease, image_of, over, plain, sorted};
use crate::plan::Strategy;

impl ReleaseSpec {
    /// The digest over what is signed: where it goes, what must hold before, and of each service in its order how it gets which
    /// pod template in the place of which. Templates count as they are before they say to which release they belong.
    pub fn computed_digest(&self) -> String {
        let services: Vec<Value> = self.services.iter().map(signed).collect();
        over(&json!([
            self.architecture,
            self.environment,
            self.takes_back,
            self.automatic,
            self.verification,
            self.gates,
            self.bundle,
            services,
        ]))
    }

    /// Why a release is not what it says of itself, if it is not.
    pub fn contradiction(&self) -> Option<String> {
        let computed = self.computed_digest();
        if computed != self.digest {
            return Some(format!(
                "it says that its digest is {}, and that of what it brings is {computed}",
                self.digest
            ));
        }
        self.services.iter().find_map(misnamed)
    }

    /// Whether it brings back just what was there before `other`; otherwise, why not.
    pub(crate) fn brings_back(&self, other: &Self) -> Result<(), String> {
        let same = |service: &ServiceRelease| {
            let before =
                other.services.iter().find(|own| own.name == service.name && own.namespace == service.namespace);
            before.is_some_and(|before| sorted(&plain(&before.old_template)) == sorted(&plain(&service.new_template)))
        };
        match self.services.iter().find(|service| !same(service)) {
            Some(service) => Err(format!("what it brings to `{}` is not what was there before that", service.name)),
            None => Ok(()),
        }
    }

    /// The image of every container of the new version: that of a service by its name, any other as `SERVICE/CONTAINER`.
    pub fn container_images(&self) -> BTreeMap<String, String> {
        self.services.iter().flat_map(|service| containers(&service.name, &service.new_template)).collect()
    }
}

/// What is signed of a service. How many copies it has, and what follows from that, is decided when it begins.
fn signed(service: &ServiceRelease) -> Value {
    let how = match &service.strategy {
        Strategy::Canary(canary) => json!(["canary", canary.declared, canary.judge, canary.decide_within_seconds]),
        other => json!([other.as_str()]),
    };
    json!([
        service.name,
        service.namespace,
        how,
        service.replacement,
        service.schema,
        plain(&service.old_template),
        plain(&service.new_template),
    ])
}

/// What is said of an image that is not the one of the template.
fn misnamed(service: &ServiceRelease) -> Option<String> {
    let versions = [(&service.old_image, &service.old_template), (&service.new_image, &service.new_template)];
    versions.into_iter().find_map(|(said, template)| {
        let image = image_of(template, &service.name).unwrap_or_default();
        (said != image).then(|| format!("it says `{said}` of `{}`, and the template has `{image}`", service.name))
    })
}

fn containers(service: &str, template: &Value) -> Vec<(String, String)> {
    let lists = ["containers", "initContainers"].map(|list| template["spec"][list].as_array());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let containers = lists.into_iter().flatten().flatten();
    containers
        .map(|container| {
            let name = text(&container["name"]);
            let key = if name == service { name } else { format!("{service}/{name}") };
            (key, text(&container["image"]))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::{RELEASE, annotate};

    fn template(image: &str, sidecar: &str) -> Value {
        let containers = json!([{ "name": "web", "image": image }, { "name": "proxy", "image": sidecar }]);
        json!({ "metadata": {}, "spec": { "containers": containers } })
    }

    /// A release of one service, with its digest.
    fn release() -> ReleaseSpec {
        let web = ServiceRelease {
            old_template: template("shop/web:1", "proxy:1"),
            new_template: template("shop/web:2", "proxy:1"),
            ..ServiceRelease::sample("web")
        };
        let mut spec = ReleaseSpec::sample(vec![web]);
        spec.digest = spec.computed_digest();
        spec
    }

    #[test]
    fn a_release_that_says_to_which_release_it_belongs_is_still_what_was_signed() {
        let mut spec = release();
        annotate(&mut spec.services[0].new_template, RELEASE, "shop-1");
        spec.number = 7;
        assert_eq!(spec.contradiction(), None);
    }

    #[test]
    fn whatever_is_changed_after_it_was_signed_is_seen() {
        let with = |change: fn(&mut ReleaseSpec)| {
            let mut spec = release();
            change(&mut spec);
            spec.contradiction().is_some()
        };
        assert!(with(|spec| spec.services[0].new_template = template("shop/web:2", "proxy:evil")), "a sidecar");
        assert!(with(|spec| spec.services[0].old_template = template("shop/web:0", "proxy:1")), "the way back");
        assert!(with(|spec| "shop/web:3".clone_into(&mut spec.services[0].new_image)), "what is shown");
        assert!(with(|spec| "elsewhere".clone_into(&mut spec.services[0].namespace)), "where");
        assert!(with(|spec| spec.gates.push(crate::gate::Gate::Thawed)), "the gates");
        assert!(with(|spec| spec.takes_back = Some("shop-0".to_owned())), "the way around them");
        assert!(with(|spec| spec.services[0].strategy = Strategy::Recreate), "how");
    }

    #[test]
    fn a_release_takes_another_back_when_it_brings_its_old_templates_only() {
        let before = release();
        let service = &before.services[0];
        let back = ServiceRelease { new_template: service.old_template.clone(), ..ServiceRelease::sample("web") };
        let mut back = ReleaseSpec::sample(vec![back]);
        annotate(&mut back.services[0].new_template, RELEASE, "shop-2");
        assert_eq!(back.brings_back(&before), Ok(()));
        back.services[0].new_template = template("shop/web:evil", "proxy:1");
        insta::assert_snapshot!(back.brings_back(&before).expect_err("it brings another image"), @"what it brings to `web` is not what was there before that");
        back.services[0] = ServiceRelease::sample("other");
        assert!(back.brings_back(&before).is_err());
    }

    #[test]
    fn every_container_is_shown() {
        let expected = [("web", "shop/web:2"), ("web/proxy", "proxy:1")];
        let expected = expected.map(|(key, image)| (key.to_owned(), image.to_owned()));
        assert_eq!(release().container_images(), expected.into());
    }
}
