//! Addresses and node ports of services: taken when a service is written, given back when it goes.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::Rng as _;
use serde_json::{Value, json};

use crate::api::failure::Failure;
use crate::api::{Call, State, cause};
use crate::store::{Collection, Store};

/// What services may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ranges {
    /// The network of cluster addresses, and the length of its prefix.
    pub(crate) network: (Ipv4Addr, u8),
    /// The first and the last node port.
    pub(crate) node_ports: (u16, u16),
}

impl Default for Ranges {
    fn default() -> Self {
        Self { network: (Ipv4Addr::new(10, 96, 0, 0), 16), node_ports: (30000, 32767) }
    }
}

impl Ranges {
    /// The address of the API server itself.
    pub(crate) fn first_address(&self) -> Ipv4Addr {
        self.address(1)
    }

    fn address(&self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network.0).wrapping_add(offset))
    }

    fn size(&self) -> u32 {
        1_u32.checked_shl(32 - u32::from(self.network.1)).unwrap_or(u32::MAX)
    }

    fn contains(&self, address: Ipv4Addr) -> bool {
        let offset = u32::from(address).wrapping_sub(u32::from(self.network.0));
        // Neither the network's own address nor the one for everybody.
        offset > 0 && offset < self.size() - 1
    }

    fn network_text(&self) -> String {
        format!("{}/{}", self.network.0, self.network.1)
    }
}

/// What is taken.
#[derive(Debug, Default)]
pub(crate) struct Allocator {
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    addresses: BTreeSet<Ipv4Addr>,
    node_ports: BTreeSet<u16>,
}

