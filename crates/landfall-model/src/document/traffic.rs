//! Externals, channels and flows: who talks to the platform, and the journeys through it.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Edge;
use crate::span::Spanned;
use crate::units::{Arrow, Bytes, Duration, Name, Percent, Port, Rate};

/// A system of others that the platform talks to.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct External {
    /// What it is, for people.
    #[serde(default)]
    pub title: Option<Spanned<String>>,
    /// Its DNS name.
    #[serde(default)]
    pub host: Option<Spanned<String>>,
    /// The port; 443 when left out.
    #[serde(default)]
    pub port: Option<Spanned<Port>>,
    /// The addresses it is reached at, as CIDR blocks; any public address when left out.
    #[serde(default)]
    pub addresses: Vec<Spanned<String>>,
    /// What it speaks.
    #[serde(default)]
    pub protocol: Spanned<ExternalProtocol>,
    /// How fast it answers, how often it fails, how much it takes; the stand-in behaves so.
    #[serde(default)]
    pub profile: Profile,
    /// The exposed services that it calls by itself, such as webhooks.
    #[serde(default)]
    pub uses: Vec<Edge>,
    /// The share of time in which its owner promises that it works.
    #[serde(default)]
    pub availability: Option<Spanned<Percent>>,
    /// Whether the document leaves this out and the file assumes it.
    #[serde(default)]
    pub assumed: bool,
}

/// What an external speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ExternalProtocol {
    /// HTTP over TLS.
    #[default]
    Http,
    /// gRPC over TLS.
    Grpc,
    /// MQTT.
    Mqtt,
    /// Mail.
    Smtp,
    /// Any protocol over TCP.
    Tcp,
}

/// How an external behaves.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Profile {
    /// How long an answer takes.
    #[serde(default)]
    pub latency: Option<Spanned<Duration>>,
    /// The share of requests that fail.
    #[serde(default)]
    pub errors: Option<Spanned<Percent>>,
    /// The most requests that it takes.
    #[serde(default)]
    pub limit: Option<Spanned<Rate>>,
    /// Whether the document leaves the numbers out and the file assumes them.
    #[serde(default)]
    pub assumed: bool,
}

/// A way by which users or data come in.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Channel {
    /// What it is, for people.
    #[serde(default)]
    pub title: Option<Spanned<String>>,
    /// How far it is delivered.
    pub state: Spanned<ChannelState>,
    /// The flows that serve it.
    #[serde(default)]
    pub flows: Vec<Spanned<Name>>,
    /// The services that stand in for what is not there yet.
    #[serde(default)]
    pub mocks: Vec<Spanned<Name>>,
}

/// How far a channel is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ChannelState {
    /// It works for real users.
    Real,
    /// A mock stands in for it.
    Mock,
    /// It is planned.
    Planned,
}

/// A journey from end to end: the acceptance test of the platform.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Flow {
    /// What it is, for people.
    #[serde(default)]
    pub title: Option<Spanned<String>>,
    /// How often it begins.
    #[serde(default)]
    pub rate: Option<Spanned<Rate>>,
    /// How long it may take from the first step to the last.
    #[serde(default)]
    pub within: Option<Spanned<Duration>>,
    /// The share of journeys that may be lost; none when left out.
    #[serde(default)]
    pub loss: Option<Spanned<Loss>>,
    /// What is carried.
    #[serde(default)]
    pub payload: Payload,
    /// The steps, each `from -> to`; `client` is whoever stands outside.
    pub steps: Vec<Spanned<Arrow>>,
    /// Whether the document leaves the numbers out and the file assumes them.
    #[serde(default)]
    pub assumed: bool,
}

/// The share of journeys that may be lost: `0` or a percentage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loss(pub Percent);

impl std::str::FromStr for Loss {
    type Err = crate::units::UnitError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "0" { Ok(Self(Percent::default())) } else { text.parse().map(Self) }
    }
}

impl std::fmt::Display for Loss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

crate::units::text_form! {
    Loss, "Loss", r"^0$|^[0-9]+(\.[0-9]+)?%$", "0.1%";
}

/// What a flow carries.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Payload {
    /// The path of a JSON Schema.
    #[serde(default)]
    pub schema: Option<Spanned<String>>,
    /// The size of one.
    #[serde(default)]
    pub size: Option<Spanned<Bytes>>,
}
