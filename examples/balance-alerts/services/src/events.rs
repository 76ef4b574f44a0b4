//! RabbitMQ: events are published with confirms and consumed with acknowledgements. The queues are part of the
//! architecture; the exchange that fills them is declared by whoever comes first, and each binds its own queue.

use std::sync::atomic::{AtomicBool, Ordering};

use example_kit::{Failure, Platform, RETRY, consume_until, variable};
use futures::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    ExchangeDeclareOptions, QueueBindOptions,
};
use lapin::tcp::OwnedTLSConfig;
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ExchangeKind};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::event::BalanceChanged;

/// Where changes are published; each who consumes has the queue `balance.changed.SERVICE`.
const EXCHANGE: &str = "balance.changed";

/// Delivery mode of messages that survive a restart of the broker (AMQP 0.9.1, basic properties).
const PERSISTENT: u8 = 2;

pub(crate) struct Events {
    url: String,
    trust: String,
    publisher: Mutex<Option<(Connection, Channel)>>,
    /// Whether messages can arrive.
    attached: AtomicBool,
}

impl Events {
    /// The broker that the environment names; nothing is connected yet.
    pub(crate) fn new(platform: &Platform) -> Result<Self, Failure> {
        let (url, trust) = (variable("BROKER_URL")?, platform.trust.clone());
        Ok(Self { url, trust, publisher: Mutex::new(None), attached: AtomicBool::new(false) })
    }

    /// Whether messages can arrive.
    pub(crate) fn is_attached(&self) -> bool {
        self.attached.load(Ordering::Relaxed)
    }

    /// Returns when the broker has confirmed the event, and fails when no queue takes it.
    pub(crate) async fn publish(&self, event: &BalanceChanged) -> Result<(), Failure> {
        let published = self.try_publish(&serde_json::to_vec(event)?).await;
        if published.is_err() {
            *self.publisher.lock().await = None;
        }
        published
    }

    async fn try_publish(&self, body: &[u8]) -> Result<(), Failure> {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
        let channel = self.channel().await?;
        let confirm = channel.basic_publish(EXCHANGE.into(), "".into(), options, body, properties).await?;
        match confirm.await? {
            Confirmation::Ack(None) => Ok(()),
            Confirmation::Ack(Some(_)) => Err("no queue is bound to the exchange".into()),
            Confirmation::Nack(_) | Confirmation::NotRequested => Err("the broker refused the event".into()),
        }
    }

    async fn channel(&self) -> Result<Channel, Failure> {
        let mut slot = self.publisher.lock().await;
        if let Some((_, channel)) = slot.as_ref().filter(|(_, channel)| channel.status().connected()) {
            return Ok(channel.clone());
        }
        let connection = self.connect().await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        declare(&channel).await?;
        *slot = Some((connection, channel.clone()));
        Ok(channel)
    }

    async fn connect(&self) -> Result<Connection, Failure> {
        let tls = OwnedTLSConfig { identity: None, cert_chain: Some(self.trust.clone()) };
        let runtime = lapin::runtime::default_runtime()?;
        Ok(Connection::connect_with_config(&self.url, ConnectionProperties::default(), tls, runtime).await?)
    }

    /// Works on the events of a service, so many at once, until it is told to stop; then it finishes what it has begun. What
    /// fails goes back to the queue.
    pub(crate) async fn consume<W>(
        &self,
        platform: &Platform,
        consumer: Consumer,
        stop: &CancellationToken,
        work: impl Fn(BalanceChanged) -> W,
    ) where
        W: Future<Output = Result<(), Failure>>,
    {
        let once = || self.consume_once(platform, &consumer, stop, &work);
        consume_until(stop, consumer.queue, &self.attached, once).await;
    }

    async fn consume_once<W>(
        &self,
        platform: &Platform,
        consumer: &Consumer,
        stop: &CancellationToken,
        work: &impl Fn(BalanceChanged) -> W,
    ) -> Result<(), Failure>
    where
        W: Future<Output = Result<(), Failure>>,
    {
        let connection = self.connect().await?;
        let channel = connection.create_channel().await?;
        declare(&channel).await?;
        let bind = QueueBindOptions::default();
        channel.queue_bind(consumer.queue.into(), EXCHANGE.into(), "".into(), bind, FieldTable::default()).await?;
        channel.basic_qos(consumer.at_once, BasicQosOptions::default()).await?;
        let options = BasicConsumeOptions::default();
        let deliveries =
            channel.basic_consume(consumer.queue.into(), "".into(), options, FieldTable::default()).await?;
        self.attached.store(true, Ordering::Relaxed);
        let broken = Mutex::new(None);
        let each = deliveries.take_until(stop.cancelled()).for_each_concurrent(None, |delivery| async {
            let worked = match delivery {
                Ok(delivery) => deal(platform, consumer, delivery, work).await,
                Err(error) => Err(error.into()),
            };
            if let Err(error) = worked {
                *broken.lock().await = Some(error);
            }
        });
        each.await;
        broken.into_inner().map_or(Ok(()), Err)
    }
}

async fn declare(channel: &Channel) -> Result<(), Failure> {
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    Ok(channel.exchange_declare(EXCHANGE.into(), ExchangeKind::Fanout, options, FieldTable::default()).await?)
}

/// A queue, and how it is consumed.
pub(crate) struct Consumer {
    pub(crate) queue: &'static str,
    /// The edge of the architecture.
    pub(crate) edge: &'static str,
    pub(crate) at_once: u16,
}

/// Works on one message, and answers the broker; an error is one of the connection.
async fn deal<W>(
    platform: &Platform,
    consumer: &Consumer,
    delivery: Delivery,
    work: &impl Fn(BalanceChanged) -> W,
) -> Result<(), Failure>
where
    W: Future<Output = Result<(), Failure>>,
{
    let event = match BalanceChanged::parse(&delivery.data) {
        Ok(event) => event,
        Err(error) => {
            // It would come back for ever.
            warn!(queue = consumer.queue, %error, "this is no event, and is thrown away");
            return Ok(delivery.ack(BasicAckOptions::default()).await.map(drop)?);
        }
    };
    let message = event.message.clone();
    if !platform.deal(consumer.edge, &message, work(event)).await {
        tokio::time::sleep(RETRY).await;
        let back = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
        return Ok(delivery.nack(back).await.map(drop)?);
    }
    Ok(delivery.ack(BasicAckOptions::default()).await.map(drop)?)
}
