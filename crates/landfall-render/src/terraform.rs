//! An environment's machines, networks, managed stores and names as Terraform.
//!
//! [`terraform()`] writes a root module for each environment and region on each cloud that the file names, and the modules
//! that the roots call. A root without a cloud looks whether the machines are there that the file declares. No secret is
//! in any file. Names follow from the names of the file alone, so a later render moves nothing.
//!
//! Not handled: replicas of managed stores in another region, except copies of buckets and of the backups of RDS.

mod aws;
mod azure;
mod cloud;
mod gcp;
mod hcl;
mod machines;
mod managed;
mod modules;
mod needs;
mod root;

use std::collections::{BTreeMap, BTreeSet};

use landfall_model::{Architecture, EdgeLayer, Finding, Name, Region, Spanned};

use crate::object::FileTree;
use cloud::{Cloud, Location};
use hcl::{Value, raw};
use needs::Site;
use root::Root;

/// Renders the environments of one file: the files, and what no module can say.
pub(crate) fn terraform<'a>(environments: impl IntoIterator<Item = &'a Architecture>) -> (FileTree, Vec<Finding>) {
    let (mut files, mut findings, mut used) = (FileTree::new(), Vec::new(), BTreeSet::new());
    for architecture in environments {
        for cloud in clouds(architecture) {
            for (key, region) in &architecture.document.platform.regions {
                let Some(site) = site(architecture, cloud, key, region, &mut findings) else { continue };
                if site.is_empty() {
                    continue;
                }
                let root = root(&site, &mut findings);
                used.extend(root.used.iter().map(|module| (cloud, *module)));
                let environment = architecture.environment.as_ref().map_or("default", |name| name.as_str());
                let folder = format!("{}/{environment}/{}", cloud.folder(), key.value);
                let origin = format!("platform.regions.{}, in {environment}", key.value);
                let written = root.files(&site, &origin);
                files.extend(written.into_iter().map(|(path, text)| (format!("{folder}/{path}"), text)));
            }
        }
    }
    for (cloud, module) in used {
        files.extend(modules::files(cloud, module));
    }
    // Environments and clouds say much the same.
    let mut said = BTreeSet::new();
    findings.retain(|finding| said.insert(finding.message.clone()));
    (files, findings)
}

/// The clouds that the file names, or none.
fn clouds(architecture: &Architecture) -> BTreeSet<Cloud> {
    let document = &architecture.document;
    let regions = document.platform.regions.values().filter_map(|region| region.provider.as_ref());
    let named = regions.chain(&document.platform.providers).map(|provider| Cloud::from(provider.value));
    let stores = document.stores.values().filter_map(|store| Cloud::of_store(store.provider.value));
    let clouds: BTreeSet<Cloud> = named.chain(stores).collect();
    if clouds.is_empty() { BTreeSet::from([Cloud::None]) } else { clouds }
}

/// The cloud that the file means a region to be on: what it says, or the first that the platform names.
fn home(architecture: &Architecture, region: &Region) -> Cloud {
    let first = architecture.document.platform.providers.first();
    let said = region.provider.as_ref().or(first).map(|provider| Cloud::from(provider.value));
    said.or_else(|| clouds(architecture).into_iter().next()).unwrap_or(Cloud::None)
}

/// A region on a cloud; `None`, with a finding, where the cloud has no place for it in the country.
fn site<'a>(
    architecture: &'a Architecture,
    cloud: Cloud,
    key: &'a Spanned<Name>,
    region: &'a Region,
    findings: &mut Vec<Finding>,
) -> Option<Site<'a>> {
    let mut locations = BTreeMap::new();
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    let mut failed = None;
    for (other, its) in &architecture.document.platform.regions {
        let country = its.country.as_ref().map_or("", |country| country.value.as_str());
        let place = places.entry(country).or_default();
        let found = location(architecture, cloud, its, *place);
        *place += 1;
        match found {
            Ok(name) => drop(locations.insert(other.value.to_string(), name)),
            Err(reason) if other.value == key.value => failed = Some(reason),
            Err(_) => {}
        }
    }
    if let Some(reason) = failed {
        let span = region.location.as_ref().map_or(key.span, |location| location.span);
        let what = format!("region `{}` is not rendered for {}", key.value, cloud.folder());
        findings.push(Finding::note("not-rendered", span, what).on(format!("region.{}", key.value)).because(reason));
        return None;
    }
    let location = locations.get(key.value.as_str())?.clone();
    let zones = match cloud {
        Cloud::None => region.zones.iter().map(|zone| zone.value.to_string()).collect(),
        _ => cloud::zones(cloud, &location, region),
    };
    Some(Site { architecture, key, region, cloud, home: home(architecture, region), location, zones, locations })
}

