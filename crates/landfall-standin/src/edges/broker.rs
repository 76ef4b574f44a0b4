//! Messages through RabbitMQ: published with confirms, consumed with acknowledgements.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::TryStreamExt as _;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    ExchangeDeclareOptions, QueueBindOptions,
};
use lapin::tcp::OwnedTLSConfig;
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ExchangeKind};
use tracing::warn;

use super::{Edges, Slot};
use crate::Failure;
use crate::payload::Carried;

/// How many messages a consumer works on at once.
const PREFETCH: u16 = 32;

/// After a broken connection.
const RETRY: Duration = Duration::from_millis(500);

/// Delivery mode of messages that survive a restart of the broker (AMQP 0.9.1, basic properties).
const PERSISTENT: u8 = 2;

pub(crate) struct Broker {
    url: String,
    authority: String,
    publisher: Slot<Arc<Publisher>>,
}

struct Publisher {
    channel: Channel,
    /// The exchanges that are declared: several edges may share the connection.
    exchanges: Mutex<BTreeSet<String>>,
    /// Dropped, it closes the channel.
    _connection: Connection,
}

impl Publisher {
    fn knows(&self, exchange: &str) -> bool {
        self.exchanges.lock().expect("nothing panics with a name").contains(exchange)
    }

    fn learn(&self, exchange: &str) {
        self.exchanges.lock().expect("nothing panics with a name").insert(exchange.to_owned());
    }
}

impl Broker {
    pub(super) fn new(url: String, authority: &str) -> Self {
        Self { url, authority: authority.to_owned(), publisher: Slot::empty() }
    }

    /// Returns when the broker has confirmed the message, and fails when no queue takes it.
    pub(super) async fn publish(&self, exchange: &str, body: &[u8]) -> Result<(), Failure> {
        let published = self.try_publish(exchange, body).await;
        if published.is_err() {
            self.publisher.put(None);
        }
        published
    }

    async fn try_publish(&self, exchange: &str, body: &[u8]) -> Result<(), Failure> {
        let is_open = |publisher: &Arc<Publisher>| publisher.channel.status().connected();
        let publisher = self
            .publisher
            .connected(is_open, || async {
                let connection = self.connect().await?;
                let channel = connection.create_channel().await?;
                channel.confirm_select(ConfirmSelectOptions::default()).await?;
                Ok(Arc::new(Publisher { channel, exchanges: Mutex::default(), _connection: connection }))
            })
            .await?;
        if !publisher.knows(exchange) {
            declare(&publisher.channel, exchange).await?;
            publisher.learn(exchange);
        }
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
        let confirm = publisher.channel.basic_publish(exchange.into(), "".into(), options, body, properties).await?;
        match confirm.await? {
            Confirmation::Ack(None) => Ok(()),
            Confirmation::Ack(Some(_)) => Err(format!("no queue is bound to the exchange {exchange}").into()),
            Confirmation::Nack(_) | Confirmation::NotRequested => Err("the broker refused the message".into()),
        }
    }

    async fn connect(&self) -> Result<Connection, Failure> {
        let tls = OwnedTLSConfig { identity: None, cert_chain: Some(self.authority.clone()) };
        let runtime = lapin::runtime::default_runtime()?;
        Ok(Connection::connect_with_config(&self.url, ConnectionProperties::default(), tls, runtime).await?)
    }
}

async fn declare(channel: &Channel, exchange: &str) -> Result<(), Failure> {
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    Ok(channel.exchange_declare(exchange.into(), ExchangeKind::Fanout, options, FieldTable::default()).await?)
}

/// A queue, and what it is bound to.
pub(crate) struct Subscription<'a> {
    pub(crate) url: &'a str,
    pub(crate) exchange: &'a str,
    pub(crate) queue: &'a str,
}

/// Consumes for as long as it is polled. A message whose work fails goes back to the queue; `attached` is called each
/// time when messages can arrive.
pub(crate) async fn consume<W>(
    edges: &Edges,
    subscription: Subscription<'_>,
    attached: impl Fn(),
    work: impl Fn(Carried) -> W,
) where
    W: Future<Output = Result<(), Failure>>,
{
    loop {
        if let Err(error) = consume_once(edges, &subscription, &attached, &work).await {
            warn!(queue = subscription.queue, %error, "consuming again");
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn consume_once<W>(
    edges: &Edges,
    subscription: &Subscription<'_>,
    attached: &impl Fn(),
    work: &impl Fn(Carried) -> W,
) -> Result<(), Failure>
where
    W: Future<Output = Result<(), Failure>>,
{
    let Subscription { url, exchange, queue } = *subscription;
    let connection = edges.broker(url).connect().await?;
    let channel = connection.create_channel().await?;
    declare(&channel, exchange).await?;
    let bind = QueueBindOptions::default();
    channel.queue_bind(queue.into(), exchange.into(), "".into(), bind, FieldTable::default()).await?;
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions::default();
    let consumer = channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await?;
    attached();
    consumer
        .map_err(Failure::from)
        .try_for_each_concurrent(usize::from(PREFETCH), |delivery| async move {
            let carried: Carried = match serde_json::from_slice(&delivery.data) {
                Ok(carried) => carried,
                Err(error) => {
                    // It would come back for ever.
                    warn!(queue, %error, "a message that nobody here has sent");
                    delivery.ack(BasicAckOptions::default()).await?;
                    return Ok(());
                }
            };
            if work(carried).await.is_ok() {
                delivery.ack(BasicAckOptions::default()).await?;
            } else {
                // What has just failed would fail at once again.
                tokio::time::sleep(RETRY).await;
                delivery.nack(BasicNackOptions { requeue: true, ..BasicNackOptions::default() }).await?;
            }
            Ok(())
        })
        .await
}
