//! Kafka: events are published when the brokers in sync have them, and committed when their work is done.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use example_kit::{Failure, Platform, RETRY, consume_until, variable};
use krafka::auth::AuthConfig;
use krafka::consumer::{AutoOffsetReset, Consumer, ConsumerRecord, GroupProtocol, OffsetAndMetadata, TopicPartition};
use krafka::producer::Producer;
use krafka::{CloseOptions, Kafka, Record};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::submission::Event;

/// How many events are taken at once.
const BATCH: i32 = 32;

/// How long one look for events waits.
const POLL: Duration = Duration::from_secs(1);

/// How long the brokers may take to acknowledge, and to answer.
const DELIVERY: Duration = Duration::from_secs(9);
const ANSWER: Duration = Duration::from_secs(5);

pub(crate) struct Topics {
    servers: String,
    producer: OnceCell<Producer>,
    /// Whether the first event would take no longer than those after it.
    prepared: AtomicBool,
}

/// A topic, as a group reads it.
pub(crate) struct Subscription {
    pub(crate) topic: &'static str,
    /// The edge of the architecture.
    pub(crate) edge: &'static str,
    pub(crate) group: &'static str,
    /// Whether this member has its place in the group, so that events can arrive.
    pub(crate) attached: AtomicBool,
}

impl Subscription {
    pub(crate) const fn new(topic: &'static str, group: &'static str, edge: &'static str) -> Self {
        Self { topic, edge, group, attached: AtomicBool::new(false) }
    }
}

impl Topics {
    /// The brokers that the environment names; nothing is connected yet.
    pub(crate) fn new() -> Result<Self, Failure> {
        Ok(Self { servers: variable("KAFKA_BROKERS")?, producer: OnceCell::new(), prepared: AtomicBool::new(false) })
    }

    /// Returns when as many brokers have the event as the topic asks for. Events of one scheme keep their order.
    pub(crate) async fn publish(&self, topic: &str, event: &Event) -> Result<(), Failure> {
        let record = Record::new(topic, serde_json::to_vec(event)?).key(event.submission.scheme.clone());
        let _place = self.producer().await?.send(record).await?;
        Ok(())
    }

    /// Connects, and learns who leads a topic, so that who calls the first time does not wait for it. Ends when it is told to
    /// stop.
    pub(crate) async fn prepare(&self, topic: &str, stop: &CancellationToken) {
        let once = async || -> Result<(), Failure> {
            self.producer().await?.partitions_for(topic).await?;
            Ok(())
        };
        let prepare = async {
            while let Err(error) = once().await {
                warn!(topic, %error, "not connected yet");
                tokio::time::sleep(RETRY).await;
            }
            self.prepared.store(true, Ordering::Relaxed);
        };
        if stop.run_until_cancelled(prepare).await.is_some() {
            stop.cancelled().await;
        }
    }

    pub(crate) fn are_prepared(&self) -> bool {
        self.prepared.load(Ordering::Relaxed)
    }

    async fn producer(&self) -> Result<&Producer, Failure> {
        let connected = async || {
            let kafka = self.connect().await?;
            Ok(kafka.producer().delivery_timeout(DELIVERY).build().await?)
        };
        self.producer.get_or_try_init(connected).await
    }

    async fn connect(&self) -> Result<Kafka, Failure> {
        let builder = Kafka::builder(&self.servers).client_id("water-channels").security(AuthConfig::plaintext());
        Ok(builder.request_timeout(ANSWER).connect_timeout(ANSWER).connect().await?)
    }

    /// Works on events until it is told to stop. One whose work fails comes again, and with it those after it in its
    /// partition.
    pub(crate) async fn consume<W>(
        &self,
        platform: &Platform,
        subscription: &Subscription,
        stop: &CancellationToken,
        work: impl Fn(Event) -> W,
    ) where
        W: Future<Output = Result<(), Failure>>,
    {
        let once = || self.consume_once(platform, subscription, stop, &work);
        consume_until(stop, subscription.topic, &subscription.attached, once).await;
    }