/// The cloud's name of a region's location. Data stays in the country that the file declares.
fn location(architecture: &Architecture, cloud: Cloud, region: &Region, place: usize) -> Result<String, String> {
    let declared = region.location.as_ref().map(|location| location.value.as_str());
    let country = region.country.as_ref().map(|country| country.value.as_str());
    if cloud == Cloud::None {
        return Ok(declared.unwrap_or_default().to_owned());
    }
    if let (true, Some(name)) = (home(architecture, region) == cloud, declared) {
        return match (Location::named(cloud, name), country) {
            (Some(known), Some(country)) if known.country != country => {
                Err(format!("`{name}` is in {}, and the file says {country}", known.country))
            }
            _ => Ok(name.to_owned()),
        };
    }
    let country = country.ok_or("neither a location of this cloud nor a country is declared")?;
    Location::in_country(cloud, country, place)
        .map(|location| location.name.to_owned())
        .ok_or_else(|| format!("no location of it in {country} is known here"))
}

/// The root of one region.
fn root(site: &Site<'_>, findings: &mut Vec<Finding>) -> Root {
    let mut root = Root::default();
    match site.cloud {
        Cloud::Aws => aws::calls(&mut root, site, findings),
        Cloud::Azure => azure::calls(&mut root, site, findings),
        Cloud::Gcp => gcp::calls(&mut root, site, findings),
        Cloud::None => on_premises(&mut root, site, findings),
    }
    replicas(site, findings);
    root
}

/// What nobody makes: machines that are there already.
fn on_premises(root: &mut Root, site: &Site<'_>, findings: &mut Vec<Finding>) {
    if !site.has_cluster() {
        return;
    }
    let pools = site.architecture.pools().into_iter().map(|(name, pool)| {
        let zones = machines::zones_of(site, pool);
        let value = Value::object([
            ("count", Value::from(pool.count.value)),
            ("cpu", raw(format!("{}", pool.cpu.value.millicores() / 1000))),
            ("memory", Value::from(pool.memory.value.get() >> 30)),
            ("zones", Value::texts(zones)),
            ("dedicated", pool.dedicated.value.into()),
        ]);
        (name, value)
    });
    root.call(site, "cluster", "cluster", vec![("pools", Value::object(pools))]);
    root.output("nodes", "The nodes of each pool.", "module.cluster.nodes");
    for layer in &site.architecture.document.platform.edge {
        let name = match layer.value {
            EdgeLayer::Cdn => "content delivery network",
            EdgeLayer::Waf => "web application firewall",
            // The ingress of the cluster asks for it by its Service.
            EdgeLayer::LoadBalancer => continue,
        };
        findings.push(
            Finding::note("not-rendered", layer.span, format!("no Terraform makes the {name}"))
                .because("the file names no cloud")
                .help("name one in `platform.providers`, or set it up by hand"),
        );
    }
}

/// Copies of stores in this region that no module makes.
fn replicas(site: &Site<'_>, findings: &mut Vec<Finding>) {
    let document = &site.architecture.document;
    for replication in &document.recovery.replication {
        let Some(store) = document.stores.get(replication.store.value.as_str()) else { continue };
        let copied = store.engine.value == landfall_model::Engine::S3;
        if replication.to.value == site.key.value && store.provider.value.is_managed() && !copied {
            let name = &replication.store.value;
            findings.push(
                Finding::note(
                    "not-rendered",
                    replication.store.span,
                    format!("no Terraform makes the replica of `{name}` in `{}`", site.key.value),
                )
                .on(format!("store.{name}"))
                .help("make it by hand, or restore its backup there"),
            );
        }
    }
}
