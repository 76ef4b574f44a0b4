//! Isolation: the declared edges and the policies rendered from them allow the same connections, and no others.
//!
//! One side is the file, the other an analysis of the objects that knows nothing of the renderer. What both must agree
//! on: edges, exposure through the ingress controller, scrapes, name resolution, and the ways out of the cluster.
//! Not handled: Istio's `AuthorizationPolicy`, and addresses that share a policy because plain `NetworkPolicy` has no
//! DNS names; such an exit is only checked by port and, where the external lists them, by address.

mod declared;
mod parties;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use landfall_model::{Element, Finding, Severity, Span};
use serde_json::Value;

use super::dangling_reference;
use super::wording::{count, names, proof};
use crate::cluster::{
    Cluster, Direction, Endpoint, Grant, GrantedBy, ObjectKey, Port, Problem, Reachability, Relation, Source, Verdict,
    WorkloadId,
};
use crate::report::{self, Report};
use crate::rule::{Context, Rule, Subject};
use declared::{Declared, Wanted};
use parties::{Parties, Party};

/// How many lines of a namespace's proof are written out.
const MAX_LINES: usize = 20;

/// The two ends of a connection, as derivations name them.
const LEAVING: &str = "leaving";
const ARRIVING: &str = "arriving";

pub(super) const RULE: Rule = Rule {
    name: "isolation",
    subject: Subject::Isolation,
    severity: Severity::Error,
    summary: "The rendered network policies allow the declared connections, and no others.",
    explanation: "The rule compares two relations. The declared one comes from the file: the edges under `uses`, the \
        ingress controller to what is exposed, Prometheus to metrics ports, stores to the bucket of their backups, pods to \
        the trace collector. The allowed one is worked out from the rendered objects, with patches and raw objects, as \
        Kubernetes evaluates them: a connection needs the egress policies of its source and the ingress policies of its \
        destination; policies add up; a pod that no policy selects is open \
        (https://kubernetes.io/docs/concepts/services-networking/network-policies/). It also knows the pods that operators \
        make and the policy that Strimzi adds by itself. A connection that is allowed but not declared is an error that \
        names the rule which allows it; one that is declared but blocked names the side and the policy. A policy of type \
        Egress without a rule for DNS blocks name resolution, so that no Service is found \
        (https://github.com/kubernetes/website/issues/54997). When the file was checked without rendering, the rule says \
        nothing.",
    passing: include_str!("../../tests/it/rules/isolation/ok.yaml"),
    failing: include_str!("../../tests/it/rules/isolation/bad.yaml"),
    run: Some(run),
};

fn run(context: &Context<'_>, report: &mut Report) {
    if context.objects.is_empty() {
        return;
    }
    let parties = Parties::new(context.architecture, context.objects);
    let comparison = Comparison {
        context,
        relation: parties.cluster.relation(),
        declared: Declared::new(context.architecture),
        origins: origins(context),
        cluster: &parties.cluster,
        parties: &parties,
        subjects: BTreeSet::new(),
        unknown: BTreeSet::new(),
        findings: Vec::new(),
    };
    comparison.run(report);
    dangling_reference::report(context, &parties.cluster, report);
}

/// Where the policies come from that the user wrote, raw objects and patches, by name.
fn origins(context: &Context<'_>) -> BTreeMap<String, Span> {
    let document = &context.architecture.document;
    let raw = document.objects.iter().filter_map(|object| {
        let text = |pointer: &str| object.value.pointer(pointer).and_then(Value::as_str);
        (text("/kind") == Some("NetworkPolicy")).then_some((text("/metadata/name")?.to_owned(), object.span))
    });
    let patched = document.patches.iter().filter(|patch| patch.target.kind.as_str() == "NetworkPolicy");
    let patched = patched.filter_map(|patch| patch.target.name.as_ref().map(|name| (name.value.clone(), name.span)));
    raw.chain(patched).collect()
}

