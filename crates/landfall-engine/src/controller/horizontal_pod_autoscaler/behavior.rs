//! How fast a proposal is followed: stabilisation windows and policies. A function of the past and the time.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{HPAScalingRules, HorizontalPodAutoscalerBehavior};

/// The window in which the highest proposal counts before replicas go, when nothing else is said
/// (`--horizontal-pod-autoscaler-downscale-stabilization`).
const DOWN_WINDOW: i32 = 300;

/// What is remembered of an autoscaler.
#[derive(Debug, Clone, Default)]
pub(super) struct History {
    /// What was proposed, before stabilisation.
    proposals: Vec<(Timestamp, i32)>,
    /// By how much replicas were added, or taken (negative).
    changes: Vec<(Timestamp, i32)>,
}

/// The bounds of an autoscaler and where it stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range {
    pub(super) min: i32,
    pub(super) max: i32,
    pub(super) current: i32,
}

/// A reason and its text, for a condition.
pub(super) type Reason = (&'static str, &'static str);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) replicas: i32,
    /// Why it was stabilised, or that it was not.
    pub(super) able: Reason,
    /// What limits it; false: nothing does.
    pub(super) limited: bool,
    pub(super) limit: Reason,
}

impl History {
    /// The replicas at the beginning are a proposal too.
    pub(super) fn begin(&mut self, now: Timestamp, current: i32) {
        // A clock that was set back has seen nothing yet of what is ahead of it.
        self.proposals.retain(|(at, _)| *at <= now);
        self.changes.retain(|(at, _)| *at <= now);
        if self.proposals.is_empty() {
            self.proposals.push((now, current));
        }
    }

    /// The autoscaler has changed the replicas.
    pub(super) fn changed(&mut self, now: Timestamp, by: i32, behavior: Option<&HorizontalPodAutoscalerBehavior>) {
        let rules = behavior.into_iter().flat_map(|b| [&b.scale_up, &b.scale_down]).flatten();
        let periods = rules.flat_map(|rules| rules.policies.iter().flatten()).map(|policy| policy.period_seconds);
        let longest = seconds(periods.max().unwrap_or_default());
        self.changes.retain(|(at, _)| *at + longest > now);
        self.changes.push((now, by));
    }

    /// What to do about a proposal.
    pub(super) fn decide(
        &mut self,
        now: Timestamp,
        proposed: i32,
        range: Range,
        behavior: Option<&HorizontalPodAutoscalerBehavior>,
    ) -> Decision {
        let stable = self.stabilize(now, proposed, range.current, behavior);
        let able = if stable == proposed {
            ("ReadyForNewScale", "recommended size matches current size")
        } else if proposed >= range.current && behavior.is_some() {
            (
                "ScaleUpStabilized",
                "recent recommendations were lower than current one, applying the lowest recent recommendation",
            )
        } else {
            (
                "ScaleDownStabilized",
                "recent recommendations were higher than current one, applying the highest recent recommendation",
            )
        };
        let (replicas, limit) = self.limit(now, stable, range, behavior);
        Decision { replicas, able, limited: replicas != stable, limit }
    }

    fn stabilize(
        &mut self,
        now: Timestamp,
        proposed: i32,
        current: i32,
        behavior: Option<&HorizontalPodAutoscalerBehavior>,
    ) -> i32 {
        let window = |rules: Option<&HPAScalingRules>, default| {
            seconds(rules.and_then(|rules| rules.stabilization_window_seconds).unwrap_or(default))
        };
        let up = window(behavior.and_then(|b| b.scale_up.as_ref()), 0);
        let down = window(behavior.and_then(|b| b.scale_down.as_ref()), DOWN_WINDOW);
        let within = |window: SignedDuration| {
            self.proposals.iter().filter(move |(at, _)| *at + window > now).map(|(_, proposal)| *proposal)
        };
        let lowest = within(up).fold(proposed, i32::min);
        let highest = within(down).fold(proposed, i32::max);
        self.proposals.retain(|(at, _)| *at + up.max(down) > now);
        self.proposals.push((now, proposed));
        // Without rules nothing holds back an increase but the limits.
        if behavior.is_none() { highest } else { current.max(lowest).min(highest) }
    }

    fn limit(
        &self,
        now: Timestamp,
        wanted: i32,
        range: Range,
        behavior: Option<&HorizontalPodAutoscalerBehavior>,
    ) -> (i32, Reason) {
        let Range { min, max, current } = range;
        let too_fast = ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate");
        let too_many = ("TooManyReplicas", "the desired replica count is more than the maximum replica count");
        let too_few = ("TooFewReplicas", "the desired replica count is less than the minimum replica count");
        let too_fast_down =
            ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate");
        if wanted > current || (behavior.is_none() && wanted > max) {
            let fastest = match behavior {
                // Without rules: twice as many, and four at least.
                None => current.saturating_mul(2).max(4),
                Some(behavior) => self.furthest(now, current, behavior.scale_up.as_ref(), Direction::Up).max(current),
            };
            let (bound, reason) = if max > fastest { (fastest, too_fast) } else { (max, too_many) };
            if wanted > bound {
                return (bound, reason);
            }
        }
        if wanted < current || (behavior.is_none() && wanted < min) {
            let fastest = match behavior {
                None => i32::MIN,
                Some(b) => self.furthest(now, current, b.scale_down.as_ref(), Direction::Down).min(current),
            };
            let (bound, reason) = if min < fastest { (fastest, too_fast_down) } else { (min, too_few) };
            if wanted < bound {
                return (bound, reason);
            }
        }
        (wanted, ("DesiredWithinRange", "the desired count is within the acceptable range"))
    }

    /// How far the policies of one direction let the replicas go.
    #[expect(clippy::cast_possible_truncation, reason = "the conversion saturates")]
    fn furthest(&self, now: Timestamp, current: i32, rules: Option<&HPAScalingRules>, direction: Direction) -> i32 {
        let select = rules.and_then(|rules| rules.select_policy.as_deref()).unwrap_or("Max");
        if select == "Disabled" {
            return current;
        }
        let policies = rules.and_then(|rules| rules.policies.as_deref()).unwrap_or_default();
        let proposals = policies.iter().map(|policy| {
            let recent = self.changes.iter().filter(|(at, _)| *at + seconds(policy.period_seconds) > now);
            let start = current - recent.map(|(_, change)| change).sum::<i32>();
            let share = f64::from(policy.value) / 100.0;
            match (policy.type_.as_str(), direction) {
                ("Pods", Direction::Up) => start.saturating_add(policy.value),
                ("Pods", Direction::Down) => start.saturating_sub(policy.value),
                // Rounded so that a small share still moves.
                (_, Direction::Up) => (f64::from(start) * (1.0 + share)).ceil() as i32,
                (_, Direction::Down) => (f64::from(start) * (1.0 - share)) as i32,
            }
        });
        let furthest = match (direction, select) {
            (Direction::Up, "Min") | (Direction::Down, "Max") => proposals.min(),
            _ => proposals.max(),
        };
        furthest.unwrap_or(match direction {
            Direction::Up => i32::MAX,
            Direction::Down => i32::MIN,
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

fn seconds(seconds: i32) -> SignedDuration {
    SignedDuration::from_secs(seconds.into())
}
