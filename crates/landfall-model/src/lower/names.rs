//! Every reference by name must name something that is declared.

use crate::diagnostic::{Finding, unknown_name};
use crate::document::{Document, Engine, Map};
use crate::span::Spanned;
use crate::units::Name;

pub(super) fn check(document: &Document, findings: &mut Vec<Finding>) {
    let mut names = Names { document, findings };
    names.unique();
    names.platform();
    names.services();
    names.stores();
    names.traffic();
    names.delivery();
    names.observability();
    names.security_and_recovery();
}

struct Names<'a> {
    document: &'a Document,
    findings: &'a mut Vec<Finding>,
}

fn keys<T>(map: &Map<T>) -> Vec<&str> {
    map.keys().map(|name| name.as_str()).collect()
}

impl<'a> Names<'a> {
    fn known(&mut self, what: &str, name: &Spanned<Name>, known: &[&str]) {
        if !known.contains(&name.as_str()) {
            let name = Spanned::new(name.to_string(), name.span);
            self.findings.push(unknown_name(what, &name, known.iter().copied()));
        }
    }

    fn all_known<'b>(&mut self, what: &str, names: impl IntoIterator<Item = &'b Spanned<Name>>, known: &[&str]) {
        names.into_iter().for_each(|name| self.known(what, name, known));
    }

    /// Services, stores and externals share one space of names, and `client` is taken.
    fn unique(&mut self) {
        let document = self.document;
        let mut seen: std::collections::BTreeMap<&str, &Spanned<Name>> = std::collections::BTreeMap::new();
        for name in document.services.keys().chain(document.stores.keys()).chain(document.externals.keys()) {
            if name.as_str() == "client" {
                let finding = Finding::error("duplicate-name", name.span, "`client` means whoever stands outside");
                self.findings.push(finding.help("choose another name"));
            }
            if let Some(first) = seen.insert(name.as_str(), name) {
                let finding =
                    Finding::error("duplicate-name", name.span, format!("`{name}` is the name of two things"));
                self.findings.push(
                    finding.also(first.span, "the other one").help("edges name their target, so names are unique"),
                );
            }
        }
    }

    fn zones(&self) -> Vec<&'a str> {
        self.document.platform.regions.values().flat_map(|region| &region.zones).map(|zone| zone.as_str()).collect()
    }

    fn pools(&self) -> Vec<&'a str> {
        let platform = &self.document.platform;
        platform.nodes.iter().map(|_| "default").chain(platform.pools.keys().map(|name| name.as_str())).collect()
    }

    fn platform(&mut self) {
        let document = self.document;
        let zones = self.zones();
        for pool in document.platform.nodes.iter().chain(document.platform.pools.values()) {
            self.all_known("zone", &pool.zones, &zones);
        }
        let segments = keys(&document.segments);
        for segment in document.segments.values() {
            self.all_known("segment", &segment.reaches, &segments);
        }
    }

    fn services(&mut self) {
        let document = self.document;
        let (segments, pools) = (keys(&document.segments), self.pools());
        let (environments, stores) = (keys(&document.environments), keys(&document.stores));
        let secrets = keys(&document.security.secrets.items);
        for service in document.services.values() {
            self.all_known("segment", &service.segment, &segments);
            self.all_known("node pool", &service.placement.pool, &pools);
            self.all_known("environment", &service.environments, &environments);
            if let Some(schema) = &service.schema {
                self.known("store", &schema.store, &stores);
            }
            for value in service.env.values() {
                if let Some(secret) = &value.secret {
                    self.known("secret", &Spanned::new(secret.name.clone(), secret.span), &secrets);
                    self.secret_key(secret);
                }
                if let Some(store) = &value.store {
                    self.known("store", &Spanned::new(store.name.clone(), store.span), &stores);
                }
            }
            let ports: Vec<String> = service.all_ports().into_iter().map(|(name, _)| name).collect();
            let ports: Vec<&str> = ports.iter().map(String::as_str).collect();
            if let Some(expose) = &service.expose {
                self.all_known("port", &expose.port, &ports);
            }
            self.all_known("port", &service.metrics.port, &ports);
        }
    }

    fn secret_key(&mut self, reference: &Spanned<crate::units::Reference>) {
        let Some(secret) = self.document.security.secrets.items.get(reference.name.as_str()) else { return };
        let known: Vec<&str> = secret.keys.iter().map(|key| key.as_str()).collect();
        if !known.contains(&reference.key.as_str()) {
            let key = Spanned::new(reference.key.clone(), reference.span);
            self.findings.push(unknown_name(
                &format!("key in the secret `{}`", reference.name),
                &key,
                known.iter().copied(),
            ));
        }
    }

    fn stores(&mut self) {
        let document = self.document;
        let (segments, pools, zones) = (keys(&document.segments), self.pools(), self.zones());
        let (regions, environments) = (keys(&document.platform.regions), keys(&document.environments));
        let buckets: Vec<&str> = document
            .stores
            .iter()
            .filter(|(_, store)| store.engine.value == Engine::S3)
            .map(|(name, _)| name.as_str())
            .collect();
        for store in document.stores.values() {
            self.all_known("segment", &store.segment, &segments);
            self.all_known("node pool", &store.placement.pool, &pools);
            self.all_known("zone", &store.zones, &zones);
            self.all_known("region", &store.region, &regions);
            self.all_known("environment", &store.environments, &environments);
            if let Some(backup) = &store.backup {
                self.all_known("store of engine `s3`", &backup.to, &buckets);
                self.all_known("region", &backup.copies, &regions);
            }
        }
    }

    fn traffic(&mut self) {
        let document = self.document;
        let services = keys(&document.services);
        let flows = keys(&document.flows);
        let mut elements = [services.clone(), keys(&document.stores), keys(&document.externals)].concat();
        elements.push("client");
        for channel in document.channels.values() {
            self.all_known("flow", &channel.flows, &flows);
            self.all_known("service", &channel.mocks, &services);
        }
        for step in document.flows.values().flat_map(|flow| &flow.steps) {
            for end in [&step.from, &step.to] {
                self.known("service, store or external", &Spanned::new(end.clone(), step.span), &elements);
            }
        }
    }

    fn delivery(&mut self) {
        let document = self.document;
        let environments = keys(&document.environments);
        for environment in document.environments.values() {
            self.all_known("environment", &environment.after, &environments);
        }
        for stage in document.delivery.pipeline.iter().flat_map(|pipeline| &pipeline.stages) {
            self.all_known("environment", &stage.environment, &environments);
        }
        for item in &document.delivery.checklist {
            self.all_known("environment", &item.environment, &environments);
        }
        let secrets = keys(&document.security.secrets.items);
        for notify in document.told() {
            let Some((secret, webhook)) = notify.secret().zip(notify.webhook.as_ref()) else { continue };
            let secret = Spanned::new(secret, webhook.span);
            self.known("secret", &Spanned::new(secret.name.clone(), secret.span), &secrets);
            self.secret_key(&secret);
        }
    }

    fn observability(&mut self) {
        let document = self.document;
        let services = keys(&document.services);
        let receivers = keys(&document.observability.alerts.receivers);
        self.all_known("service", document.observability.business.values().map(|metric| &metric.from), &services);
        let routes = &document.observability.alerts.routes;
        for route in [&routes.critical, &routes.warning, &routes.info].into_iter().flatten() {
            self.known("receiver", &route.to, &receivers);
            self.all_known("receiver", route.escalate.iter().map(|step| &step.to), &receivers);
        }
    }

    fn security_and_recovery(&mut self) {
        let document = self.document;
        let environments = keys(&document.environments);
        let (stores, roles) = (keys(&document.stores), keys(&document.security.roles));
        let regions = keys(&document.platform.regions);
        for role in document.security.roles.values() {
            self.all_known("environment", &role.environments, &environments);
        }
        self.all_known("role", document.security.just_in_time.iter().map(|access| &access.role), &roles);
        self.all_known("store", document.security.masking.keys(), &stores);
        self.all_known("region", document.recovery.standby.iter().map(|standby| &standby.region), &regions);
        for replication in &document.recovery.replication {
            self.known("store", &replication.store, &stores);
            self.known("region", &replication.to, &regions);
        }
        let elements = [keys(&document.services), stores].concat();
        self.all_known(
            "service or store",
            document.recovery.drills.iter().filter_map(|drill| drill.on.as_ref()),
            &elements,
        );
    }
}
