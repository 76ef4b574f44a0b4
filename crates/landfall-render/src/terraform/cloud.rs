//! What differs between the clouds by name only: locations, zones, machines, versions.

use landfall_model::{Bytes, Cpu, Engine, NodePool, Provider, Region, StoreProvider};

/// Who the machines are from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cloud {
    /// Amazon Web Services.
    Aws,
    /// Microsoft Azure.
    Azure,
    /// Google Cloud.
    Gcp,
    /// Nobody: machines that are there already.
    None,
}

impl From<Provider> for Cloud {
    fn from(provider: Provider) -> Self {
        match provider {
            Provider::Aws => Self::Aws,
            Provider::Azure => Self::Azure,
            Provider::Gcp => Self::Gcp,
        }
    }
}

impl Cloud {
    /// The cloud that runs a store; `None` for a store in the cluster.
    pub(super) fn of_store(provider: StoreProvider) -> Option<Self> {
        match provider {
            StoreProvider::Aws => Some(Self::Aws),
            StoreProvider::Azure => Some(Self::Azure),
            StoreProvider::Gcp => Some(Self::Gcp),
            StoreProvider::Operator | StoreProvider::Statefulset => None,
        }
    }

    /// The name of its folder.
    pub(super) fn folder(self) -> &'static str {
        match self {
            Self::Aws => "aws",
            Self::Azure => "azure",
            Self::Gcp => "gcp",
            Self::None => "none",
        }
    }
}

/// A location of a cloud.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Location {
    pub(super) cloud: Cloud,
    pub(super) name: &'static str,
    pub(super) country: &'static str,
    zones: &'static str,
}

const fn location(cloud: Cloud, name: &'static str, country: &'static str, zones: &'static str) -> Location {
    Location { cloud, name, country, zones }
}

/// The locations whose country and zones are known here, after the providers' public lists of regions. Of one country and
/// cloud the larger comes first.
const LOCATIONS: [Location; 44] = [
    location(Cloud::Aws, "ap-south-1", "IN", "abc"),
    location(Cloud::Aws, "ap-south-2", "IN", "abc"),
    location(Cloud::Aws, "eu-central-1", "DE", "abc"),
    location(Cloud::Aws, "eu-central-2", "CH", "abc"),
    location(Cloud::Aws, "eu-west-1", "IE", "abc"),
    location(Cloud::Aws, "eu-west-2", "GB", "abc"),
    location(Cloud::Aws, "eu-west-3", "FR", "abc"),
    location(Cloud::Aws, "eu-north-1", "SE", "abc"),
    location(Cloud::Aws, "eu-south-1", "IT", "abc"),
    location(Cloud::Aws, "eu-south-2", "ES", "abc"),
    location(Cloud::Aws, "us-east-1", "US", "abcdf"),
    location(Cloud::Aws, "us-east-2", "US", "abc"),
    location(Cloud::Aws, "us-west-2", "US", "abcd"),
    location(Cloud::Aws, "ca-central-1", "CA", "abd"),
    location(Cloud::Aws, "ap-southeast-1", "SG", "abc"),
    location(Cloud::Aws, "ap-southeast-2", "AU", "abc"),
    location(Cloud::Aws, "ap-northeast-1", "JP", "acd"),
    location(Cloud::Aws, "sa-east-1", "BR", "abc"),
    location(Cloud::Azure, "centralindia", "IN", "123"),
    location(Cloud::Azure, "southindia", "IN", ""),
    location(Cloud::Azure, "germanywestcentral", "DE", "123"),
    location(Cloud::Azure, "northeurope", "IE", "123"),
    location(Cloud::Azure, "swedencentral", "SE", "123"),
    location(Cloud::Azure, "francecentral", "FR", "123"),
    location(Cloud::Azure, "uksouth", "GB", "123"),
    location(Cloud::Azure, "switzerlandnorth", "CH", "123"),
    location(Cloud::Azure, "italynorth", "IT", "123"),
    location(Cloud::Azure, "eastus2", "US", "123"),
    location(Cloud::Azure, "westus3", "US", "123"),
    location(Cloud::Azure, "southeastasia", "SG", "123"),
    location(Cloud::Azure, "australiaeast", "AU", "123"),
    location(Cloud::Azure, "japaneast", "JP", "123"),
    location(Cloud::Gcp, "asia-south1", "IN", "abc"),
    location(Cloud::Gcp, "asia-south2", "IN", "abc"),
    location(Cloud::Gcp, "europe-west3", "DE", "abc"),
    location(Cloud::Gcp, "europe-west10", "DE", "abc"),
    location(Cloud::Gcp, "europe-north2", "SE", "abc"),
    location(Cloud::Gcp, "europe-west9", "FR", "abc"),
    location(Cloud::Gcp, "europe-west2", "GB", "abc"),
    location(Cloud::Gcp, "us-central1", "US", "abcf"),
    location(Cloud::Gcp, "us-east4", "US", "abc"),
    location(Cloud::Gcp, "asia-southeast1", "SG", "abc"),
    location(Cloud::Gcp, "australia-southeast1", "AU", "abc"),
    location(Cloud::Gcp, "asia-northeast1", "JP", "abc"),
];

impl Location {
    /// The location of that name.
    pub(super) fn named(cloud: Cloud, name: &str) -> Option<&'static Self> {
        LOCATIONS.iter().find(|location| location.cloud == cloud && location.name == name)
    }

    /// The location of a cloud in a country, at a place among several.
    pub(super) fn in_country(cloud: Cloud, country: &str, place: usize) -> Option<&'static Self> {
        LOCATIONS.iter().filter(|location| location.cloud == cloud && location.country == country).nth(place)
    }
}

