//! What an operator asks a Kafka node for: topics, users and their rights. It runs in the pod of a node, as that is where
//! the node's certificate is and where every network policy lets it speak to the nodes.

mod rights;

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead as _;
use std::num::NonZeroU32;
use std::path::Path;

use krafka::Kafka;
use krafka::admin::{
    AclBinding, AclFilter, AclOperation, AclPatternType, AclResourceType, AdminClient,
    AlterUserScramCredentialsOptions, ConfigOp, ConfigResource, CreatePartitionsOptions, CreateTopicsOptions,
    DeleteAclsOptions, DescribeAclsOptions, DescribeTopicsOptions, IncrementalAlterConfigsOptions, NewTopic,
    ScramCredentialUpsertion,
};
use krafka::auth::{AuthConfig, ScramMechanism, TlsConfig};
use krafka::error::ErrorCode;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};

use self::rights::Granted;
use super::IDENTITY;
use crate::Failure;

/// How often a password is hashed. Kafka wants this many at least: <https://www.rfc-editor.org/rfc/rfc5802#section-5.1>.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).expect("it is not zero");

/// One line of JSON on the tool's standard input.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    /// Where a node takes other nodes: `host:port`.
    pub(crate) node: String,
    pub(crate) wanted: Wanted,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Wanted {
    Topic(Topic),
    User(User),
}

/// A topic as it is to be.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Topic {
    pub(crate) name: String,
    /// As the cluster has it by default when left out.
    pub(crate) partitions: Option<i32>,
    pub(crate) replicas: Option<i16>,
    pub(crate) config: BTreeMap<String, String>,
}

/// A user with a password, and all that it may do.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) password: String,
    /// None when nobody's rights are checked.
    pub(crate) rights: Option<Vec<Right>>,
}

/// One right, in Strimzi's words.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Right {
    /// `topic`, `group`, `cluster` or `transactionalId`.
    pub(crate) resource: String,
    pub(crate) name: String,
    /// Whether every name that begins so is meant.
    pub(crate) prefix: bool,
    /// `Read`, `Write`, …
    pub(crate) operation: String,
}

/// Does what the line on standard input says.
pub(crate) async fn run() -> Result<(), Failure> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    let order: Order = serde_json::from_str(&line)?;
    let identity = Identity::read()?;
    let kafka = Kafka::builder(&order.node).security(identity.security()).connect().await?;
    let admin = kafka.admin();
    match order.wanted {
        Wanted::Topic(wanted) => topic(&admin, wanted).await,
        Wanted::User(wanted) => user(&admin, wanted, &order.node, &identity).await,
    }
}

