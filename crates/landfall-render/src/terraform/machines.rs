//! Node pools and the members of managed stores: from what the file declares to the cloud's machines.

use landfall_model::{Bytes, Cpu, Finding, Name, NodePool, Spanned, Store};

use super::cloud;
use super::hcl::Value;
use super::needs::Site;

/// What a member of a store gets that declares nothing.
const DEFAULT_CPU: Cpu = Cpu::from_millicores(2000);
const DEFAULT_MEMORY: Bytes = Bytes::new(8 << 30);

/// The node pools as the modules of clusters take them.
pub(super) fn pools(site: &Site<'_>, findings: &mut Vec<Finding>) -> Value {
    let pools = site.architecture.pools().into_iter().filter_map(|(name, pool)| {
        let declared = pool.machine.as_ref().filter(|_| site.cloud == site.home).map(|machine| machine.value.clone());
        let Some(machine) = declared.or_else(|| cloud::machine(site.cloud, pool)) else {
            findings.push(
                Finding::note("not-rendered", pool.cpu.span, format!("no machine is known for the pool `{name}`"))
                    .because("no size has so many cores or so much memory")
                    .help("name one by `machine`"),
            );
            return None;
        };
        let value = Value::object([
            ("count", Value::from(pool.count.value)),
            ("machine_type", machine.into()),
            ("zones", Value::texts(zones_of(site, pool))),
            ("dedicated", pool.dedicated.value.into()),
        ]);
        Some((name, value))
    });
    Value::object(pools.collect::<Vec<_>>())
}

/// The cloud's names of a pool's zones.
pub(super) fn zones_of(site: &Site<'_>, pool: &NodePool) -> Vec<String> {
    let position = |zone: &Spanned<Name>| site.region.zones.iter().position(|known| known.value == zone.value);
    let named: Vec<String> = pool.zones.iter().filter_map(|zone| site.zones.get(position(zone)?).cloned()).collect();
    if named.is_empty() { site.zones.clone() } else { named }
}

/// The machine of a store's members; a finding and `None` where there is none.
pub(super) fn instance(site: &Site<'_>, name: &str, store: &Store, findings: &mut Vec<Finding>) -> Option<String> {
    let (cpu, memory) = size(store);
    let fitting = || cloud::instance(site.cloud, store.engine.value, cpu, memory);
    let instance = site.declared_machine(store).or_else(fitting);
    if instance.is_none() {
        findings.push(
            Finding::note("not-rendered", store.engine.span, format!("no machine is known for the store `{name}`"))
                .on(format!("store.{name}"))
                .help("name one by `instance`"),
        );
    }
    instance
}

/// The cores and the memory of each member: what it may use at most.
pub(super) fn size(store: &Store) -> (Cpu, Bytes) {
    let cpu = store.resources.cpu.as_ref().map_or(DEFAULT_CPU, |cpu| cpu.value.high);
    let memory = store.resources.memory.as_ref().map_or(DEFAULT_MEMORY, |memory| memory.value.high);
    (cpu, memory)
}

/// The size of each member's volume, in GiB.
pub(super) fn volume(store: &Store) -> u64 {
    store.size.as_ref().map_or(20, |size| size.value.get().div_ceil(1 << 30))
}

/// How many days backups are kept, at most so many.
pub(super) fn backup_days(store: &Store, at_most: u64) -> u64 {
    store.backup.as_ref().map_or(0, |backup| backup.keep.value.seconds().div_ceil(86_400)).min(at_most)
}

/// A finding for a store that the cloud does not run.
pub(super) fn unknown(site: &Site<'_>, name: &str, store: &Store) -> Finding {
    let engine = store.engine.value.as_str();
    let what = format!("no Terraform makes the store `{name}` on {}", site.cloud.folder());
    Finding::note("not-rendered", store.engine.span, what)
        .on(format!("store.{name}"))
        .because(format!("there is no module for {engine} there"))
        .help("run it by an operator in the cluster, or set it up by hand")
}