/// The provider's names of a region's zones, in the order in which the file names them: the file's own names may be any.
pub(super) fn zones(cloud: Cloud, location: &str, region: &Region) -> Vec<String> {
    let known = Location::named(cloud, location).map_or(if cloud == Cloud::Azure { "123" } else { "abc" }, |l| l.zones);
    let letters: Vec<char> = known.chars().collect();
    let count = region.zones.len().max(1).min(letters.len());
    let name = |letter: &char| match cloud {
        Cloud::Gcp => format!("{location}-{letter}"),
        Cloud::Azure => letter.to_string(),
        Cloud::Aws | Cloud::None => format!("{location}{letter}"),
    };
    letters[..count].iter().map(name).collect()
}

/// The sizes that every cloud has: cores, with 4 and 8 GiB of memory for each.
const CORES: [u64; 7] = [2, 4, 8, 16, 32, 48, 64];

/// The smallest size that has the cores and the memory: cores, and GiB for each core.
fn size(cpu: Cpu, memory: Bytes) -> Option<(u64, u64)> {
    let fits = |cores: u64, ratio: u64| cores * 1000 >= cpu.millicores() && (cores * ratio) << 30 >= memory.get();
    CORES.iter().flat_map(|cores| [(*cores, 4), (*cores, 8)]).find(|(cores, ratio)| fits(*cores, *ratio))
}

/// Amazon's word for a number of cores.
fn word(cores: u64) -> String {
    match cores {
        2 => "large".to_owned(),
        4 => "xlarge".to_owned(),
        cores => format!("{}xlarge", cores / 4),
    }
}

/// The machine of a pool; `None` where no machine is large enough.
pub(super) fn machine(cloud: Cloud, pool: &NodePool) -> Option<String> {
    let (cores, ratio) = size(pool.cpu.value, pool.memory.value)?;
    Some(match (cloud, ratio) {
        (Cloud::Aws, 4) => format!("m7i.{}", word(cores)),
        (Cloud::Aws, _) => format!("r7i.{}", word(cores)),
        (Cloud::Gcp, 4) => format!("n2-standard-{cores}"),
        (Cloud::Gcp, _) => format!("n2-highmem-{cores}"),
        (Cloud::Azure, 4) => format!("Standard_D{cores}s_v5"),
        (Cloud::Azure, _) => format!("Standard_E{cores}s_v5"),
        (Cloud::None, _) => String::new(),
    })
}

/// The machine of a managed store's member that has the cores and the memory; `None` where no machine is large enough.
pub(super) fn instance(cloud: Cloud, engine: Engine, cpu: Cpu, memory: Bytes) -> Option<String> {
    let (cores, ratio) = size(cpu, memory)?;
    let family = if ratio == 4 { 'm' } else { 'r' };
    let word = word(cores);
    Some(match (cloud, engine) {
        (Cloud::Aws, Engine::Postgres) => format!("db.{family}7g.{word}"),
        (Cloud::Aws, Engine::Mongodb) => format!("db.r6g.{word}"),
        (Cloud::Aws, Engine::Redis) => format!("cache.{family}7g.{word}"),
        (Cloud::Aws, Engine::Kafka) => format!("kafka.m7g.{word}"),
        (Cloud::Aws, Engine::Rabbitmq) => format!("mq.m7g.{word}"),
        (Cloud::Aws, Engine::Elasticsearch) => format!("{family}7g.{word}.search"),
        (Cloud::Gcp, Engine::Postgres) => format!("db-custom-{cores}-{}", cores * ratio * 1024),
        (Cloud::Azure, Engine::Postgres) if ratio == 4 => format!("GP_Standard_D{cores}ds_v5"),
        (Cloud::Azure, Engine::Postgres) => format!("MO_Standard_E{cores}ds_v5"),
        // Named by their memory in GiB.
        (Cloud::Azure, Engine::Redis) => {
            let needed = memory.get().div_ceil(1 << 30);
            let sizes = [3, 5, 10, 20, 50, 100, 150, 250, 350];
            format!("Balanced_B{}", sizes.into_iter().find(|size| *size >= needed)?)
        }
        _ => String::new(),
    })
}

/// The version of a store, as the cloud writes it.
pub(super) fn version(cloud: Cloud, engine: Engine, declared: Option<&str>) -> String {
    let part = |index: usize| declared.and_then(|version| version.split('.').nth(index));
    let major = |default: &str| part(0).unwrap_or(default).to_owned();
    let minor = |default: &str| match (part(0), part(1)) {
        (Some(major), Some(minor)) => format!("{major}.{minor}"),
        (Some(major), None) => format!("{major}.0"),
        (None, _) => default.to_owned(),
    };
    match (cloud, engine) {
        (_, Engine::Postgres) => major("17"),
        (Cloud::Aws, Engine::Kafka) => format!("{}.x.kraft", minor("4.1")),
        // Valkey, which speaks the protocol of Redis, has these two.
        (Cloud::Aws, Engine::Redis) => if major("8") == "7" { "7.2" } else { "8.0" }.to_owned(),
        (_, Engine::Redis) => "REDIS_7_2".to_owned(),
        (_, Engine::Rabbitmq) => minor("4.2"),
        _ => minor("0.0"),
    }
}
