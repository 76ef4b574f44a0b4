//! Numbers of the world outside the file, each with its source.
//!
//! What Kubernetes does by default is a fact; how often machines fail is an assumption, and proofs that use it say so.
//! Nothing here decides anything.

use landfall_model::{Bytes, Cpu, Duration};

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn mebibytes(mebibytes: u64) -> u64 {
    mebibytes << 20
}

const GIBIBYTE: u64 = 1 << 30;

/// How long a node may be silent before it is `NotReady`: `--node-monitor-grace-period` of kube-controller-manager.
///
/// 40 s until Kubernetes 1.31, 50 s since 1.32 (kubernetes/kubernetes#121793). Its pods leave the `EndpointSlice`s then.
pub(crate) fn node_monitor_grace(kubernetes: Option<&str>) -> Duration {
    let minor = kubernetes.and_then(|version| version.trim_start_matches('v').split('.').nth(1)?.parse::<u32>().ok());
    if minor.is_some_and(|minor| minor < 32) { seconds(40) } else { seconds(50) }
}

/// How long a pod tolerates an unreachable node before it is evicted: the `DefaultTolerationSeconds` admission plugin.
/// <https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/#taint-based-evictions>
pub(crate) const UNREACHABLE_TOLERATION: Duration = seconds(300);

/// The time between the evictions of two nodes of a lost zone: `--node-eviction-rate` is 0.1/s.
///
/// A zone whose nodes are all silent keeps this rate as long as another zone is alive; the rate falls only in a zone
/// that is partly lost (55 % and at least three nodes), to 0.01/s, or to nothing in a cluster of at most 50 nodes.
/// <https://kubernetes.io/docs/concepts/architecture/nodes/#rate-limits-on-eviction>
pub(crate) const NODE_EVICTION_INTERVAL: Duration = seconds(10);

/// What the kubelet keeps free of memory before it evicts: `memory.available<100Mi`.
/// <https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/#hard-eviction-thresholds>
pub(crate) const EVICTION_THRESHOLD: Bytes = Bytes::new(mebibytes(100));

/// What an Istio sidecar requests unless its chart is told otherwise: `global.proxy.resources` of the `istiod` chart.
pub(crate) const SIDECAR_CPU: Cpu = Cpu::from_millicores(100);
/// See [`SIDECAR_CPU`].
pub(crate) const SIDECAR_MEMORY: Bytes = Bytes::new(mebibytes(128));

/// Who publishes how much of a node is reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReservationFormula {
    /// <https://cloud.google.com/kubernetes-engine/docs/concepts/plan-node-sizes>; for any node that says nothing else.
    Gke,
    /// <https://github.com/awslabs/amazon-eks-ami>, `kubelet` configuration of `nodeadm`, at 110 pods for each node.
    Eks,
}

impl ReservationFormula {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Gke => "GKE's published formula",
            Self::Eks => "the formula of EKS's machine image at 110 pods a node",
        }
    }
}

/// The processor time that the kubelet and the system keep: 6 % of the first core, 1 % of the second, 0.5 % of the
/// next two, 0.25 % of the rest. GKE and EKS publish the same.
pub(crate) fn reserved_cpu(node: Cpu) -> Cpu {
    // In hundredths of a percent of each band of millicores.
    const BANDS: [(u64, u64); 4] = [(1_000, 600), (1_000, 100), (2_000, 50), (u64::MAX, 25)];
    Cpu::from_millicores(banded(node.millicores(), &BANDS))
}

/// The memory that the kubelet and the system keep, without the eviction threshold.
///
/// GKE: 255 MiB below 1 GiB; otherwise 25 % of the first 4 GiB, 20 % of the next 4, 10 % of the next 8, 6 % of the next
/// 112 and 2 % of the rest. EKS: 255 MiB and 11 MiB for each pod that the node may have.
pub(crate) fn reserved_memory(node: Bytes, formula: ReservationFormula) -> Bytes {
    const BANDS: [(u64, u64); 5] =
        [(4 * GIBIBYTE, 2_500), (4 * GIBIBYTE, 2_000), (8 * GIBIBYTE, 1_000), (112 * GIBIBYTE, 600), (u64::MAX, 200)];
    let bytes = match formula {
        ReservationFormula::Eks => mebibytes(255 + 11 * 110),
        ReservationFormula::Gke if node.get() < GIBIBYTE => mebibytes(255),
        ReservationFormula::Gke => banded(node.get(), &BANDS),
    };
    Bytes::new(bytes)
}

