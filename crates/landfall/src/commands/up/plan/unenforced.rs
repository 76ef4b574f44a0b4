//! What the architecture asks of its surroundings and nothing on this machine enforces: a line for each kind, so that nobody
//! takes a run here as evidence of it. TLS, rate limits and network policies are not among them: the engine enforces those. Nor are
//! firewalls, of which [`super::firewall`] speaks.

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
    let closed = architecture.exposed().filter(|(_, _, expose)| expose.access.value == Access::Authenticated);
    let closed: Vec<&str> = closed.map(|(name, _, _)| name.as_str()).collect();

    let mut lines = Vec::new();
    if stands_in_front(EdgeLayer::Cdn) && !hosts.is_empty() {
        let hosts = listed(hosts);
        lines.push(format!("the CDN in front of {hosts} is not on this machine: every request comes to the gateway"));
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
    lines
}

pub(super) fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::up::architecture_of;

    fn told(text: &str) -> String {
        let text = format!("landfall: v1\nname: shop\n{text}");
        let architecture = architecture_of(&text);
        unenforced(&architecture).join("\n")
    }

    #[test]
    fn what_stands_in_front_of_the_platform_is_told_once_for_each_kind() {
        let shop = "
platform:
  edge: [cdn, load-balancer]
  mesh: { kind: istio }
services:
  web: { port: 8080, expose: shop.example }
  admin: { port: 8080, expose: { host: shop.example, path: /admin, access: authenticated } }
  stock: { port: 8080, uses: [{ call: web }] }
";
        insta::assert_snapshot!(told(shop), @r"
        the CDN in front of `shop.example` is not on this machine: every request comes to the gateway
        `admin` is for callers with a credential, and the gateway asks nobody for one
        the mesh is not on this machine: what is rendered for Istio does nothing, and services speak to each other in plain text, without mTLS
        ");
    }

    #[test]
    fn what_asks_for_nothing_is_told_nothing() {
        assert_eq!(told("services:\n  web: { port: 8080, expose: shop.example }\n"), "");
    }
}