    async fn consume_once<W>(
        &self,
        platform: &Platform,
        subscription: &Subscription,
        stop: &CancellationToken,
        work: &impl Fn(Event) -> W,
    ) -> Result<(), Failure>
    where
        W: Future<Output = Result<(), Failure>>,
    {
        let builder = self.connect().await?.consumer(subscription.group).group_protocol(GroupProtocol::Consumer);
        // What was published before the group was first there is for it, too.
        let builder = builder.auto_offset_reset(AutoOffsetReset::Earliest).enable_auto_commit(false);
        let consumer = builder.max_poll_records(BATCH).build().await?;
        consumer.subscribe([subscription.topic]).await?;
        let consumed = async {
            while !stop.is_cancelled() {
                let records = consumer.poll(POLL).await?;
                if consumer.group_metadata().await.is_some_and(|member| member.is_fenceable()) {
                    subscription.attached.store(true, Ordering::Relaxed);
                }
                take_all(platform, subscription, &consumer, records, work).await;
            }
            Ok(())
        };
        let consumed = consumed.await;
        // Others get the partitions now, and not when this member has been silent for long.
        if let Err(error) = consumer.close_with(CloseOptions::new().timeout(ANSWER)).await {
            warn!(%error, "the group is not told that this member ends");
        }
        consumed
    }
}

/// Works on the partitions beside each other, and in each on one event after the other; then says how far it came.
async fn take_all<W>(
    platform: &Platform,
    subscription: &Subscription,
    consumer: &Consumer,
    records: Vec<ConsumerRecord>,
    work: &impl Fn(Event) -> W,
) where
    W: Future<Output = Result<(), Failure>>,
{
    let mut partitions: BTreeMap<i32, Vec<ConsumerRecord>> = BTreeMap::new();
    for record in records {
        partitions.entry(record.partition).or_default().push(record);
    }
    let working = partitions.into_iter().map(|(partition, records)| async move {
        let (next, failed) = take_in_order(platform, subscription, records, work).await;
        (TopicPartition::new(subscription.topic, partition), next, failed)
    });
    let done = futures::future::join_all(working).await;
    let commit: HashMap<_, _> =
        done.iter().map(|(place, next, _)| (place.clone(), OffsetAndMetadata::new(*next))).collect();
    if !commit.is_empty()
        && let Err(error) = consumer.commit_offsets(&commit).await
    {
        // Somebody else has the partition by now, and will see these events again.
        warn!(%error, "what was done is not committed");
    }
    let failed: Vec<_> = done.into_iter().filter(|(_, _, failed)| *failed).collect();
    if !failed.is_empty() {
        tokio::time::sleep(RETRY).await;
    }
    for (place, next, _) in failed {
        if let Err(error) = consumer.seek(place.topic(), place.partition(), next).await {
            // It is not this member's any more; the one that has it begins there.
            warn!(%error, "an event is left to another member");
        }
    }
}

/// How far a partition is done: the next offset, and whether that was tried and failed.
async fn take_in_order<W>(
    platform: &Platform,
    subscription: &Subscription,
    records: Vec<ConsumerRecord>,
    work: &impl Fn(Event) -> W,
) -> (i64, bool)
where
    W: Future<Output = Result<(), Failure>>,
{
    let mut next = records.first().map_or(0, |record| record.offset);
    for record in records {
        match serde_json::from_slice::<Event>(record.value.as_deref().unwrap_or_default()) {
            Ok(event) => {
                let message = event.message.clone();
                if !platform.deal(subscription.edge, &message, work(event)).await {
                    return (record.offset, true);
                }
            }
            // It would come back for ever.
            Err(error) => warn!(offset = record.offset, %error, "this is no event, and is passed over"),
        }
        next = record.offset + 1;
    }
    (next, false)
}
