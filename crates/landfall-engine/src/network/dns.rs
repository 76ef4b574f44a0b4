//! The DNS server of the cluster: the protocol around `names`.
//!
//! Names outside of the cluster are not there, except for those that a Service is published by: pods have no way to the
//! outside world, and a name that resolves to an address that cannot be reached only hides that.

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

use super::names::{self, Answer, Directory, Question, ZONE};
use crate::cache::ObjectKey;
use crate::context::Caches;

/// How long an answer may be kept, in seconds: what the `kubernetes` plugin of `CoreDNS` says by default.
const TTL: u32 = 5;

/// How long a client that speaks TCP may be silent.
const IDLE: Duration = Duration::from_secs(5);

/// How many answers may wait for a client that speaks TCP and does not read.
const PENDING: usize = 16;

/// How many names may stand for each other. More are most likely a circle.
const ALIASES: usize = 8;

/// Answers on both sockets until cancelled.
pub(crate) async fn run(caches: Caches, udp: UdpSocket, tcp: TcpListener, cancel: CancellationToken) {
    let mut server = Server::new(Handler { caches });
    server.register_socket(udp);
    server.register_listener(tcp, IDLE, PENDING);
    cancel.cancelled().await;
    if let Err(error) = server.shutdown_gracefully().await {
        debug!(%error, "the DNS server ended early");
    }
}

struct Handler {
    caches: Caches,
}

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut client: R) -> ResponseInfo {
        let response = MessageResponseBuilder::from_message_request(request);
        let (mut metadata, records, authority) = self.answer(request);
        metadata.recursion_available = false;
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
    fn answer(&self, request: &Request) -> (Metadata, Vec<Record>, Vec<Record>) {
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
        match names::resolve(&self.caches, &name.to_utf8(), question) {
            Answer::Addresses(addresses) => {
                let records = addresses.into_iter().map(|address| record(&name, RData::A(A(address))));
                (metadata, records.collect(), Vec::new())
            }
            Answer::Alias(target) => match self.follow(&name, target, question) {
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
                // A resolver takes this for an answer; after `Refused` it would ask again and again.
                metadata.response_code = ResponseCode::NXDomain;
                (metadata, Vec::new(), Vec::new())
            }
        }
    }

    /// An alias with what it leads to, as long as that is in the cluster: the resolvers of most programs do not ask a second
    /// time.
    fn follow(&self, name: &Name, mut target: String, question: Question) -> Result<Vec<Record>, String> {
        let (mut name, mut records) = (name.clone(), Vec::new());
        while records.len() < ALIASES {
            let next = Name::from_utf8(format!("{target}.")).map_err(|error| error.to_string())?;
            records.push(record(&name, RData::CNAME(CNAME(next.clone()))));
            match names::resolve(&self.caches, &target, question) {
                Answer::Alias(further) => target = further,
                Answer::Addresses(addresses) => {
                    records.extend(addresses.into_iter().map(|address| record(&next, RData::A(A(address)))));
                    break;
                }
                _ => break,
            }
            name = next;
        }
        Ok(records)
    }
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
