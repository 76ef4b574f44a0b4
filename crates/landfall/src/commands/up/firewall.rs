//! The firewall before the gateway, from outside: where it listens, whether it refuses attacks, and whether it lets ordinary requests
//! pass.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use anyhow::Context as _;
use http::{Method, Request, StatusCode, header};
use http_body_util::Full;
use hyper::body::Bytes;
use landfall_standin::HttpClient;

use super::place::Place;
use super::plan::{FIREWALL_HEADER, Guarded, Plan, REFUSED};
use super::report::{AttackReport, FirewallReport, GuardedReport, OrdinaryReport};
use super::running::{Entrances, FirewallEntrance};
use super::traffic::Outsider;

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(10);

/// A request that the core rules refuse at their lowest level.
struct Attack {
    name: &'static str,
    query: &'static str,
    agent: &'static str,
    /// What is posted, as JSON.
    body: Option<&'static str>,
}

/// One for each kind of attack that reaches any service, whatever it is written in.
const ATTACKS: [Attack; 6] = [
    Attack::by_query("sql-injection", "id=1%27%20OR%20%271%27%3D%271%27%20--%20"),
    Attack { body: Some(r#"{"id": "1' OR '1'='1' -- "}"#), ..Attack::by_query("sql-injection-in-a-body", "") },
    Attack::by_query("cross-site-scripting", "text=%3Cscript%3Ealert(1)%3C%2Fscript%3E"),
    Attack::by_query("path-traversal", "file=..%2F..%2F..%2F..%2Fetc%2Fpasswd"),
    Attack::by_query("remote-command", "host=localhost%3B%20cat%20%2Fetc%2Fpasswd"),
    Attack { agent: "sqlmap/1.7", ..Attack::by_query("scanner", "") },
];

impl Attack {
    const fn by_query(name: &'static str, query: &'static str) -> Self {
        Self { name, query, agent: "landfall", body: None }
    }

    fn request(&self, path: &str) -> anyhow::Result<Request<Full<Bytes>>> {
        let target = if self.query.is_empty() { path.to_owned() } else { format!("{path}?{}", self.query) };
        let request = Request::builder().uri(target).header(header::USER_AGENT, self.agent);
        let request = match self.body {
            None => request.body(Full::default()),
            Some(body) => {
                let request = request.method(Method::POST).header(header::CONTENT_TYPE, "application/json");
                request.body(Full::from(body))
            }
        };
        request.with_context(|| format!("`{path}` is no path"))
    }
}

/// The ways in, now that the gateway listens: where one is planned, the firewall gets addresses of its own, and its pod.
pub(super) fn open(plan: &mut Plan, place: &Place, http: SocketAddr, https: SocketAddr) -> anyhow::Result<Entrances> {
    let mut entrances = Entrances { http, https, firewall: None };
    if let Some(planned) = &plan.firewall {
        let last = Entrances::of(place).ok().and_then(|last| last.firewall);
        let ports = last.map(|last| [last.http.port(), last.https.port()]);
        let [http, https] = addresses(ports, !plan.left_running.is_empty()).context("failed to find free ports")?;
        let own = FirewallEntrance { http, https, hosts: planned.hosts.keys().cloned().collect() };
        plan.open_firewall(&entrances, &own);
        entrances.firewall = Some(own);
    }
    Ok(entrances)
}

/// Those of the last time, so that clients find it again: if they are free, or `runs_on`, as its pod may still have them. Otherwise any.
fn addresses(last: Option<[u16; 2]>, runs_on: bool) -> std::io::Result<[SocketAddr; 2]> {
    let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    if let Some(last) = last.map(|ports| ports.map(at))
        && (runs_on || last.iter().all(|address| TcpListener::bind(address).is_ok()))
    {
        return Ok(last);
    }
    // Both at once, as one would be given twice otherwise.
    let found = [TcpListener::bind(at(0))?, TcpListener::bind(at(0))?];
    Ok([found[0].local_addr()?, found[1].local_addr()?])
}

/// Tries every host that is behind it; `None` where there is none.
pub(super) async fn try_all(outsider: &Outsider, plan: &Plan) -> anyhow::Result<Option<FirewallReport>> {
    let (Some(planned), Some(own)) = (&plan.firewall, &outsider.entrances().firewall) else { return Ok(None) };
    let mut hosts = Vec::new();
    for (host, services) in &planned.hosts {
        let (mut attacks, mut ordinary) = (Vec::new(), Vec::new());
        // It looks at all requests for a host alike.
        for Guarded { path, tls } in services.values().take(1) {
            let client = outsider.gateway(host, *tls)?;
            for attack in &ATTACKS {
                let (answer, refused) = ask(&client, attack.request(path)?).await;
                attacks.push(AttackReport { attack: attack.name, answer, refused });
            }
        }
        for (service, Guarded { path, tls }) in services {
            let request = Request::get(path).body(Full::default()).with_context(|| format!("`{path}` is no path"))?;
            let (answer, refused) = ask(&outsider.gateway(host, *tls)?, request).await;
            ordinary.push(OrdinaryReport { service: service.clone(), answer, refused });
        }
        hosts.push(GuardedReport { host: host.clone(), attacks, ordinary });
    }
    let passed_over = planned.passed_over.clone();
    Ok(Some(FirewallReport { by: planned.server.clone(), http: own.http, https: own.https, hosts, passed_over }))
}

/// The status of the answer, and whether it is the firewall that has refused the request.
async fn ask(client: &HttpClient, request: Request<Full<Bytes>>) -> (Option<u16>, bool) {
    let Ok(answer) = client.exchange(request, ANSWER).await else { return (None, false) };
    let by_firewall = answer.headers().get(FIREWALL_HEADER).is_some_and(|value| value == REFUSED);
    (Some(answer.status().as_u16()), by_firewall && answer.status() == StatusCode::FORBIDDEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_listens_where_it_did_unless_somebody_else_does() {
        let first = addresses(None, false).expect("there are free ports");
        let ports = first.map(|address| address.port());
        assert_ne!(ports[0], ports[1]);
        assert_eq!(addresses(Some(ports), false).expect("they are free"), first);
        let _taken = TcpListener::bind(first[1]).expect("it is free");
        assert_ne!(addresses(Some(ports), false).expect("there are others"), first);
        assert_eq!(addresses(Some(ports), true).expect("its pod has them"), first);
    }

    #[test]
    fn attacks_are_requests_below_the_path_of_a_service() {
        for attack in &ATTACKS {
            let request = attack.request("/orders").unwrap_or_else(|error| panic!("{}: {error:#}", attack.name));
            assert_eq!(request.uri().path(), "/orders", "{}", attack.name);
        }
    }
}
