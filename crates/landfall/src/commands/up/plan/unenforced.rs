//! What the architecture asks of its surroundings and nothing on this machine enforces: a line for each kind, so that nobody
//! takes a run here as evidence of it. TLS, rate limits and network policies are not among them: the engine enforces those.

use std::collections::BTreeSet;

use landfall_model::{Access, Architecture, EdgeLayer, MeshKind};

use super::Plan;

impl Plan {
    /// Says what is declared and not enforced.
    pub(super) fn add_unenforced(&mut self, architecture: &Architecture) {
        self.left_out.extend(unenforced(architecture));
    }
}

fn unenforced(architecture: &Architecture) -> Vec<String> {
    let platform = &architecture.document.platform;
    let stands_in_front = |wanted: EdgeLayer| platform.edge.iter().any(|layer| layer.value == wanted);
    let hosts: BTreeSet<&str> = architecture.exposed().map(|(_, _, expose)| expose.host.as_str()).collect();
    let exposed = architecture.exposed();
    let filtered = exposed.filter(|(_, _, expose)| expose.waf.value || stands_in_front(EdgeLayer::Waf));
    let filtered: Vec<&str> = filtered.map(|(name, _, _)| name.as_str()).collect();
    let closed = architecture.exposed().filter(|(_, _, expose)| expose.access.value == Access::Authenticated);
    let closed: Vec<&str> = closed.map(|(name, _, _)| name.as_str()).collect();
    let flows = architecture.document.flows.iter();
    let carrying = flows.filter(|(_, flow)| flow.payload.schema.is_some() || flow.payload.size.is_some());
    let carrying: Vec<&str> = carrying.map(|(name, _)| name.as_str()).collect();

    let mut lines = Vec::new();
    if stands_in_front(EdgeLayer::Cdn) && !hosts.is_empty() {
        let hosts = listed(hosts);
        lines.push(format!("the CDN in front of {hosts} is not on this machine: every request comes to the gateway"));
    }
    if !filtered.is_empty() {
        let services = listed(filtered);
        lines.push(format!(
            "the firewall in front of {services} is not on this machine: the gateway lets every request through"
        ));
    }
    if !closed.is_empty() {
        let verb = if closed.len() == 1 { "is" } else { "are" };
        let services = listed(closed);
        lines.push(format!("{services} {verb} for callers with a credential, and the gateway asks nobody for one"));
    }
    if let Some(mesh) = &platform.mesh {
        let named = match mesh.kind.value {
            MeshKind::Istio => "Istio",
        };
        lines.push(format!(
            "the mesh is not on this machine: what is rendered for {named} does nothing, and services speak to each other in plain text, without mTLS"
        ));
    }
    if !carrying.is_empty() {
        let flows = listed(carrying);
        lines.push(format!(
            "nothing compares the payload of {flows} with its schema or size: stand-ins send small messages of their own form"
        ));
    }
    lines
}

fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use landfall_model::File;

    use super::*;

    fn told(text: &str) -> String {
        let text = format!("landfall: v1\nname: shop\n{text}");
        let file = File::read("landfall.yaml", text.as_bytes(), &mut |_| Err("nothing is included".to_owned()));
        let architecture = file.architecture(None).unwrap_or_else(|findings| panic!("{findings:#?}"));
        unenforced(&architecture).join("\n")
    }

    #[test]
    fn what_stands_in_front_of_the_platform_is_told_once_for_each_kind() {
        let shop = "
platform:
  edge: [cdn, waf, load-balancer]
  mesh: { kind: istio }
services:
  web: { port: 8080, expose: shop.example }
  admin: { port: 8080, expose: { host: shop.example, path: /admin, access: authenticated } }
  stock: { port: 8080, uses: [{ call: web }] }
flows:
  order: { steps: [client -> web], payload: { schema: order.json } }
  upload: { steps: [client -> web], payload: { size: 5MB } }
  look: { steps: [client -> web] }
";
        insta::assert_snapshot!(told(shop), @r"
        the CDN in front of `shop.example` is not on this machine: every request comes to the gateway
        the firewall in front of `admin`, `web` is not on this machine: the gateway lets every request through
        `admin` is for callers with a credential, and the gateway asks nobody for one
        the mesh is not on this machine: what is rendered for Istio does nothing, and services speak to each other in plain text, without mTLS
        nothing compares the payload of `order`, `upload` with its schema or size: stand-ins send small messages of their own form
        ");
    }

    #[test]
    fn a_service_may_ask_for_a_firewall_alone() {
        let shop = "
services:
  web: { port: 8080, expose: { host: shop.example, waf: true } }
  open: { port: 8080, expose: { host: open.example } }
";
        insta::assert_snapshot!(told(shop), @"the firewall in front of `web` is not on this machine: the gateway lets every request through");
    }

    #[test]
    fn what_asks_for_nothing_is_told_nothing() {
        assert_eq!(told("services:\n  web: { port: 8080, expose: shop.example }\n"), "");
    }
}
