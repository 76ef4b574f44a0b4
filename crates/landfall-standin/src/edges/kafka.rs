//! Messages through Kafka: acknowledged by the brokers that are in sync, and committed by a consumer group when their
//! work is done.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use krafka::auth::{AuthConfig, TlsConfig};
use krafka::consumer::{AutoOffsetReset, Consumer, ConsumerRecord, GroupProtocol, OffsetAndMetadata, TopicPartition};
use krafka::producer::Producer;
use krafka::{CloseOptions, Kafka, Record};
use tokio::sync::OnceCell;
use tracing::warn;

use super::{Edges, value_of};
use crate::Failure;
use crate::behaviour::KafkaAccess;
use crate::payload::Carried;

/// How many messages a consumer takes at once.
const BATCH: i32 = 32;

/// How long one look for messages waits.
const POLL: Duration = Duration::from_secs(1);

/// After a broken connection, and before a message whose work has failed comes again.
const RETRY: Duration = Duration::from_millis(500);

/// How long the brokers may take to acknowledge, and to answer: less than an edge may take at all, so that nothing is sent
/// after its failure was told.
const DELIVERY: Duration = Duration::from_secs(9);
const ANSWER: Duration = Duration::from_secs(5);

/// How long leaving a group may take when the pod ends.
const LEAVE: Duration = Duration::from_secs(5);

/// A cluster of brokers, as one user.
pub(crate) struct Cluster {
    servers: String,
    security: AuthConfig,
    producer: OnceCell<Producer>,
    /// Those that are members of a group now.
    consumers: Mutex<Vec<Arc<Consumer>>>,
}

impl Cluster {
    pub(super) fn new(access: &KafkaAccess, authority: &str) -> Result<Self, Failure> {
        let tls = access.tls.then(|| TlsConfig::new().with_ca_cert_pem(authority));
        let security = match (&access.login, tls) {
            (None, None) => AuthConfig::plaintext(),
            (None, Some(tls)) => AuthConfig::ssl(tls),
            (Some(login), tls) => {
                let (user, password) = (value_of(&login.user)?, value_of(&login.password)?);
                let scram = AuthConfig::sasl_scram_sha512(user, password);
                tls.into_iter().fold(scram, AuthConfig::with_tls)
            }
        };
        let servers = value_of(&access.servers)?;
        Ok(Self { servers, security, producer: OnceCell::new(), consumers: Mutex::default() })
    }

    /// Returns when as many brokers have the message as the topic asks for. Messages of one key keep their order.
    pub(super) async fn publish(&self, topic: &str, key: String, body: Vec<u8>) -> Result<(), Failure> {
        let producer = self
            .producer
            .get_or_try_init(|| async {
                let kafka = self.connect().await?;
                Ok::<_, Failure>(kafka.producer().delivery_timeout(DELIVERY).build().await?)
            })
            .await?;
        let _place = producer.send(Record::new(topic, body).key(key)).await?;
        Ok(())
    }

    async fn connect(&self) -> Result<Kafka, Failure> {
        let builder = Kafka::builder(&self.servers).client_id("landfall").security(self.security.clone());
        Ok(builder.request_timeout(ANSWER).connect_timeout(ANSWER).connect().await?)
    }

    async fn join(&self, membership: &Membership<'_>) -> Result<Arc<Consumer>, Failure> {
        let kafka = self.connect().await?;
        let consumer = kafka
            .consumer(membership.group)
            .group_protocol(GroupProtocol::Consumer)
            // What was published before the group was first there is for it, too.
            .auto_offset_reset(AutoOffsetReset::Earliest)
            .enable_auto_commit(false)
            .max_poll_records(BATCH)
            .build()
            .await?;
        consumer.subscribe([membership.topic]).await?;
        let consumer = Arc::new(consumer);
        self.members().push(Arc::clone(&consumer));
        Ok(consumer)
    }

    async fn part_with(&self, consumer: &Arc<Consumer>) {
        self.members().retain(|member| !Arc::ptr_eq(member, consumer));
        leave(consumer).await;
    }

    /// Leaves all groups, so that others get the partitions now and not when this member has been silent for long.
    pub(super) async fn leave_all(&self) {
        let consumers = std::mem::take(&mut *self.members());
        futures::future::join_all(consumers.iter().map(|consumer| leave(consumer))).await;
    }

    fn members(&self) -> MutexGuard<'_, Vec<Arc<Consumer>>> {
        self.consumers.lock().expect("nothing panics with the list of consumers")
    }
}

async fn leave(consumer: &Consumer) {
    if let Err(error) = consumer.close_with(CloseOptions::new().timeout(LEAVE)).await {
        // The group finds out by the silence.
        warn!(%error, "a group is not told that this member ends");
    }
}

/// A topic, and as which group it is read.
pub(crate) struct Membership<'a> {
    pub(crate) access: &'a KafkaAccess,
    pub(crate) topic: &'a str,
    pub(crate) group: &'a str,
}

