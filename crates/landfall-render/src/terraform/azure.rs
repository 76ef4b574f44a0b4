//! The calls of the modules of Microsoft Azure.

use landfall_model::{EdgeLayer, Engine, Finding};

use super::hcl::{Value, raw};
use super::machines;
use super::managed::{Argument, Managed, buckets, identify, identity_of_people, kubernetes_version, names};
use super::needs::Site;
use super::root::{Root, tags};

/// Adds everything that the region needs.
pub(super) fn calls(root: &mut Root, site: &Site<'_>, findings: &mut Vec<Finding>) {
    if !site.has_cluster() {
        // An account of storage stands in a network, which only a cluster's region has.
        findings.extend(Managed::all(site).iter().map(Managed::unknown));
        return;
    }
    let tenant = root.variable("tenant_id", "string", "The tenant.", None);
    root.call(
        site,
        "network",
        "network",
        vec![
            ("name", site.prefix().into()),
            ("location", site.location.as_str().into()),
            ("tags", tags(site)),
            ("zones", Value::texts(&site.zones)),
        ],
    );
    cluster(root, site, &tenant, findings);
    for managed in Managed::all(site) {
        store(root, &managed, &tenant, findings);
    }
    names(root, site, vec![("resource_group", raw("module.network.resource_group")), ("tags", tags(site))]);
    if site.has_registry() {
        let own = [("pull_principal_id", raw("module.cluster.pull_principal_id"))];
        root.call(site, "registry", "registry", placed(site, site.short("images"), own));
        root.output("image_url", "Where images are pushed to.", "module.registry.url");
    }
    if site.has_secrets() {
        let own = [("tenant_id", tenant), ("subnet_id", raw("module.network.endpoint_subnet_id"))];
        root.call(site, "secrets", "secrets", placed(site, site.short("secrets"), own));
    }
    for identity in site.identities() {
        let mut own = vec![
            ("oidc_issuer", raw("module.cluster.oidc_issuer")),
            ("namespace", identity.namespace.as_str().into()),
            ("service_account", identity.account.as_str().into()),
        ];
        own.extend(buckets(&identity, "id").map(|buckets| ("storage_account_ids", buckets)));
        if identity.secrets {
            own.push(("vault_ids", Value::List(vec![raw("module.secrets.id")])));
        }
        let name = format!("{}-{}", site.prefix(), identity.name);
        identify(root, site, &identity, placed(site, name, own));
    }
    edge(root, site);
}

/// The arguments that everything has, and its own.
fn placed(site: &Site<'_>, name: String, own: impl IntoIterator<Item = Argument>) -> Vec<Argument> {
    let place = [
        ("name", name.into()),
        ("resource_group", raw("module.network.resource_group")),
        ("location", site.location.as_str().into()),
        ("tags", tags(site)),
    ];
    place.into_iter().chain(own).collect()
}

fn cluster(root: &mut Root, site: &Site<'_>, tenant: &Value, findings: &mut Vec<Finding>) {
    let private = site.architecture.document.platform.private_api.value;
    let mut own = vec![
        kubernetes_version(site),
        ("subnet_id", raw("module.network.private_subnet_id")),
        ("tenant_id", tenant.clone()),
        ("private_api", private.into()),
        ("pools", machines::pools(site, findings)),
    ];
    if !private {
        let what = "Who may reach the API server from outside the network, as CIDR blocks.";
        let nobody = Some(Value::texts(["127.0.0.1/32"]));
        own.push(("api_addresses", root.variable("api_addresses", "list(string)", what, nobody)));
    }
    root.call(site, "cluster", "cluster", placed(site, site.prefix(), own));
    let why = "an AKS cluster takes its users from Microsoft Entra ID";
    identity_of_people(site, why, "federate the tenant with the issuer", findings);
    root.output("cluster_name", "The name of the cluster.", "module.cluster.name");
}

fn store(root: &mut Root, managed: &Managed<'_>, tenant: &Value, findings: &mut Vec<Finding>) {
    let site = managed.site;
    let endpoint = ("subnet_id", raw("module.network.endpoint_subnet_id"));
    let copies: Vec<&str> = managed.copies().into_iter().map(|(_, location)| location).collect();
    let members = managed.members();
    let mut own_name = managed.own_name.clone();
    let (module, own): (_, Vec<Argument>) = match managed.engine() {
        Engine::S3 => {
            own_name = site.short(managed.name.value.as_str());
            let copies = (!copies.is_empty()).then(|| ("copy_locations", Value::texts(copies)));
            ("bucket", std::iter::once(endpoint).chain(managed.keep_days()).chain(copies).collect())
        }
        Engine::Postgres => {
            let Some(instance) = managed.instance(findings) else { return };
            let network = [
                ("tenant_id", tenant.clone()),
                ("subnet_id", raw("module.network.data_subnet_id")),
                ("private_dns_zone_id", raw("module.network.postgres_zone_id")),
                instance,
            ];
            let backups = [managed.backup_days(0, 35), ("backup_copies", (!copies.is_empty()).into())];
            ("postgres", network.into_iter().chain(managed.relational()).chain(backups).collect())
        }
        Engine::Redis => {
            let Some(instance) = managed.instance(findings) else { return };
            ("redis", vec![endpoint, instance, ("available", (members > 1).into())])
        }
        Engine::Kafka => {
            let topics = managed.topics(|settings| {
                let retention = settings.retention.as_ref().map_or(168, |kept| kept.value.seconds().div_ceil(3600));
                vec![("retention_hours", Value::from(retention))]
            });
            // Premium namespaces have 1, 2, 4, 8, 12 or 16 units.
            let capacity = [1, 2, 4, 8, 12, 16].into_iter().find(|units| *units >= members).unwrap_or(16);
            ("kafka", vec![endpoint, ("capacity", Value::from(capacity)), topics])
        }
        Engine::Mongodb | Engine::Rabbitmq | Engine::Mqtt | Engine::Elasticsearch => {
            findings.push(managed.unknown());
            return;
        }
    };
    managed.place(root, module, placed(site, own_name, own));
}

fn edge(root: &mut Root, site: &Site<'_>) {
    let hosts = site.edge_hosts();
    if hosts.is_empty() {
        return;
    }
    let zone = root.variable("dns_zone", "string", "The DNS zone that the names of the platform are in.", None);
    let group = root.variable("dns_zone_resource_group", "string", "The resource group of the DNS zone.", None);
    let what = "The name of the load balancer of the cluster's ingress.";
    let origin = root.variable("origin", "string", what, None);
    root.call(
        site,
        "edge",
        "edge",
        vec![
            ("name", site.short("edge").into()),
            ("resource_group", raw("module.network.resource_group")),
            ("tags", tags(site)),
            ("hosts", Value::texts(hosts)),
            ("zone", zone),
            ("zone_resource_group", group),
            ("origin", origin),
            ("waf", site.has_edge(EdgeLayer::Waf).into()),
        ],
    );
    root.output("edge_address", "The name of the edge.", "module.edge.address");
}
