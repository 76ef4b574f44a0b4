//! The calls of the modules of Microsoft Azure.

use landfall_model::{EdgeLayer, Engine, Finding, Name, Spanned, Store};

use super::cloud;
use super::hcl::{Value, raw};
use super::machines;
use super::needs::Site;
use super::root::{Root, identifier, tags};

/// Adds everything that the region needs.
pub(super) fn calls(root: &mut Root, site: &Site<'_>, findings: &mut Vec<Finding>) {
    if !site.has_cluster() {
        // An account of storage stands in a network, which only a cluster's region has.
        findings
            .extend(site.stores().into_iter().map(|(name, store)| machines::unknown(site, name.value.as_str(), store)));
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
    for (name, store) in site.stores() {
        self::store(root, site, name, store, &tenant, findings);
    }
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
        let call = identifier("identity", &identity.name);
        let mut own = vec![
            ("oidc_issuer", raw("module.cluster.oidc_issuer")),
            ("namespace", identity.namespace.into()),
            ("service_account", identity.account.as_str().into()),
        ];
        if !identity.buckets.is_empty() {
            let buckets =
                identity.buckets.iter().map(|bucket| raw(format!("module.{}.id", identifier("store", bucket))));
            own.push(("storage_account_ids", Value::List(buckets.collect())));
        }
        if identity.secrets {
            own.push(("vault_ids", Value::List(vec![raw("module.secrets.id")])));
        }
        root.call(site, "identity", &call, placed(site, format!("{}-{}", site.prefix(), identity.name), own));
        let what = format!("The annotation of the service account {}.", identity.account);
        root.output(&call, what, format!("module.{call}.annotation"));
    }
    edge(root, site);
}

/// The arguments that everything has, and its own.
fn placed(
    site: &Site<'_>,
    name: String,
    own: impl IntoIterator<Item = (&'static str, Value)>,
) -> Vec<(&'static str, Value)> {
    let place = [
        ("name", name.into()),
        ("resource_group", raw("module.network.resource_group")),
        ("location", site.location.as_str().into()),
        ("tags", tags(site)),
    ];
    place.into_iter().chain(own).collect()
}

fn cluster(root: &mut Root, site: &Site<'_>, tenant: &Value, findings: &mut Vec<Finding>) {
    let platform = &site.architecture.document.platform;
    let version = platform.kubernetes.as_ref().map_or("1.36", |version| version.value.as_str());
    let private = platform.private_api.value;
    let mut own = vec![
        ("kubernetes_version", version.into()),
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
    root.output("cluster_name", "The name of the cluster.", "module.cluster.name");
}

fn store(
    root: &mut Root,
    site: &Site<'_>,
    name: &Spanned<Name>,
    store: &Store,
    tenant: &Value,
    findings: &mut Vec<Finding>,
) {
    let engine = store.engine.value;
    let call = identifier("store", name.value.as_str());
    let own_name = format!("{}-{}", site.prefix(), name.value);
    let endpoint = ("subnet_id", raw("module.network.endpoint_subnet_id"));
    let copies: Vec<&String> =
        site.copies(name, store).into_iter().filter_map(|copy| site.locations.get(copy.as_str())).collect();
    let version = cloud::version(site.cloud, engine, store.version.as_ref().map(|version| version.value.as_str()));
    let members = store.members.value;
    let (module, own_name, own) = match engine {
        Engine::S3 => {
            let mut own = vec![endpoint];
            let days = site.keep_days(name);
            if days > 0 {
                own.push(("keep_days", days.into()));
            }
            if !copies.is_empty() {
                own.push(("copy_locations", Value::texts(copies)));
            }
            ("bucket", site.short(name.value.as_str()), own)
        }
        Engine::Postgres => {
            let Some(instance) = machines::instance(site, name.value.as_str(), store, findings) else { return };
            let own = vec![
                ("tenant_id", tenant.clone()),
                ("engine_version", version.into()),
                ("instance_class", instance.into()),
                ("size", machines::volume(store).into()),
                ("members", members.into()),
                ("zones", Value::texts(&site.zones)),
                ("subnet_id", raw("module.network.data_subnet_id")),
                ("private_dns_zone_id", raw("module.network.postgres_zone_id")),
                ("require_tls", site.architecture.encrypts_in_transit(store).into()),
                ("backup_days", machines::backup_days(store, 35).into()),
                ("backup_copies", (!copies.is_empty()).into()),
            ];
            ("postgres", own_name, own)
        }
        Engine::Redis => {
            let Some(instance) = machines::instance(site, name.value.as_str(), store, findings) else { return };
            (
                "redis",
                own_name,
                vec![endpoint, ("instance_class", instance.into()), ("available", (members > 1).into())],
            )
        }
        Engine::Kafka => {
            let topics = store.topics.iter().map(|(topic, settings)| {
                let retention = settings.retention.as_ref().map_or(168, |kept| kept.value.seconds().div_ceil(3600));
                let value = Value::object([
                    ("partitions", settings.partitions.as_ref().map_or(1, |partitions| partitions.value).into()),
                    ("retention_hours", Value::from(retention)),
                ]);
                (topic.value.as_str(), value)
            });
            // Premium namespaces have 1, 2, 4, 8, 12 or 16 units.
            let capacity = [1, 2, 4, 8, 12, 16].into_iter().find(|units| *units >= members).unwrap_or(16);
            ("kafka", own_name, vec![endpoint, ("capacity", Value::from(capacity)), ("topics", Value::object(topics))])
        }
        Engine::Mongodb | Engine::Rabbitmq | Engine::Mqtt | Engine::Elasticsearch => {
            findings.push(machines::unknown(site, name.value.as_str(), store));
            return;
        }
    };
    root.call(site, module, &call, placed(site, own_name, own));
    let (what, output) =
        if module == "bucket" { ("The account of", "name") } else { ("Where clients reach", "address") };
    root.output(&call, format!("{what} {}.", name.value), format!("module.{call}.{output}"));
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