struct Comparison<'a> {
    context: &'a Context<'a>,
    declared: Declared,
    /// By name of the policy.
    origins: BTreeMap<String, Span>,
    cluster: &'a Cluster,
    relation: Relation,
    parties: &'a Parties,
    /// The ends with an error.
    subjects: BTreeSet<Party>,
    /// The elements without a pod among the objects.
    unknown: BTreeSet<Element>,
    findings: Vec<Finding>,
}

/// Who may open an undeclared connection.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Intruder {
    Outside,
    Anybody,
    Party(Party),
}

impl Comparison<'_> {
    fn run(mut self, report: &mut Report) {
        let pairs = self.undeclared();
        let edges = self.blocked();
        self.exits();
        self.names_resolve();
        self.limits();
        self.prove(&pairs, &edges, report);
        report.findings.append(&mut self.findings);
    }

    /// Reports what is allowed without being declared; returns how many pairs are allowed by namespace.
    fn undeclared(&mut self) -> BTreeMap<String, usize> {
        let mut allowed: BTreeMap<String, usize> = BTreeMap::new();
        let mut found: BTreeMap<(Party, Intruder), (BTreeSet<Port>, Endpoint, WorkloadId)> = BTreeMap::new();
        for connection in &self.relation.connections {
            let to = self.parties.of(connection.to);
            if matches!(to, Party::Ingress | Party::Monitoring | Party::Telemetry | Party::Solver | Party::Stranger)
                && !matches!(connection.from, Source::Workload(_))
            {
                continue;
            }
            let counted = allowed.entry(self.cluster.workload(connection.to).key.namespace.clone()).or_default();
            let (intruder, from) = match connection.from {
                Source::Outside => {
                    *counted += 1;
                    (Intruder::Outside, Endpoint::Outside)
                }
                Source::Unrestricted => {
                    let others = self.relation.unrestricted.iter().filter(|from| self.parties.of(**from) != to);
                    *counted += others.clone().count();
                    let undeclared =
                        others.clone().find(|from| !self.declared.allows(self.parties.of(**from), to, connection.port));
                    let Some(from) = undeclared else { continue };
                    (Intruder::Anybody, Endpoint::Workload(*from))
                }
                Source::Workload(from) => {
                    let party = self.parties.of(from);
                    if party == to {
                        continue;
                    }
                    *counted += 1;
                    if self.declared.allows(party, to, connection.port) {
                        continue;
                    }
                    (Intruder::Party(party.clone()), Endpoint::Workload(from))
                }
            };
            let entry = found.entry((to.clone(), intruder)).or_insert_with(|| (BTreeSet::new(), from, connection.to));
            entry.0.insert(connection.port);
        }
        // Anybody includes the outside, and any other pod the strangers with a name: one finding says it all.
        let open_to = |wanted: &Intruder| -> BTreeSet<Party> {
            found.keys().filter(|(_, intruder)| intruder == wanted).map(|(to, _)| to.clone()).collect()
        };
        let (to_anybody, to_strangers) = (open_to(&Intruder::Anybody), open_to(&Intruder::Party(Party::Stranger)));
        for ((to, intruder), (ports, from, workload)) in found {
            let named = matches!(intruder, Intruder::Party(Party::Ingress | Party::Monitoring | Party::Telemetry));
            let said =
                (intruder == Intruder::Outside && to_anybody.contains(&to)) || (named && to_strangers.contains(&to));
            if said {
                continue;
            }
            self.tell_undeclared(&to, &intruder, &ports, from, workload);
            self.subjects.insert(to);
        }
        allowed
    }

    fn tell_undeclared(
        &mut self,
        to: &Party,
        intruder: &Intruder,
        ports: &BTreeSet<Port>,
        from: Endpoint,
        id: WorkloadId,
    ) {
        let port = *ports.first().expect("an undeclared connection has a port");
        let reach = self.cluster.reaches(from, Endpoint::Workload(id), port);
        let who = match intruder {
            Intruder::Outside => "any address outside".to_owned(),
            Intruder::Anybody => "anybody in the cluster".to_owned(),
            Intruder::Party(party) => party.to_string(),
        };
        let message = format!("{who} can connect to {to} on {}, which no edge declares", names(ports));
        let finding =
            Finding::error(RULE.name, self.span_of(to), message).label("reached without an edge").on(subject(to));
        let by_us = matches!(intruder, Intruder::Party(Party::Element(_) | Party::Other(_)));
        let finding = self.explain(finding, [&reach.egress].into_iter().filter(|_| by_us), LEAVING);
        let finding = self.explain(finding, [&reach.ingress], ARRIVING);
        let help = match (&reach.ingress, intruder) {
            (Verdict::Unisolated, _) => {
                let namespace = &self.cluster.workload(id).key.namespace;
                format!(
                    "add a policy that selects these pods; a default deny for the namespace `{namespace}` selects all of them"
                )
            }
            (_, Intruder::Party(Party::Element(from))) => {
                format!("declare the edge under the `uses` of `{from}`, or remove the rule that allows it")
            }
            _ => "name the peers in that rule, or remove it".to_owned(),
        };
        self.findings.push(finding.help(help));
    }

    /// Reports what is declared and blocked; returns the declared edges with their verdicts by namespace.
    fn blocked(&mut self) -> BTreeMap<String, Vec<(String, bool)>> {
        let mut edges: BTreeMap<String, Vec<(String, bool)>> = BTreeMap::new();
        for wanted in std::mem::take(&mut self.declared.wanted) {
            let (froms, tos) = (self.parties.workloads(&wanted.from), self.parties.workloads(&wanted.to));
            for (party, ids) in [(&wanted.from, froms), (&wanted.to, tos)] {
                if let (Party::Element(element), true) = (party, ids.is_empty()) {
                    self.unknown.insert(element.clone());
                }
            }
            let Some((port, serving)) = self.serving(&wanted, tos) else { continue };
            let mut blocked = None;
            for from in froms {
                for to in &serving {
                    // The relation knows declared ports only, but answers at once.
                    if blocked.is_none() && !self.relation.contains(*from, *to, port) {
                        let reach = self.cluster.reaches(Endpoint::Workload(*from), Endpoint::Workload(*to), port);
                        blocked = (!reach.is_allowed()).then_some(reach);
                    }
                }
            }
            let (Some(_), Some(to)) = (froms.first(), serving.first()) else { continue };
            let namespace = self.cluster.workload(*to).key.namespace.clone();
            let line = format!("{} -> {} on {port}", plain(&wanted.from), plain(&wanted.to));
            edges.entry(namespace).or_default().push((line, blocked.is_none()));
            if let Some(reach) = blocked {
                self.tell_blocked(&wanted, port, &reach);
            }
        }
        edges
    }

    /// The port on which the destination serves, and its workloads that do.
    fn serving(&self, wanted: &Wanted, workloads: &[WorkloadId]) -> Option<(Port, Vec<WorkloadId>)> {
        let on = |port: Port| {
            let declares =
                |id: &&WorkloadId| self.cluster.workload(**id).ports.iter().any(|declared| declared.port == port);
            let serving: Vec<WorkloadId> = workloads.iter().filter(declares).copied().collect();
            (!serving.is_empty()).then_some((port, serving))
        };
        let first = *wanted.ports.first()?;
        let anyhow = || (!workloads.is_empty()).then(|| (first, workloads.to_vec()));
        wanted.ports.iter().copied().find_map(on).or_else(anyhow)
    }

    fn tell_blocked(&mut self, wanted: &Wanted, port: Port, reach: &Reachability) {
        let message = match wanted.from {
            Party::Monitoring => format!("Prometheus cannot scrape {} on {port}", wanted.to),
            _ => format!("{} cannot connect to {} on {port}, though {}", wanted.from, wanted.to, wanted.because),
        };
        let sides: Vec<&str> = [(&reach.egress, "leaving its source"), (&reach.ingress, "arriving at its destination")]
            .into_iter()
            .filter(|(verdict, _)| !verdict.is_allowed())
            .map(|(_, side)| side)
            .collect();
        let about = if let Party::Element(_) = wanted.from { &wanted.from } else { &wanted.to };
        let span = if wanted.span.is_written() { wanted.span } else { self.span_of(about) };
        let finding = Finding::error(RULE.name, span, message)
            .label(format!("blocked when {}", sides.join(" and when ")))
            .on(subject(about));
        let finding = self.explain_denied(finding, reach);
        self.findings.push(finding.help("allow it in a policy that selects these pods; a patch or a raw policy may have removed or narrowed the rendered rule"));
        self.subjects.insert(wanted.to.clone());
    }

    /// The ways out of the cluster are those to the declared externals and managed stores.
    fn exits(&mut self) {
        let architecture = self.context.architecture;
        let mut ports: BTreeMap<&Element, BTreeSet<Port>> = BTreeMap::new();
        let mut everywhere: BTreeSet<&Element> = BTreeSet::new();
        let mut findings = Vec::new();
        for exit in &self.declared.exits {
            ports.entry(&exit.from).or_default().insert(exit.port);
            let addresses: &[_] = match &exit.to {
                Element::External(name) => {
                    architecture.external(name.as_str()).map_or(&[], |external| &external.addresses)
                }
                _ => &[],
            };
            let address = addresses.iter().find_map(|block| block.split('/').next()?.parse::<IpAddr>().ok());
            if address.is_none() {
                everywhere.insert(&exit.from);
            }
            let target = address.map_or(Endpoint::Outside, Endpoint::Address);
            for id in self.parties.workloads(&Party::Element(exit.from.clone())) {
                let reach = self.cluster.reaches(Endpoint::Workload(*id), target, exit.port);
                if !reach.is_allowed() {
                    let message = format!(
                        "`{}` cannot connect to `{}` on {}, though the file declares it",
                        exit.from, exit.to, exit.port
                    );
                    let finding = Finding::error(RULE.name, exit.span, message)
                        .label("blocked on the way out")
                        .on(exit.from.to_string());
                    let finding = self.explain_denied(finding, &reach);
                    findings.push(finding.help("allow this port to an `ipBlock` in an egress policy of these pods"));
                    break;
                }
            }
        }
        let none = BTreeSet::new();
        for (party, ids) in self.parties.iter() {
            let Party::Element(from @ Element::Service(_)) = party else { continue };
            let declared = ports.get(from).unwrap_or(&none);
            for id in ids {
                let message = match self.cluster.exits(*id) {
                    None => Some((format!("`{from}` can connect to every address outside, on every port"), "no policy isolates its egress".to_owned())),
                    Some(exits) => exits.iter().find_map(|exit| {
                        let rule = rule_name(&exit.rule.policy, exit.rule.direction, exit.rule.index);
                        let beyond = exit.ports.iter().filter(|ports| !declared.iter().any(|port| ports.admits(*port, None) && narrow(ports)));
                        let beyond = exit.ports.is_empty() || beyond.count() > 0;
                        let to = exit.to.as_ref().map_or_else(|| "every address".to_owned(), |block| format!("`{}`", block.range));
                        let anywhere = exit.to.is_none() || to == "`0.0.0.0/0`" || to == "`::/0`";
                        if declared.is_empty() {
                            Some((format!("`{from}` can leave the cluster to {to}, but uses nothing outside"), rule))
                        } else if beyond {
                            Some((format!("`{from}` can leave the cluster to {to} on more ports than it uses"), rule))
                        } else if anywhere && !everywhere.contains(from) {
                            Some((format!("`{from}` can leave the cluster to {to}, though all that it uses lists its addresses"), rule))
                        } else {
                            None
                        }
                    }),
                };
                if let Some((message, why)) = message {
                    let finding = Finding::error(RULE.name, architecture.span_of(from), message)
                        .on(from.to_string())
                        .because(why);
                    let used = if declared.is_empty() {
                        "no external and no managed store".to_owned()
                    } else {
                        names(declared)
                    };
                    findings.push(
                        finding
                            .because(format!("its edges to the outside use: {used}"))
                            .help("narrow that rule to the externals under `uses`"),
                    );
                    break;
                }
            }
        }
        self.refute(findings);
    }

    /// Whoever talks to something by name needs DNS.
    fn names_resolve(&mut self) {
        let talking: BTreeSet<&Element> =
            self.context.architecture.connections.iter().map(|connection| &connection.from).collect();
        let mut findings = Vec::new();
        for element in talking {
            for id in self.parties.workloads(&Party::Element(element.clone())) {
                let dns = self.cluster.dns(*id);
                if dns.is_allowed() {
                    continue;
                }
                let transport = match (dns.udp.is_allowed(), dns.tcp.is_allowed()) {
                    (false, true) => "over UDP",
                    (true, false) => "over TCP, which long answers need",
                    _ => "over UDP and TCP",
                };
                let reach = if dns.udp.is_allowed() { &dns.tcp } else { &dns.udp };
                let message = format!("`{element}` cannot resolve names: DNS is blocked {transport}");
                let finding = Finding::error(RULE.name, self.context.architecture.span_of(element), message)
                    .on(element.to_string());
                let finding = self.explain_denied(finding, reach);
                let finding = finding.because("its edges name Services and hosts, so none of them works without DNS");
                findings.push(
                    finding
                        .help("allow egress to the pods `k8s-app: kube-dns` in `kube-system` on port 53, UDP and TCP"),
                );
                break;
            }
        }
        self.refute(findings);
    }

    /// Adds errors about services; the proofs of their namespaces do not hold.
    fn refute(&mut self, findings: Vec<Finding>) {
        let about = findings.iter().filter_map(|finding| finding.subject.as_deref()?.strip_prefix("service."));
        self.subjects.extend(about.filter_map(|name| self.context.architecture.element(name)).map(Party::Element));
        self.findings.extend(findings);
    }

    /// What the analysis cannot see is told, so that a proof never covers it.
    fn limits(&mut self) {
        for problem in self.cluster.problems() {
            let (object, message, help) = match problem {
                Problem::HostNetwork { workload } => (
                    workload,
                    format!("`{workload}` uses the network of its node, which policies do not reliably reach"),
                    "remove `hostNetwork`, or waive this and isolate the node",
                ),
                Problem::OtherPolicyLanguage { object } => (
                    object,
                    format!("`{object}` also decides about traffic, and the analysis does not read it"),
                    "write it as a NetworkPolicy, or waive this: the proof holds without it only",
                ),
                _ => continue,
            };
            self.findings.push(Finding::warning(RULE.name, Span::NONE, message).on(object.to_string()).help(help));
        }
        for element in &self.unknown {
            let message = format!("no rendered pod stands for `{element}`, so nothing is known about its isolation");
            let finding =
                Finding::note(RULE.name, self.context.architecture.span_of(element), message).on(element.to_string());
            self.findings.push(finding.help("pods are found by the label `app.kubernetes.io/name`"));
        }
    }

    fn prove(
        &self,
        allowed: &BTreeMap<String, usize>,
        edges: &BTreeMap<String, Vec<(String, bool)>>,
        report: &mut Report,
    ) {
        let mut ports: BTreeMap<&str, (usize, BTreeSet<&Party>)> = BTreeMap::new();
        for (party, ids) in self.parties.iter() {
            if !matches!(party, Party::Element(_) | Party::Other(_)) {
                continue;
            }
            for id in ids {
                let workload = self.cluster.workload(*id);
                let entry = ports.entry(&workload.key.namespace).or_default();
                let distinct: BTreeSet<Port> = workload.ports.iter().map(|port| port.port).collect();
                // Everybody else, and the outside.
                entry.0 += distinct.len() * (self.parties.len() - ids.len() + 1);
                entry.1.insert(party);
            }
        }
        for (namespace, (pairs, members)) in ports {
            let edges = edges.get(namespace).map_or(&[][..], Vec::as_slice);
            let open = edges.iter().filter(|(_, allowed)| *allowed).count();
            let denied = pairs.saturating_sub(allowed.get(namespace).copied().unwrap_or(0));
            let refuted = members.iter().any(|party| self.subjects.contains(*party));
            let unknown =
                members.iter().any(|party| matches!(party, Party::Element(element) if self.unknown.contains(element)));
            let verdict = match (refuted || open < edges.len(), unknown) {
                (true, _) => report::Verdict::Refuted,
                (false, true) => report::Verdict::Undecided,
                (false, false) => report::Verdict::Proved,
            };
            let statement = format!("in the namespace `{namespace}` the declared edges can be used, and nothing else");
            let mut derivation = vec![
                format!("{} into the namespace, {open} of them allowed", count(edges.len(), "declared edge")),
                format!("{denied} of {} of a source and a port are denied", count(pairs, "pair")),
            ];
            derivation.extend(
                edges
                    .iter()
                    .take(MAX_LINES)
                    .map(|(line, allowed)| format!("{line}: {}", if *allowed { "allowed" } else { "blocked" })),
            );
            if edges.len() > MAX_LINES {
                derivation.push(format!("and {} more", edges.len() - MAX_LINES));
            }
            report.proofs.push(proof(
                RULE.name,
                format!("namespace.{namespace}"),
                statement,
                verdict,
                Span::NONE,
                derivation,
            ));
        }
    }

    fn span_of(&self, party: &Party) -> Span {
        match party {
            Party::Element(element) => self.context.architecture.span_of(element),
            _ => Span::NONE,
        }
    }

    /// Adds what the policies of one end say, and where the user wrote them.
    fn explain<'v>(&self, finding: Finding, verdicts: impl IntoIterator<Item = &'v Verdict>, end: &str) -> Finding {
        verdicts.into_iter().fold(finding, |finding, verdict| match verdict {
            Verdict::NotAPod => finding,
            Verdict::Unisolated => {
                finding.because(format!("{end}: no policy isolates the pod, so everything is allowed"))
            }
            Verdict::Allowed(grants) => grants.iter().take(3).fold(finding, |finding, grant| {
                let line = format!("{end}: allowed by {}", describe(grant));
                self.point_at(finding.because(line), &grant.rule.policy, "this policy allows it")
            }),
            Verdict::Denied(policies) => policies.iter().take(3).fold(finding, |finding, policy| {
                let line = format!("{end}: `{policy}` isolates the pod, and no policy allows this connection");
                self.point_at(finding.because(line), policy, "this policy isolates the pod")
            }),
        })
    }

    /// Adds what the policies say that block the connection.
    fn explain_denied(&self, finding: Finding, reach: &Reachability) -> Finding {
        let denied = |verdict: &&Verdict| !verdict.is_allowed();
        let finding = self.explain(finding, [&reach.egress].into_iter().filter(denied), LEAVING);
        self.explain(finding, [&reach.ingress].into_iter().filter(denied), ARRIVING)
    }

    fn point_at(&self, finding: Finding, policy: &ObjectKey, text: &str) -> Finding {
        match self.origins.get(&policy.name) {
            Some(span) => finding.also(*span, text),
            None => finding,
        }
    }
}

/// Whether an entry of ports names single ports, as edges do.
fn narrow(ports: &crate::cluster::PortMatch) -> bool {
    matches!(ports.ports, crate::cluster::PortSet::Range(first, last) if first == last)
}

fn subject(party: &Party) -> String {
    match party {
        Party::Element(element) => element.to_string(),
        Party::Other(key) => key.to_string(),
        Party::Ingress | Party::Monitoring | Party::Telemetry | Party::Solver | Party::Stranger => "cluster".to_owned(),
    }
}

fn plain(party: &Party) -> String {
    party.to_string().replace('`', "")
}

fn rule_name(policy: &ObjectKey, direction: Direction, index: usize) -> String {
    let list = match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    };
    format!("`{policy}`, `spec.{list}[{index}]`")
}

fn describe(grant: &Grant) -> String {
    let rule = rule_name(&grant.rule.policy, grant.rule.direction, grant.rule.index);
    let because = match grant.by {
        GrantedBy::Anyone => "which names no peers and so admits everybody",
        GrantedBy::Selector => "whose selector finds the other end",
        GrantedBy::Address => "whose `ipBlock` may hold the address of the other end",
    };
    format!("{rule}, {because}")
}
