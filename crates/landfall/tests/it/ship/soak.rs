//! The rest of the matrix on real processes: versions whose fault takes minutes to show. Only `make soak` waits for it.
#![expect(clippy::print_stderr, reason = "who does not soak is told what was left out")]

use serde_json::json;

use super::Platform;

/// How many rounds `LANDFALL_SOAK` asks for; `None` when nobody soaks.
pub(super) fn rounds() -> Option<usize> {
    std::env::var("LANDFALL_SOAK").ok().and_then(|rounds| rounds.parse().ok()).filter(|rounds| *rounds > 0)
}

#[test]
fn what_is_slow_or_leaks_or_is_called_by_nobody_goes_back_on_real_processes() {
    let Some(rounds) = rounds() else {
        eprintln!("skipped: it takes minutes; `make soak` runs it");
        return;
    };
    let rollout = "{ canary: { steps: [20%, 50%], judge: { success: 99%, p99: 500ms }, decide-within: 3m } }";
    let Some(platform) = Platform::start(rollout) else { return };
    for _ in 0..rounds {
        let clients = platform.clients();
        let (code, release, _) = platform.run(&["ship", "--image", "web=shop/web:5"]);
        assert_eq!((code, &release["why"]["reason"]), (Some(1), &json!("worse")), "{release:#}");
        let answers = clients.stop();
        println!("{answers:?}");
        assert_eq!(answers.failed(&[]), std::collections::BTreeMap::new(), "slow answers are answers");

        // Without callers it runs until it leaks, and silence would never let it go on.
        let (code, release, _) = platform.run(&["ship", "--image", "web=shop/web:6"]);
        assert_eq!((code, &release["why"]["reason"]), (Some(1), &json!("broken")), "{release:#}");

        let (code, release, _) = platform.run(&["ship", "--image", "web=shop/web:2"]);
        assert_eq!((code, &release["why"]["reason"]), (Some(1), &json!("undecided")), "{release:#}");
        assert_eq!(release["state"], "RolledBack", "{release:#}");
    }
}
