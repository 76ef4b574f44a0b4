//! The DNS server of the cluster: the protocol around `names`.
//!
//! Where pods have no way out, names outside of the cluster are not there, except for those that a Service is published by: a
//! name that resolves to an address that cannot be reached only hides that. Where they have one, this machine is asked, as its
//! own programs ask it (`getaddrinfo(3)`), so that its hosts file and its resolver count.
//!
//! Not handled: records other than addresses (`A`) of names outside of the cluster.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Header, HeaderCounts, Metadata, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::names::{self, ALIASES, Answer, Directory, Question, ZONE};
use crate::cache::ObjectKey;
use crate::context::Caches;

/// How long an answer may be kept, in seconds: what the `kubernetes` plugin of `CoreDNS` says by default.
const TTL: u32 = 5;

/// How long a client that speaks TCP may be silent.
const IDLE: Duration = Duration::from_secs(5);

/// How many answers may wait for a client that speaks TCP and does not read.
const PENDING: usize = 16;

/// How long this machine may look for a name: resolvers give up after five seconds and ask again.
const OUTSIDE: Duration = Duration::from_secs(4);

/// What becomes of names that are not the cluster's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Elsewhere {
    /// There are none.
    Absent,
    /// They mean what they mean on this machine.
    AsOnThisMachine,
}

/// What this machine knows of a name.
#[derive(Debug, PartialEq, Eq)]
enum Outside {
    /// It is there; it may have addresses of another kind only.
    Addresses(Vec<Ipv4Addr>),
    Absent,
    /// Nobody could be asked.
    Unknown,
}

/// Answers on both sockets until cancelled.
pub(crate) async fn run(
    caches: Caches,
    elsewhere: Elsewhere,
    udp: UdpSocket,
    tcp: TcpListener,
    cancel: CancellationToken,
) {
    let mut server = Server::new(Handler { caches, elsewhere });
    server.register_socket(udp);
    server.register_listener(tcp, IDLE, PENDING);
    cancel.cancelled().await;
    if let Err(error) = server.shutdown_gracefully().await {
        debug!(%error, "the DNS server ended early");
    }
}

struct Handler {
    caches: Caches,
    elsewhere: Elsewhere,
}

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut client: R) -> ResponseInfo {
        let (mut metadata, records, authority) = self.answer(request).await;
        metadata.recursion_available = self.elsewhere == Elsewhere::AsOnThisMachine;
        let response = MessageResponseBuilder::from_message_request(request);
        let sent = client.send_response(response.build(metadata, &records, &authority, [], [])).await;
        sent.unwrap_or_else(|error| {
            // A client that has gone away is no concern of ours, but the trait wants an answer.
            warn!(%error, "failed to answer a DNS query");
            ResponseInfo::from(Header { metadata, counts: HeaderCounts::default() })
        })
    }
}

impl Handler {
    /// The head of the answer, its records, and the authority of a negative one.
    async fn answer(&self, request: &Request) -> (Metadata, Vec<Record>, Vec<Record>) {
        let mut metadata = Metadata::response_from_request(&request.metadata);
        let Ok(info) = request.request_info() else {
            metadata.response_code = ResponseCode::FormErr;
            return (metadata, Vec::new(), Vec::new());
        };
        let name = Name::from(info.query.name());
        let question = match info.query.query_type() {
            RecordType::A | RecordType::CNAME => Question::Address,
            RecordType::SRV => Question::Service,
            RecordType::TXT => Question::Text,
            _ => Question::Other,
        };
        metadata.authoritative = true;
        let known = names::resolve(&self.caches, &name.to_utf8(), question);
        match known {
            Answer::Addresses(addresses) => {
                let records = addresses.into_iter().map(|address| record(&name, RData::A(A(address))));
                (metadata, records.collect(), Vec::new())
            }
            Answer::Alias(target) => match self.follow(&name, target, question).await {
                Ok(records) => (metadata, records, Vec::new()),
                Err(error) => {
                    debug!(%name, %error, "an external name is no name");
                    metadata.response_code = ResponseCode::ServFail;
                    (metadata, Vec::new(), Vec::new())
                }
            },
            Answer::Services(targets) => {
                // Equal priority, equal weight: the client may take any.
                let records = targets.into_iter().filter_map(|target| {
                    let host = Name::from_utf8(format!("{}.", target.name)).ok()?;
                    Some(record(&name, RData::SRV(SRV::new(0, 100, target.port, host))))
                });
                (metadata, records.collect(), Vec::new())
            }
            Answer::Text(text) => {
                (metadata, vec![record(&name, RData::TXT(TXT::new(vec![text.to_owned()])))], Vec::new())
            }
            Answer::NoData => (metadata, Vec::new(), vec![authority()]),
            Answer::NoSuchName => {
                metadata.response_code = ResponseCode::NXDomain;
                (metadata, Vec::new(), vec![authority()])
            }
            Answer::Elsewhere => {
                metadata.authoritative = false;
                let mut records = Vec::new();
                match self.outside(&name.to_ascii()).await {
                    Outside::Addresses(addresses) if question == Question::Address => {
                        records.extend(addresses.into_iter().map(|address| record(&name, RData::A(A(address)))));
                    }
                    Outside::Addresses(_) => {}
                    // A resolver takes this for an answer; after `Refused` it would ask again and again.
                    Outside::Absent => metadata.response_code = ResponseCode::NXDomain,
                    Outside::Unknown => metadata.response_code = ResponseCode::ServFail,
                }
                (metadata, records, Vec::new())
            }
        }
    }

