//! Every sequence of events to depth 10 over a small plan, with a world in which effects are done, done twice, or cut off.

use std::collections::{BTreeSet, HashSet, VecDeque};

use super::*;

const DEPTH: usize = 10;

/// What the cluster would be like. Traffic that is sent to a canary that is not there is lost.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    versions: Vec<Version>,
    canaries: Vec<Option<Canary>>,
}

/// A canary, and the step whose share it has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Canary(Option<usize>);

impl World {
    fn new(services: usize) -> Self {
        Self { versions: vec![Version::Old; services], canaries: vec![None; services] }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::SetTemplate { service, version } => self.versions[service] = version,
            Effect::StartCanary { service } => {
                self.canaries[service] = Some(self.canaries[service].unwrap_or_default());
            }
            Effect::Weigh { service, step } => {
                if let Some(canary) = &mut self.canaries[service] {
                    canary.0 = step;
                }
                assert!(step.is_none() || self.canaries[service].is_some(), "a share for a canary that is not there");
            }
            Effect::RemoveCanary { service } => {
                let share = self.canaries[service].and_then(|canary| canary.0);
                assert_eq!(share, None, "a canary goes while requests are sent to it");
                self.canaries[service] = None;
            }
        }
    }

    fn is(&self, version: Version) -> bool {
        self.versions.iter().all(|own| *own == version) && self.canaries.iter().all(Option::is_none)
    }
}

fn events() -> Vec<Event> {
    let text = || "seen".to_owned();
    vec![
        Event::Begin,
        Event::Ready,
        Event::Judged(Verdict::Pass, text()),
        Event::Judged(Verdict::Fail, text()),
        Event::Judged(Verdict::Inconclusive, text()),
        Event::Judged(Verdict::NoData, text()),
        Event::Broken(text()),
        Event::DeadlinePassed(text()),
        Event::Abort(text()),
        Event::RollBack(text()),
    ]
}

fn plan(services: &[Path], automatic: bool) -> Plan {
    Plan { services: services.to_vec(), automatic, verify: false }
}

fn plans() -> Vec<Plan> {
    let canary = Path::Canary { steps: 3 };
    let shapes: [&[Path]; 4] =
        [&[canary, Path::Direct], &[Path::Direct, canary], &[canary, Path::Canary { steps: 1 }], &[Path::Direct]];
    let both = shapes.into_iter().flat_map(|shape| [plan(shape, true), plan(shape, false)]);
    both.flat_map(|plan| [Plan { verify: true, ..plan.clone() }, plan]).collect()
}

/// All that can be reached in at most `DEPTH` events. What follows depends on the phase and the world alone, so each pair
/// stands for every sequence that leads to it. `performed` says how the effects of each transition are done.
fn reach(plan: &Plan, perform: impl Fn(&World, &[Effect]) -> World) -> HashSet<(Phase, World)> {
    let begin = (Phase::Pending, World::new(plan.services.len()));
    let mut known = HashSet::from([begin.clone()]);
    let mut queue = VecDeque::from([(begin, 0)]);
    while let Some(((phase, world), depth)) = queue.pop_front() {
        if depth == DEPTH {
            continue;
        }
        for event in events() {
            let Some((following, effects)) = phase.next(&event, plan) else { continue };
            assert!(!phase.is_terminal(), "{event:?} moves {phase:?}");
            let pair = (following, perform(&world, &effects));
            if known.insert(pair.clone()) {
                queue.push_back((pair, depth + 1));
            }
        }
    }
    known
}

fn once(world: &World, effects: &[Effect]) -> World {
    let mut world = world.clone();
    for effect in effects {
        world.perform(*effect);
    }
    world
}

#[test]
fn the_end_is_always_one_version_everywhere_and_no_canary() {
    for plan in plans() {
        for (phase, world) in reach(&plan, once) {
            match phase {
                Phase::Succeeded => assert!(world.is(Version::New), "{world:?}"),
                Phase::RolledBack { .. } | Phase::Failed { .. } | Phase::Pending => {
                    assert!(world.is(Version::Old), "{phase:?} {world:?}");
                }
                Phase::Progressing { .. } | Phase::Held { .. } | Phase::RollingBack { .. } => {}
            }
        }
    }
}

#[test]
fn a_crash_between_any_two_effects_changes_nothing() {
    for plan in plans() {
        // The shipper dies after each effect in turn; the next one begins with the first again.
        let crashing = |world: &World, effects: &[Effect]| {
            let whole = once(world, effects);
            for done in 0..=effects.len() {
                let resumed = once(&once(world, &effects[..done]), effects);
                assert_eq!(resumed, whole, "after {done} of {effects:?}");
            }
            whole
        };
        assert_eq!(reach(&plan, crashing), reach(&plan, once));
    }
}

/// Whether the release ends when only these events are left, whatever their order; the longest way is returned.
fn longest(phase: &Phase, plan: &Plan, left: &[Event], so_far: usize) -> usize {
    assert!(so_far < 40, "it never ends: {phase:?}");
    let following = left.iter().filter_map(|event| phase.next(event, plan)).map(|(following, _)| following);
    following.map(|following| longest(&following, plan, left, so_far + 1)).max().unwrap_or(so_far)
}