/// Consumes for as long as it is polled, as a member of the group; `attached` is called each time when messages can
/// arrive. A message whose work fails comes again, and with it those after it in its partition.
pub(crate) async fn consume<W>(
    edges: &Edges,
    membership: Membership<'_>,
    attached: impl Fn(),
    work: impl Fn(Carried) -> W,
) where
    W: Future<Output = Result<(), Failure>>,
{
    loop {
        let cluster = edges.cluster(&membership.access.servers);
        match cluster.join(&membership).await {
            Ok(consumer) => {
                if let Err(error) = take_as_they_come(&consumer, &attached, &work).await {
                    warn!(topic = membership.topic, %error, "consuming again");
                }
                cluster.part_with(&consumer).await;
            }
            Err(error) => warn!(topic = membership.topic, %error, "no member of the group yet"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn take_as_they_come<W>(
    consumer: &Consumer,
    attached: &impl Fn(),
    work: &impl Fn(Carried) -> W,
) -> Result<(), Failure>
where
    W: Future<Output = Result<(), Failure>>,
{
    loop {
        let records = consumer.poll(POLL).await?;
        if consumer.group_metadata().await.is_some_and(|member| member.is_fenceable()) {
            attached();
        }
        take_all(consumer, records, work).await;
    }
}

/// Works on the partitions beside each other, and in each on one message after the other; then says how far it came.
async fn take_all<W>(consumer: &Consumer, records: Vec<ConsumerRecord>, work: &impl Fn(Carried) -> W)
where
    W: Future<Output = Result<(), Failure>>,
{
    let mut partitions: BTreeMap<(String, i32), Vec<ConsumerRecord>> = BTreeMap::new();
    for record in records {
        partitions.entry((record.topic.to_string(), record.partition)).or_default().push(record);
    }
    let working = partitions.into_iter().map(|((topic, partition), records)| async move {
        let done = take_in_order(records, work).await;
        (TopicPartition::new(topic, partition), done)
    });
    let done = futures::future::join_all(working).await;
    let commit: HashMap<_, _> =
        done.iter().map(|(place, done)| (place.clone(), OffsetAndMetadata::new(done.next))).collect();
    if !commit.is_empty()
        && let Err(error) = consumer.commit_offsets(&commit).await
    {
        // Somebody else has the partition by now, and will see these messages again.
        warn!(%error, "what was done is not committed");
    }
    let failed: Vec<_> = done.iter().filter(|(_, done)| done.failed).collect();
    if !failed.is_empty() {
        // What has just failed would fail at once again.
        tokio::time::sleep(RETRY).await;
    }
    for (place, done) in failed {
        if let Err(error) = consumer.seek(place.topic(), place.partition(), done.next).await {
            // It is not this member's any more; the one that has it begins there.
            warn!(%error, "a message is left to another member");
        }
    }
}

/// How far a partition is done.
struct Done {
    /// The offset of the first message that is not.
    next: i64,
    /// Whether that one was tried.
    failed: bool,
}

async fn take_in_order<W>(records: Vec<ConsumerRecord>, work: &impl Fn(Carried) -> W) -> Done
where
    W: Future<Output = Result<(), Failure>>,
{
    let mut next = records.first().map_or(0, |record| record.offset);
    for record in records {
        match serde_json::from_slice::<Carried>(record.value.as_deref().unwrap_or_default()) {
            Ok(carried) => {
                if work(carried).await.is_err() {
                    return Done { next: record.offset, failed: true };
                }
            }
            // It would come back for ever.
            Err(error) => warn!(offset = record.offset, %error, "a message that nobody here has sent"),
        }
        next = record.offset + 1;
    }
    Done { next, failed: false }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::behaviour::Message;

    fn record(offset: i64, body: &str) -> ConsumerRecord {
        ConsumerRecord::new("orders", 0, offset, None, Some(body.to_owned().into()))
    }

    fn message(id: u64) -> String {
        serde_json::to_string(&Message { id, ..Message::default() }).expect("a message is JSON")
    }

    #[tokio::test]
    async fn what_comes_after_a_failure_waits_for_it() {
        let seen = Mutex::new(Vec::new());
        let records = vec![record(7, &message(1)), record(9, &message(2)), record(10, &message(3))];
        let done = take_in_order(records, &|carried: Carried| {
            seen.lock().expect("nothing panics here").push(carried.message.id);
            std::future::ready(if carried.message.id == 2 { Err("no".into()) } else { Ok(()) })
        })
        .await;
        assert_eq!((done.next, done.failed), (9, true));
        assert_eq!(*seen.lock().expect("nothing panics here"), [1, 2]);
    }

    #[tokio::test]
    async fn a_message_of_somebody_else_is_passed_over() {
        let done = take_in_order(vec![record(3, "not ours")], &|_| std::future::ready(Ok(()))).await;
        assert_eq!((done.next, done.failed), (4, false));
    }
}
