//! Messages through an MQTT broker, with quality of service 1: acknowledged, and perhaps twice.

use std::sync::Arc;
use std::time::Duration;

use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Outgoing, Packet, QoS, SubscribeReasonCode, Transport};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tracing::warn;
use url::Url;

use super::Edges;
use crate::Failure;
use crate::payload::Carried;

/// How many requests to the broker may wait to be sent.
const WAITING: usize = 32;

/// After a broken connection.
const RETRY: Duration = Duration::from_millis(500);

const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// The largest packet: 256 MB, as the protocol has it (MQTT 3.1.1, section 2.2.3).
const LARGEST: usize = 268_435_455;

/// A broker, for one service.
pub(crate) struct Topics {
    url: Url,
    tls: Arc<rustls::ClientConfig>,
    /// One message at a time is on its way, so that an acknowledgement is always for the last.
    publisher: Mutex<Option<(AsyncClient, EventLoop)>>,
}

impl Topics {
    pub(super) fn new(url: &str, tls: Arc<rustls::ClientConfig>) -> Result<Self, Failure> {
        Ok(Self { url: url.parse()?, tls, publisher: Mutex::new(None) })
    }

    /// Returns when the broker has acknowledged the message.
    pub(super) async fn publish(&self, topic: &str, body: &[u8]) -> Result<(), Failure> {
        let mut publisher = self.publisher.lock().await;
        // Taken out: a connection on which this fails, or is given up half-way, is not used again.
        if let Some(mut used) = publisher.take()
            && send(&mut used, topic, body).await.is_ok()
        {
            *publisher = Some(used);
            return Ok(());
        }
        let mut new = AsyncClient::new(self.options(&format!("publish-{}", rand::random::<u64>()))?, 8);
        send(&mut new, topic, body).await?;
        *publisher = Some(new);
        Ok(())
    }

    fn options(&self, client: &str) -> Result<MqttOptions, Failure> {
        let encrypted = self.url.scheme() == "mqtts";
        let host = self.url.host_str().ok_or("the URL of the broker names no host")?;
        let port = self.url.port().unwrap_or(if encrypted { 8883 } else { 1883 });
        let mut options = MqttOptions::new(client, host, port);
        options
            .set_keep_alive(KEEP_ALIVE)
            .set_max_packet_size(LARGEST, LARGEST)
            .set_credentials(self.url.username(), self.url.password().unwrap_or_default());
        if encrypted {
            options.set_transport(Transport::tls_with_config((*self.tls).clone().into()));
        }
        Ok(options)
    }
}

async fn send((client, events): &mut (AsyncClient, EventLoop), topic: &str, body: &[u8]) -> Result<(), Failure> {
    client.publish(topic, QoS::AtLeastOnce, false, body).await?;
    let mut sent = None;
    loop {
        match events.poll().await? {
            Event::Outgoing(Outgoing::Publish(number)) => sent = Some(number),
            Event::Incoming(Packet::PubAck(acknowledged)) if sent == Some(acknowledged.pkid) => return Ok(()),
            _ => {}
        }
    }
}

/// Consumes for as long as it is polled, together with the other pods of the service: each message reaches one of them. One
/// whose work fails is tried again here. `attached` is called each time when messages can arrive.
pub(crate) async fn subscribe<W>(
    edges: &Edges,
    url: &str,
    topic: &str,
    service: &str,
    attached: impl Fn(),
    work: impl Fn(Carried) -> W,
) where
    W: Future<Output = Result<(), Failure>>,
{
    loop {
        if let Err(error) = subscribe_once(edges.topics(url), topic, service, &attached, &work).await {
            warn!(topic, %error, "subscribing again");
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn subscribe_once<W>(
    topics: &Topics,
    topic: &str,
    service: &str,
    attached: &impl Fn(),
    work: &impl Fn(Carried) -> W,
) -> Result<(), Failure>
where
    W: Future<Output = Result<(), Failure>>,
{
    // The name of the pod: a broker keeps what belongs to a name while its client is away.
    let name = std::env::var("HOSTNAME").unwrap_or_else(|_| service.to_owned());
    let mut options = topics.options(&format!("{name}-{topic}"))?;
    options.set_clean_session(false).set_manual_acks(true);
    let (client, events) = AsyncClient::new(options, WAITING);
    // Without a limit: were the connection to wait for the work, no acknowledgement would be sent, for which the work waits. The
    // broker sends no more than it takes unacknowledged.
    let (arrived, mut arriving) = mpsc::unbounded_channel();
    let mut connection = JoinSet::new();
    connection.spawn(receive(events, client.clone(), format!("$share/{service}/{topic}"), arrived));
    while let Some(arrival) = arriving.recv().await {
        let publish = match arrival {
            Arrival::Attached => {
                attached();
                continue;
            }
            Arrival::Message(publish) => publish,
        };
        match serde_json::from_slice::<Carried>(&publish.payload) {
            Ok(carried) => {
                while work(carried.clone()).await.is_err() {
                    // What has just failed would fail at once again.
                    tokio::time::sleep(RETRY).await;
                }
            }
            // It would come back for ever.
            Err(error) => warn!(topic, %error, "a message that nobody here has sent"),
        }
        client.ack(&publish).await?;
    }
    connection.join_next().await.map_or(Ok(()), |ended| ended?)
}

enum Arrival {
    Attached,
    Message(rumqttc::Publish),
}

/// Moves what the broker sends, until the connection or the receiver ends.
async fn receive(
    mut events: EventLoop,
    client: AsyncClient,
    filter: String,
    arrived: mpsc::UnboundedSender<Arrival>,
) -> Result<(), Failure> {
    loop {
        let arrival = match events.poll().await? {
            Event::Incoming(Packet::ConnAck(_)) => {
                client.subscribe(&filter, QoS::AtLeastOnce).await?;
                continue;
            }
            Event::Incoming(Packet::SubAck(answer)) => {
                if answer.return_codes.contains(&SubscribeReasonCode::Failure) {
                    return Err(format!("the broker refuses the subscription to {filter}").into());
                }
                Arrival::Attached
            }
            Event::Incoming(Packet::Publish(publish)) => Arrival::Message(publish),
            _ => continue,
        };
        if arrived.send(arrival).is_err() {
            return Ok(());
        }
    }
}