#[test]
fn from_everywhere_the_deadlines_and_a_person_lead_to_an_end() {
    let left = [Event::DeadlinePassed("late".to_owned()), Event::Ready];
    for plan in plans() {
        for (phase, _) in reach(&plan, once) {
            longest(&phase, &plan, &left, 0);
            let mut phase = phase;
            // Whoever holds it can take it back.
            for event in [Event::Begin, Event::RollBack("enough".to_owned())] {
                phase = phase.next(&event, &plan).map_or(phase, |(following, _)| following);
            }
            while let Some((following, _)) = phase.next(&Event::Ready, &plan) {
                phase = following;
            }
            assert!(phase.is_terminal(), "{phase:?}");
        }
    }
}

#[test]
fn silence_never_goes_forward() {
    for plan in plans() {
        for (phase, _) in reach(&plan, once) {
            for verdict in [Verdict::Inconclusive, Verdict::NoData] {
                assert_eq!(phase.next(&Event::Judged(verdict, String::new()), &plan), None, "{phase:?}");
            }
        }
    }
}

#[test]
fn nothing_goes_back_by_itself_unless_that_is_wanted() {
    for mut plan in plans() {
        plan.automatic = false;
        for (phase, _) in reach(&plan, once) {
            for event in events() {
                let moved = phase.next(&event, &plan);
                let begins = matches!(moved, Some((Phase::RollingBack { .. }, _)));
                let was_returning = matches!(phase, Phase::RollingBack { .. });
                assert!(!begins || was_returning || matches!(event, Event::RollBack(_)), "{phase:?} {event:?}");
            }
        }
    }
}

/// The story of a release: each phase with what is done in it.
fn story(plan: &Plan, events: &[Event]) -> String {
    let mut phase = Phase::Pending;
    let mut text = String::new();
    for event in events {
        let (following, effects) = phase.next(event, plan).unwrap_or_else(|| panic!("{event:?} in {phase:?}"));
        let stage = match &following {
            Phase::Progressing { service, stage } => format!("{service} {stage:?}"),
            Phase::RollingBack { service, stage, .. } => format!("{service} back {stage:?}"),
            other => other.name().to_owned(),
        };
        let effects: Vec<String> =
            effects.iter().map(|effect| format!("{effect:?}").replace("service: ", "")).collect();
        text += &format!("{stage} | {}\n", effects.join(", "));
        phase = following;
    }
    text
}

#[test]
fn a_regression_of_the_second_service_takes_the_first_back_too() {
    let plan = plan(&[Path::Direct, Path::Canary { steps: 2 }], true);
    let events = [
        Event::Begin,
        Event::Ready,
        Event::Ready,
        Event::Judged(Verdict::Pass, String::new()),
        Event::Judged(Verdict::Fail, "5 %".to_owned()),
        Event::Ready,
        Event::Ready,
        Event::Ready,
    ];
    insta::assert_snapshot!(story(&plan, &events), @"
    0 Updating | SetTemplate { 0, version: New }
    1 Starting | StartCanary { 1 }
    1 Judging { step: 0 } | Weigh { 1, step: Some(0) }
    1 Judging { step: 1 } | Weigh { 1, step: Some(1) }
    1 back Draining | Weigh { 1, step: None }
    1 back Restoring | RemoveCanary { 1 }, SetTemplate { 1, version: Old }
    0 back Restoring | SetTemplate { 0, version: Old }
    RolledBack |
    ");
}

#[test]
fn a_service_that_comes_back_too_late_keeps_no_other_from_going_back() {
    let plan = plan(&[Path::Direct, Path::Direct], true);
    let late = || Event::DeadlinePassed("late".to_owned());
    insta::assert_snapshot!(story(&plan, &[Event::Begin, Event::Ready, late(), late(), Event::Ready]), @"
    0 Updating | SetTemplate { 0, version: New }
    1 Updating | SetTemplate { 1, version: New }
    1 back Restoring | SetTemplate { 1, version: Old }
    0 back Restoring | SetTemplate { 0, version: Old }
    Failed |
    ");
}

#[test]
fn a_good_canary_leaves_its_room_to_the_copies_that_replace_the_old_ones() {
    let plan = plan(&[Path::Canary { steps: 1 }], true);
    let events = [Event::Begin, Event::Ready, Event::Judged(Verdict::Pass, String::new()), Event::Ready, Event::Ready];
    insta::assert_snapshot!(story(&plan, &events), @"
    0 Starting | StartCanary { 0 }
    0 Judging { step: 0 } | Weigh { 0, step: Some(0) }
    0 Draining | Weigh { 0, step: None }
    0 Promoting | RemoveCanary { 0 }, SetTemplate { 0, version: New }
    Succeeded |
    ");
}

#[test]
fn every_phase_has_a_way_to_it() {
    let names: BTreeSet<_> = plans().iter().flat_map(|plan| reach(plan, once)).map(|(phase, _)| phase.name()).collect();
    let expected = ["Failed", "Held", "Pending", "Progressing", "RolledBack", "RollingBack", "Succeeded"];
    assert_eq!(names.into_iter().collect::<Vec<_>>(), expected);
}