async fn topic(admin: &AdminClient, wanted: Topic) -> Result<(), Failure> {
    let (name, config) = (wanted.name.as_str(), &wanted.config);
    let mut new = NewTopic::new(name, wanted.partitions.unwrap_or(-1), wanted.replicas.unwrap_or(-1))?;
    for (key, value) in config {
        new = new.with_config(key, value);
    }
    let made = admin.create_topics([new], CreateTopicsOptions::default()).await?;
    for (_, result) in made {
        match result {
            Ok(()) => return Ok(()),
            Err(krafka::KrafkaError::Broker { code: ErrorCode::TopicAlreadyExists, .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let described = admin.describe_topics([name], DescribeTopicsOptions::default()).await?;
    let there = described.into_values().next().ok_or("no node describes the topic")??.partitions.len();
    if let Some(partitions) = wanted.partitions
        && usize::try_from(partitions).is_ok_and(|partitions| partitions > there)
    {
        let grown = admin.create_partitions([(name, partitions)], CreatePartitionsOptions::default()).await?;
        grown.into_values().collect::<Result<(), _>>()?;
    }
    if !config.is_empty() {
        let changes = config.iter().map(|(key, value)| ConfigOp::set(key, value)).collect();
        let changes = [(ConfigResource::topic(name), changes)];
        let changed = admin.incremental_alter_configs(changes, IncrementalAlterConfigsOptions::default()).await?;
        changed.into_values().collect::<Result<(), _>>()?;
    }
    Ok(())
}

async fn user(admin: &AdminClient, wanted: User, node: &str, identity: &Identity) -> Result<(), Failure> {
    let salt: [u8; 16] = rand::random();
    let mut salted = [0; 64];
    ring::pbkdf2::derive(ring::pbkdf2::PBKDF2_HMAC_SHA512, ITERATIONS, &salt, wanted.password.as_bytes(), &mut salted);
    let credential = ScramCredentialUpsertion {
        name: wanted.name.clone(),
        mechanism: ScramMechanism::Sha512,
        iterations: i32::try_from(ITERATIONS.get())?,
        salt: salt.to_vec().into(),
        salted_password: salted.to_vec().into(),
    };
    let options = AlterUserScramCredentialsOptions::default();
    let kept = admin.alter_user_scram_credentials(Vec::new(), vec![credential], options).await?;
    kept.into_values().collect::<Result<(), _>>()?;
    let Some(rights) = &wanted.rights else { return Ok(()) };
    let principal = format!("User:{}", wanted.name);
    let wanted: BTreeSet<Granted> = rights.iter().map(granted).collect::<Result<_, _>>()?;
    let filter = AclFilter::for_principal(&principal);
    let there = admin.describe_acls(filter.clone(), DescribeAclsOptions::default()).await?;
    if there.iter().map(as_granted).collect::<BTreeSet<_>>() == wanted {
        return Ok(());
    }
    for (_, deleted) in admin.delete_acls(vec![filter], DeleteAclsOptions::default()).await? {
        deleted?;
    }
    let wanted: Vec<_> = wanted.into_iter().collect();
    rights::create(node, identity.tls()?, &principal, &wanted).await
}

/// A right in Kafka's numbers: <https://kafka.apache.org/41/design/protocol/>.
fn granted(right: &Right) -> Result<Granted, Failure> {
    let resource = match right.resource.as_str() {
        "topic" => AclResourceType::Topic,
        "group" => AclResourceType::Group,
        "cluster" => AclResourceType::Cluster,
        "transactionalId" => AclResourceType::TransactionalId,
        other => return Err(format!("rights on a resource of the type `{other}` are not handled").into()),
    };
    let operation = match right.operation.as_str() {
        "All" => AclOperation::All,
        "Read" => AclOperation::Read,
        "Write" => AclOperation::Write,
        "Create" => AclOperation::Create,
        "Delete" => AclOperation::Delete,
        "Alter" => AclOperation::Alter,
        "Describe" => AclOperation::Describe,
        "ClusterAction" => AclOperation::ClusterAction,
        "DescribeConfigs" => AclOperation::DescribeConfigs,
        "AlterConfigs" => AclOperation::AlterConfigs,
        "IdempotentWrite" => AclOperation::IdempotentWrite,
        other => return Err(format!("there is no operation `{other}`").into()),
    };
    // Kafka's only cluster is called so: <https://kafka.apache.org/41/security/authorization-and-acls/>.
    let name = if resource == AclResourceType::Cluster { "kafka-cluster" } else { &right.name };
    Ok(Granted {
        resource: resource.to_i8(),
        name: name.to_owned(),
        prefix: right.prefix,
        operation: operation.to_i8(),
    })
}

/// Kafka's `LITERAL` is what krafka calls `Prefixed`, and it does not know Kafka's `PREFIXED`.
fn as_granted(right: &AclBinding) -> Granted {
    Granted {
        resource: right.resource_type.to_i8(),
        name: right.resource_name.clone(),
        prefix: right.pattern_type == AclPatternType::Unknown,
        operation: right.operation.to_i8(),
    }
}

/// The certificate of the node, and whom it trusts.
struct Identity {
    authority: Vec<u8>,
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Identity {
    fn read() -> Result<Self, Failure> {
        let file = |file: &str| std::fs::read(Path::new(IDENTITY).join(file));
        Ok(Self { authority: file("ca.crt")?, certificate: file("tls.crt")?, key: file("tls.key")? })
    }

    fn security(&self) -> AuthConfig {
        let tls = TlsConfig::new().with_ca_cert_pem(self.authority.clone());
        AuthConfig::ssl(tls.with_client_cert_pem(self.certificate.clone(), self.key.clone()))
    }

    fn tls(&self) -> Result<ClientConfig, Failure> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&self.authority) {
            roots.add(certificate?)?;
        }
        let chain = CertificateDer::pem_slice_iter(&self.certificate).collect::<Result<_, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(&self.key)?;
        Ok(ClientConfig::builder().with_root_certificates(roots).with_client_auth_cert(chain, key)?)
    }
}