/// The sum over bands of their width times their share in hundredths of a percent.
fn banded(mut amount: u64, bands: &[(u64, u64)]) -> u64 {
    let mut sum = 0;
    for (width, share) in bands {
        let part = amount.min(*width);
        sum += u128::from(part) * u128::from(*share);
        amount -= part;
    }
    u64::try_from(sum / 10_000).unwrap_or(u64::MAX)
}

/// How often the Horizontal Pod Autoscaler looks: `--horizontal-pod-autoscaler-sync-period`.
/// <https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/>
pub(crate) const AUTOSCALER_PERIOD: Duration = seconds(15);

/// How far a metric may be off its target, in percent, before the autoscaler acts:
/// `--horizontal-pod-autoscaler-tolerance` is 0.1.
pub(crate) const AUTOSCALER_TOLERANCE_PERCENT: u64 = 10;

/// How old a value of the resource metrics may be: `--metric-resolution` of metrics-server.
pub(crate) const METRICS_RESOLUTION: Duration = seconds(15);

/// What a crash may cost a Redis with `appendfsync everysec`.
/// <https://redis.io/docs/latest/operate/oss_and_stack/management/persistence/>
pub(crate) const LOG_SYNC_INTERVAL: Duration = seconds(1);

/// The longest time between two snapshots of a Redis that is written to: `save 3600 1` of its default configuration.
pub(crate) const SNAPSHOT_INTERVAL: Duration = seconds(3600);

/// Seconds in a year of 365 days.
pub(crate) const YEAR_SECONDS: f64 = 31_536_000.0;

/// How often a node fails in a year. Assumed: nobody publishes it; a drill does not measure it either.
pub(crate) const NODE_FAILURES_PER_YEAR: u32 = 1;

/// How often a node is drained and replaced in a year. Assumed: a patch of Kubernetes or of the system each month.
pub(crate) const NODE_UPGRADES_PER_YEAR: u32 = 12;

/// How long a zone is lost in a year. Assumed: one outage of an hour.
pub(crate) const ZONE_OUTAGE_PER_YEAR: Duration = seconds(3600);

/// What providers promise for a region, machines in two zones: <https://aws.amazon.com/compute/sla/>.
pub(crate) const REGION_AVAILABILITY_MILLIONTHS: u32 = 999_900;

/// What providers promise for a managed database with a standby in another zone: <https://aws.amazon.com/rds/sla/>.
pub(crate) const MANAGED_AVAILABILITY_MILLIONTHS: u32 = 999_500;

/// What providers promise for a single managed instance: the same page.
pub(crate) const MANAGED_SINGLE_AVAILABILITY_MILLIONTHS: u32 = 995_000;

/// What providers promise for a managed bucket: <https://aws.amazon.com/s3/sla/>.
pub(crate) const MANAGED_BUCKET_AVAILABILITY_MILLIONTHS: u32 = 999_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn allocatable(cpu: &str, memory: &str, formula: ReservationFormula) -> (u64, u64) {
        let (cpu, memory): (Cpu, Bytes) = (cpu.parse().expect("an amount"), memory.parse().expect("an amount"));
        let kept = reserved_memory(memory, formula).get() + EVICTION_THRESHOLD.get();
        (cpu.millicores() - reserved_cpu(cpu).millicores(), (memory.get() - kept) >> 20)
    }

    #[test]
    fn a_node_of_4_cores_and_16_gib_leaves_3920m_and_13_3_gib() {
        // 60 + 10 + 2 × 5 = 80m; 1 + 0.8 + 0.8 = 2.6 GiB and 100 MiB.
        assert_eq!(allocatable("4", "16Gi", ReservationFormula::Gke), (3_920, 16_384 - 2_663 - 100));
    }

    #[test]
    fn a_node_of_8_cores_and_32_gib_leaves_7910m() {
        // 60 + 10 + 10 + 4 × 2.5 = 90m; 2.6 + 16 × 0.06 = 3.56 GiB.
        assert_eq!(allocatable("8", "32Gi", ReservationFormula::Gke), (7_910, 32_768 - 3_646 - 100));
    }

    #[test]
    fn eks_reserves_by_pods() {
        assert_eq!(allocatable("4", "16Gi", ReservationFormula::Eks), (3_920, 16_384 - 1_465 - 100));
    }

    #[test]
    fn tiny_nodes_keep_255_mib() {
        assert_eq!(reserved_memory(Bytes::new(512 << 20), ReservationFormula::Gke), Bytes::new(255 << 20));
    }

    #[test]
    fn the_grace_period_changed_with_1_32() {
        let grace = |version| node_monitor_grace(version).seconds();
        assert_eq!([grace(None), grace(Some("1.37")), grace(Some("v1.32.1")), grace(Some("1.31"))], [50, 50, 50, 40]);
    }
}