    /// An alias with what it leads to, as far as that is known here: the resolvers of most programs do not ask a second time.
    async fn follow(&self, name: &Name, mut target: String, question: Question) -> Result<Vec<Record>, String> {
        let (mut name, mut records) = (name.clone(), Vec::new());
        while records.len() < ALIASES {
            let next = Name::from_utf8(format!("{target}.")).map_err(|error| error.to_string())?;
            records.push(record(&name, RData::CNAME(CNAME(next.clone()))));
            let known = names::resolve(&self.caches, &target, question);
            let addresses = match known {
                Answer::Alias(further) => {
                    (name, target) = (next, further);
                    continue;
                }
                Answer::Addresses(addresses) => addresses,
                Answer::Elsewhere if question == Question::Address => match self.outside(&next.to_ascii()).await {
                    Outside::Addresses(addresses) => addresses,
                    Outside::Absent | Outside::Unknown => break,
                },
                _ => break,
            };
            records.extend(addresses.into_iter().map(|address| record(&next, RData::A(A(address)))));
            break;
        }
        Ok(records)
    }

    /// A name that is not the cluster's.
    async fn outside(&self, name: &str) -> Outside {
        if self.elsewhere == Elsewhere::Absent {
            return Outside::Absent;
        }
        // Without the last dot, with which a hosts file does not know it.
        let host = name.trim_end_matches('.').to_owned();
        match tokio::time::timeout(OUTSIDE, tokio::net::lookup_host((host, 0))).await {
            Ok(Ok(found)) => Outside::Addresses(distinct(found)),
            Ok(Err(error)) => missing(&error),
            Err(_) => Outside::Unknown,
        }
    }
}

/// The addresses that pods can have a use for, each once: the system tells them for each kind of socket.
fn distinct(found: impl Iterator<Item = SocketAddr>) -> Vec<Ipv4Addr> {
    let mut addresses = Vec::new();
    for address in found {
        if let SocketAddr::V4(address) = address
            && !addresses.contains(address.ip())
        {
            addresses.push(*address.ip());
        }
    }
    addresses
}

/// Whether a name is not there, or nobody could be asked. Only the text tells the two apart: the first is that of glibc for
/// `EAI_AGAIN`, the second that of musl.
fn missing(error: &io::Error) -> Outside {
    let text = error.to_string();
    let again = ["Temporary failure in name resolution", "Try again"].into_iter().any(|again| text.ends_with(again));
    if again { Outside::Unknown } else { Outside::Absent }
}

fn record(name: &Name, data: RData) -> Record {
    Record::from_rdata(name.clone(), TTL, data)
}

/// Says how long a negative answer may be kept (RFC 2308).
fn authority() -> Record {
    let name = |text: &str| Name::from_utf8(text).expect("it is a constant");
    let soa =
        SOA::new(name(&format!("ns.dns.{ZONE}.")), name(&format!("hostmaster.{ZONE}.")), 1, 7200, 1800, 86400, TTL);
    record(&name(&format!("{ZONE}.")), RData::SOA(soa))
}

impl Directory for Caches {
    fn service(&self, namespace: &str, name: &str) -> Option<impl AsRef<Service>> {
        self.services.get(&ObjectKey::new(namespace, name))
    }

    fn endpoints(&self, namespace: &str, service: &str) -> Vec<impl AsRef<EndpointSlice>> {
        let of = |slice: &Arc<EndpointSlice>| slice.metadata.namespace.as_deref() == Some(namespace);
        self.endpoint_slices.indexed_by(service).into_iter().filter(of).collect()
    }

    fn has_namespace(&self, name: &str) -> bool {
        self.namespaces.get(&ObjectKey::new("", name)).is_some()
    }

    fn published(&self, host: &str) -> Option<impl AsRef<Service>> {
        self.services.list().into_iter().find(|service| names::is_published_as(service, host))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_told_once_and_only_if_pods_have_such() {
        let found = ["192.0.2.2:0", "[2001:db8::1]:0", "192.0.2.1:0", "192.0.2.2:0"];
        let found = found.map(|address| address.parse::<SocketAddr>().expect("it is an address"));
        let expected = [Ipv4Addr::new(192, 0, 2, 2), Ipv4Addr::new(192, 0, 2, 1)];
        assert_eq!(distinct(found.into_iter()), expected);
    }

    #[test]
    fn a_name_is_absent_only_if_somebody_could_be_asked() {
        let check = |text: &str, expected: Outside| {
            let error = io::Error::other(format!("failed to lookup address information: {text}"));
            assert_eq!(missing(&error), expected, "{text}");
        };
        check("Name or service not known", Outside::Absent);
        check("Temporary failure in name resolution", Outside::Unknown);
        check("Try again", Outside::Unknown);
    }
}