impl Allocator {
    /// Finds out what the stored services have.
    pub(crate) fn restore(store: &Store) -> Self {
        let mut taken = Taken::default();
        for record in store.list(&Collection::new("", "services"), None).records {
            let service = record.value();
            taken.addresses.extend(addresses(&service));
            taken.node_ports.extend(node_ports(&service));
        }
        Self { taken: Arc::new(Mutex::new(taken)) }
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a write has taken. Dropped without [`Reservation::keep`], it gives it back.
pub(crate) struct Reservation {
    taken: Arc<Mutex<Taken>>,
    addresses: Vec<Ipv4Addr>,
    node_ports: Vec<u16>,
    /// To be given back when the write is made: what the service has no more.
    dropped_addresses: Vec<Ipv4Addr>,
    dropped_node_ports: Vec<u16>,
}

impl Reservation {
    pub(crate) fn keep(mut self) {
        self.addresses = std::mem::take(&mut self.dropped_addresses);
        self.node_ports = std::mem::take(&mut self.dropped_node_ports);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        self.addresses.iter().for_each(|address| {
            taken.addresses.remove(address);
        });
        self.node_ports.iter().for_each(|port| {
            taken.node_ports.remove(port);
        });
    }
}

fn addresses(service: &Value) -> Vec<Ipv4Addr> {
    let listed = service["spec"]["clusterIPs"].as_array().into_iter().flatten();
    let all: BTreeSet<Ipv4Addr> =
        listed.chain([&service["spec"]["clusterIP"]]).filter_map(|ip| ip.as_str()?.parse().ok()).collect();
    all.into_iter().collect()
}

fn node_ports(service: &Value) -> Vec<u16> {
    let ports = service["spec"]["ports"].as_array().into_iter().flatten().map(|port| &port["nodePort"]);
    let all: BTreeSet<u16> = ports
        .chain([&service["spec"]["healthCheckNodePort"]])
        .filter_map(|port| u16::try_from(port.as_u64()?).ok())
        .filter(|port| *port > 0)
        .collect();
    all.into_iter().collect()
}

pub(crate) fn release(state: &State, service: &Value) {
    let mut taken = state.services.lock();
    for address in addresses(service) {
        taken.addresses.remove(&address);
    }
    for port in node_ports(service) {
        taken.node_ports.remove(&port);
    }
}

/// Gives the service what its type has, and takes away what it has not.
pub(crate) fn assign(call: &Call<'_>, new: &mut Value, old: Option<&Value>) -> Result<Option<Reservation>, Failure> {
    if call.target.subresource == "status" {
        return Ok(None);
    }
    let state = call.state;
    let kind = new["spec"]["type"].as_str().unwrap_or("ClusterIP").to_owned();
    if old.is_some_and(|old| moves(new, old)) {
        // Validation refuses it: nothing is taken for it.
        return Ok(None);
    }
    let had = old.map(|old| (addresses(old), node_ports(old))).unwrap_or_default();
    inherit(new, old, &kind);
    let mut reservation = Reservation {
        taken: Arc::clone(&state.services.taken),
        addresses: Vec::new(),
        node_ports: Vec::new(),
        dropped_addresses: Vec::new(),
        dropped_node_ports: Vec::new(),
    };
    let mut taken = state.services.lock();
    if kind == "ExternalName" {
        if let Some(spec) = new["spec"].as_object_mut() {
            for key in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                spec.remove(key);
            }
        }
    } else {
        assign_families(call, new, old)?;
        let asked = asked_address(new);
        let address = match asked.as_deref() {
            Some("None") => None,
            Some(text) => Some(claim_address(call, new, &mut taken, &mut reservation, &had.0, text)?),
            None => Some(pick_address(call, new, &mut taken, &mut reservation)?),
        };
        let text = address.map_or_else(|| "None".to_owned(), |address| address.to_string());
        new["spec"]["clusterIP"] = text.as_str().into();
        new["spec"]["clusterIPs"] = json!([text]);
    }
    assign_ports(call, new, &kind, &had.1, &mut taken, &mut reservation)?;
    drop(taken);
    let (addresses, ports) = (addresses(new), node_ports(new));
    reservation.dropped_addresses = had.0.into_iter().filter(|address| !addresses.contains(address)).collect();
    reservation.dropped_node_ports = had.1.into_iter().filter(|port| !ports.contains(port)).collect();
    Ok(Some(reservation))
}

/// Whether an update gives a service another address than the one that it has. Who changes only one of the two fields
/// for it means both.
fn moves(new: &mut Value, old: &Value) -> bool {
    let external = |service: &Value| service["spec"]["type"] == "ExternalName";
    if external(new) || external(old) {
        return false;
    }
    let first = |service: &Value| service["spec"]["clusterIPs"].get(0).cloned().unwrap_or(Value::Null);
    let one = |service: &Value| service["spec"]["clusterIP"].as_str().unwrap_or_default().to_owned();
    if new["spec"]["clusterIPs"] == old["spec"]["clusterIPs"] && one(new) != one(old) {
        let text = one(new);
        new["spec"]["clusterIPs"] = if text.is_empty() { Value::Null } else { json!([text]) };
    }
    let (was, is) = (one(old), one(new));
    !was.is_empty() && (!is.is_empty() && is != was || first(new).as_str().is_some_and(|first| first != was))
}

/// Which kinds of addresses a service has; those of pods and nodes are all of one kind here. Nobody looks after the
/// endpoints of a headless service without a selector, which may be of both.
fn assign_families(call: &Call<'_>, new: &mut Value, old: Option<&Value>) -> Result<(), Failure> {
    let spec = &mut new["spec"];
    let free = spec["clusterIP"] == "None" && spec["selector"].as_object().is_none_or(serde_json::Map::is_empty);
    if !spec["ipFamilyPolicy"].is_string() {
        let known = old.map(|old| &old["spec"]["ipFamilyPolicy"]).filter(|known| known.is_string());
        let usual = if free { "RequireDualStack" } else { "SingleStack" };
        spec["ipFamilyPolicy"] = known.cloned().unwrap_or_else(|| usual.into());
    }
    if spec["ipFamilies"].as_array().is_none_or(Vec::is_empty) {
        spec["ipFamilies"] = json!(["IPv4"]);
    }
    let single = spec["ipFamilyPolicy"] == "SingleStack";
    let families: Vec<Value> = spec["ipFamilies"].as_array().cloned().unwrap_or_default();
    if single && families.len() > 1 {
        let why = "must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified";
        let cause = cause::invalid("spec.ipFamilyPolicy", &spec["ipFamilyPolicy"], why);
        return Err(invalid(call, new, cause));
    }
    if free {
        if !single && families.len() == 1 {
            let other = if families[0] == "IPv4" { "IPv6" } else { "IPv4" };
            spec["ipFamilies"] = json!([families[0], other]);
        }
        return Ok(());
    }
    if spec["ipFamilyPolicy"] == "RequireDualStack" {
        let why = "this cluster is not configured for dual-stack services";
        let cause = cause::invalid("spec.ipFamilyPolicy", &spec["ipFamilyPolicy"], why);
        return Err(invalid(call, new, cause));
    }
    if let Some(index) = families.iter().position(|family| family != "IPv4") {
        let field = format!("spec.ipFamilies[{index}]");
        let cause = cause::invalid(&field, &families[index], "not configured on this cluster");
        return Err(invalid(call, new, cause));
    }
    Ok(())
}

/// A client that updates a service without naming its address and ports means the ones that it has.
fn inherit(new: &mut Value, old: Option<&Value>, kind: &str) {
    let Some(old) = old else { return };
    if kind == "ExternalName" || old["spec"]["type"] == "ExternalName" {
        return;
    }
    if new["spec"]["clusterIP"].as_str().unwrap_or_default().is_empty() {
        for key in ["clusterIP", "clusterIPs"] {
            if let Some(value) = old["spec"].get(key) {
                new["spec"][key] = value.clone();
            }
        }
    }
    if matches!(kind, "NodePort" | "LoadBalancer") {
        let known = old["spec"]["ports"].as_array().cloned().unwrap_or_default();
        let number = |port: &Value| port["nodePort"].as_u64().filter(|number| *number > 0);
        let ports = new["spec"].get_mut("ports").and_then(Value::as_array_mut);
        let Some(ports) = ports else { return };
        let asked: Vec<u64> = ports.iter().filter_map(number).collect();
        for port in ports.iter_mut().filter(|port| number(port).is_none()) {
            // A port is known by its name: another name makes it another port.
            let same = known.iter().rfind(|other| other["name"] == port["name"]);
            if let Some(number) = same.and_then(number).filter(|number| !asked.contains(number)) {
                port["nodePort"] = number.into();
            }
        }
    }
}

fn asked_address(service: &Value) -> Option<String> {
    let listed = service["spec"]["clusterIPs"].as_array().and_then(|list| list.first());
    let text = service["spec"]["clusterIP"].as_str().filter(|text| !text.is_empty()).or_else(|| listed?.as_str())?;
    (!text.is_empty()).then(|| text.to_owned())
}

fn invalid(call: &Call<'_>, service: &Value, cause: crate::scheme::Cause) -> Failure {
    let name = service["metadata"]["name"].as_str().unwrap_or_default();
    Failure::invalid("", &call.resource.kind, name, &[cause])
}

fn claim_address(
    call: &Call<'_>,
    service: &Value,
    taken: &mut Taken,
    reservation: &mut Reservation,
    had: &[Ipv4Addr],
    text: &str,
) -> Result<Ipv4Addr, Failure> {
    let refuse = |why: String| invalid(call, service, cause::invalid("spec.clusterIPs", &json!([text]), &why));
    let address: Ipv4Addr = text.parse().map_err(|_| {
        let why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        invalid(call, service, cause::invalid("spec.clusterIPs[0]", &json!(text), why))
    })?;
    if had.contains(&address) {
        return Ok(address);
    }
    if !call.state.ranges.contains(address) {
        let range = call.state.ranges.network_text();
        return Err(refuse(format!(
            "failed to allocate IP {address}: the provided IP ({address}) is not in the valid range. The range of valid IPs is {range}"
        )));
    }
    if !taken.addresses.insert(address) {
        return Err(refuse(format!("failed to allocate IP {address}: provided IP is already allocated")));
    }
    reservation.addresses.push(address);
    Ok(address)
}

fn pick_address(
    call: &Call<'_>,
    service: &Value,
    taken: &mut Taken,
    reservation: &mut Reservation,
) -> Result<Ipv4Addr, Failure> {
    let ranges = &call.state.ranges;
    let last = ranges.size().saturating_sub(2);
    let start = rand::rng().random_range(1..=last);
    let free = (start..=last).chain(1..start).map(|offset| ranges.address(offset));
    let Some(address) = free.into_iter().find(|address| !taken.addresses.contains(address)) else {
        let name = service["metadata"]["name"].as_str().unwrap_or_default();
        return Err(Failure::internal(format!("failed to allocate a serviceIP for {name}: range is full")));
    };
    taken.addresses.insert(address);
    reservation.addresses.push(address);
    Ok(address)
}

fn assign_ports(
    call: &Call<'_>,
    service: &mut Value,
    kind: &str,
    had: &[u16],
    taken: &mut Taken,
    reservation: &mut Reservation,
) -> Result<(), Failure> {
    let wanted = match kind {
        "NodePort" => true,
        "LoadBalancer" => service["spec"]["allocateLoadBalancerNodePorts"].as_bool().unwrap_or(true),
        _ => false,
    };
    let mut ports = service["spec"]["ports"].as_array().cloned().unwrap_or_default();
    for (index, port) in ports.iter_mut().enumerate() {
        let asked = port["nodePort"].as_u64().filter(|number| *number > 0);
        if !matches!(kind, "NodePort" | "LoadBalancer") {
            if asked.is_some_and(|number| u16::try_from(number).is_ok_and(|number| had.contains(&number)))
                && let Some(port) = port.as_object_mut()
            {
                port.remove("nodePort");
            }
            continue;
        }
        let field = format!("spec.ports[{index}].nodePort");
        match asked {
            Some(number) => {
                let refuse = |why: String| invalid(call, service, cause::invalid(&field, &json!(number), &why));
                let (first, last) = call.state.ranges.node_ports;
                let number =
                    u16::try_from(number).ok().filter(|number| (first..=last).contains(number)).ok_or_else(|| {
                        refuse(format!(
                            "provided port is not in the valid range. The range of valid ports is {first}-{last}"
                        ))
                    })?;
                if had.contains(&number) || reservation.node_ports.contains(&number) {
                    continue;
                }
                if !taken.node_ports.insert(number) {
                    return Err(refuse("provided port is already allocated".to_owned()));
                }
                reservation.node_ports.push(number);
            }
            None if wanted => {
                let (first, last) = call.state.ranges.node_ports;
                let start = rand::rng().random_range(first..=last);
                let free = (start..=last).chain(first..start).find(|number| !taken.node_ports.contains(number));
                let number = free.ok_or_else(|| Failure::internal("failed to allocate a nodePort: range is full"))?;
                taken.node_ports.insert(number);
                reservation.node_ports.push(number);
                port["nodePort"] = number.into();
            }
            None => {}
        }
    }
    if !ports.is_empty() {
        service["spec"]["ports"] = ports.into();
    }
    Ok(())
}
