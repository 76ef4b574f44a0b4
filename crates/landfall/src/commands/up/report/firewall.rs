//! Whether the firewall before the gateway refuses attacks, and nothing else.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde::Serialize;

#[derive(Debug, Serialize)]
pub(crate) struct FirewallReport {
    /// What it is here.
    pub(crate) by: String,
    /// Where it listens for requests without TLS, and with it.
    pub(crate) http: SocketAddr,
    pub(crate) https: SocketAddr,
    pub(crate) hosts: Vec<GuardedReport>,
    /// The hosts that are declared to be behind it and are not.
    pub(crate) passed_over: BTreeSet<String>,
}

/// A host that is behind it.
#[derive(Debug, Serialize)]
pub(crate) struct GuardedReport {
    pub(crate) host: String,
    pub(crate) attacks: Vec<AttackReport>,
    /// A request that everybody makes, to each service there.
    pub(crate) ordinary: Vec<OrdinaryReport>,
}

#[derive(Debug, Serialize)]
pub(crate) struct AttackReport {
    pub(crate) attack: &'static str,
    /// The status of the answer.
    pub(crate) answer: Option<u16>,
    /// Whether it is the firewall that has refused it.
    pub(crate) refused: bool,
}

#[derive(Debug, Serialize)]
pub(crate) struct OrdinaryReport {
    pub(crate) service: String,
    /// The status of the answer.
    pub(crate) answer: Option<u16>,
    /// Whether the firewall has refused it.
    pub(crate) refused: bool,
}

impl OrdinaryReport {
    fn passed(&self) -> bool {
        self.answer.is_some() && !self.refused
    }
}

impl FirewallReport {
    /// What does not hold.
    pub(crate) fn problems(&self) -> Vec<String> {
        let problems = self.hosts.iter().flat_map(|guarded| {
            let host = &guarded.host;
            let told = |answer: Option<u16>| answer.map_or_else(|| "nothing".to_owned(), |status| status.to_string());
            let let_through = guarded.attacks.iter().filter(|attack| !attack.refused).map(move |attack| {
                let (attack, answer) = (attack.attack, told(attack.answer));
                format!("firewall before `{host}`: the attack `{attack}` is answered with {answer}, and not refused")
            });
            let stopped = guarded.ordinary.iter().filter(|ordinary| !ordinary.passed()).map(move |ordinary| {
                let (service, answer) = (&ordinary.service, told(ordinary.answer));
                format!("firewall before `{host}`: an ordinary request to `{service}` is answered with {answer}")
            });
            let_through.chain(stopped)
        });
        problems.collect()
    }

    /// For people.
    pub(super) fn lines(&self) -> [String; 2] {
        let attacks = || self.hosts.iter().flat_map(|guarded| &guarded.attacks);
        let ordinary = || self.hosts.iter().flat_map(|guarded| &guarded.ordinary);
        let (refused, all) = (attacks().filter(|attack| attack.refused).count(), attacks().count());
        let (passed, of_all) = (ordinary().filter(|ordinary| ordinary.passed()).count(), ordinary().count());
        let hosts: Vec<_> = self.hosts.iter().map(|guarded| format!("`{}`", guarded.host)).collect();
        [
            format!(
                "waf    {refused} of {all} attacks are refused by {}; {passed} of {of_all} ordinary requests pass",
                self.by
            ),
            format!("       the way in to {} is {}, with TLS {}", hosts.join(", "), self.http, self.https),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(refused: bool, ordinary: (Option<u16>, bool)) -> FirewallReport {
        let attack = |attack, refused| AttackReport { attack, answer: Some(if refused { 403 } else { 200 }), refused };
        let (answer, stopped) = ordinary;
        FirewallReport {
            by: "nginx 1.22.1 with ModSecurity and its core rules 3.3.4".to_owned(),
            http: ([127, 0, 0, 1], 4080).into(),
            https: ([127, 0, 0, 1], 4443).into(),
            hosts: vec![GuardedReport {
                host: "shop.example".to_owned(),
                attacks: vec![attack("scanner", true), attack("sql-injection", refused)],
                ordinary: vec![OrdinaryReport { service: "web".to_owned(), answer, refused: stopped }],
            }],
            passed_over: BTreeSet::new(),
        }
    }

    #[test]
    fn a_firewall_holds_when_it_refuses_attacks_and_lets_others_pass() {
        assert_eq!(report(true, (Some(200), false)).problems(), Vec::<String>::new());
        assert_eq!(report(true, (Some(403), false)).problems(), Vec::<String>::new(), "the service itself refuses it");
        assert_eq!(
            report(false, (Some(403), true)).problems(),
            [
                "firewall before `shop.example`: the attack `sql-injection` is answered with 200, and not refused",
                "firewall before `shop.example`: an ordinary request to `web` is answered with 403",
            ]
        );
        assert_eq!(
            report(true, (None, false)).problems(),
            ["firewall before `shop.example`: an ordinary request to `web` is answered with nothing"]
        );
    }

    #[test]
    fn people_are_told_what_was_refused_and_where_the_way_in_is() {
        assert_eq!(
            report(false, (Some(200), false)).lines(),
            [
                "waf    1 of 2 attacks are refused by nginx 1.22.1 with ModSecurity and its core rules 3.3.4; 1 of 1 ordinary requests pass",
                "       the way in to `shop.example` is 127.0.0.1:4080, with TLS 127.0.0.1:4443",
            ]
        );
    }
}
