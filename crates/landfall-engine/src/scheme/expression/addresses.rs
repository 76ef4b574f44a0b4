//! What expressions do with addresses, networks and URLs.

use std::collections::HashMap;
use std::net::IpAddr;

use cel::Value;

use super::MISFIT;
use super::extra::{Extra, Network, Url};

fn text(values: &[Value]) -> Result<&str, String> {
    match values.first() {
        Some(Value::String(text)) => Ok(text.as_str()),
        _ => Err(MISFIT.to_owned()),
    }
}

/// An address of version 6 that stands for one of version 4 is none.
fn parse_ip(text: &str) -> Result<IpAddr, String> {
    match text.parse() {
        Ok(IpAddr::V6(address)) if address.to_ipv4_mapped().is_some() => {
            Err(format!("IPv4-mapped IPv6 address {text:?} is not allowed"))
        }
        Ok(address) => Ok(address),
        Err(_) => Err(format!("IP Address {text:?} parse error during conversion from string")),
    }
}

fn parse_cidr(text: &str) -> Result<Network, String> {
    let wrong = || format!("network address parse error during conversion from string: {text:?}");
    let (address, length) = text.split_once('/').ok_or_else(wrong)?;
    let address = parse_ip(address)?;
    let digits = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
    let padded = length.len() > 1 && length.starts_with('0');
    let length = length.parse::<u8>().ok().filter(|length| digits && !padded && *length <= bits(address));
    Ok(Network { address, length: length.ok_or_else(wrong)? })
}

/// How long addresses of the kind are.
fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

pub(super) fn ip(values: &[Value]) -> Result<Value, String> {
    Ok(Extra::Address(parse_ip(text(values)?)?).into_value())
}

pub(super) fn is_ip(values: &[Value]) -> Result<Value, String> {
    Ok(parse_ip(text(values)?).is_ok().into())
}

pub(super) fn is_canonical(values: &[Value]) -> Result<Value, String> {
    let text = text(values)?;
    Ok((parse_ip(text)?.to_string() == text).into())
}

pub(super) fn cidr(values: &[Value]) -> Result<Value, String> {
    Ok(Extra::Network(parse_cidr(text(values)?)?).into_value())
}

pub(super) fn is_cidr(values: &[Value]) -> Result<Value, String> {
    Ok(parse_cidr(text(values)?).is_ok().into())
}

/// An address or a network as a text.
pub(super) fn shown(values: &[Value]) -> Result<Value, String> {
    match values.first().and_then(Extra::of) {
        Some(Extra::Address(address)) => Ok(address.to_string().into()),
        Some(Extra::Network(network)) => Ok(format!("{}/{}", network.address, network.length).into()),
        _ => Err(MISFIT.to_owned()),
    }
}

fn address(values: &[Value]) -> Result<IpAddr, String> {
    match values.first().and_then(Extra::of) {
        Some(Extra::Address(address)) => Ok(*address),
        _ => Err(MISFIT.to_owned()),
    }
}

pub(super) fn family(values: &[Value]) -> Result<Value, String> {
    let family: i64 = if address(values)?.is_ipv4() { 4 } else { 6 };
    Ok(family.into())
}

pub(super) fn is_unspecified(values: &[Value]) -> Result<Value, String> {
    Ok(address(values)?.is_unspecified().into())
}

pub(super) fn is_loopback(values: &[Value]) -> Result<Value, String> {
    Ok(address(values)?.is_loopback().into())
}

pub(super) fn is_link_local_multicast(values: &[Value]) -> Result<Value, String> {
    let found = match address(values)? {
        IpAddr::V4(address) => address.octets()[..3] == [224, 0, 0],
        IpAddr::V6(address) => address.segments()[0] & 0xff0f == 0xff02,
    };
    Ok(found.into())
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.segments()[0] & 0xffc0 == 0xfe80,
    }
}

pub(super) fn is_link_local_unicast(values: &[Value]) -> Result<Value, String> {
    Ok(is_link_local(address(values)?).into())
}

pub(super) fn is_global_unicast(values: &[Value]) -> Result<Value, String> {
    let address = address(values)?;
    let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    let special = address.is_unspecified() || address.is_loopback() || address.is_multicast();
    Ok((!broadcast && !special && !is_link_local(address)).into())
}

fn network(value: Option<&Value>) -> Result<Network, String> {
    match value {
        Some(Value::String(text)) => parse_cidr(text),
        value => match value.and_then(Extra::of) {
            Some(Extra::Network(network)) => Ok(*network),
            _ => Err(MISFIT.to_owned()),
        },
    }
}

/// An address without the bits that are not of the network.
fn mask(address: IpAddr, length: u8) -> IpAddr {
    let rest = u32::from(bits(address).saturating_sub(length));
    match address {
        IpAddr::V4(address) => IpAddr::V4((u32::MAX.checked_shl(rest).unwrap_or_default() & address.to_bits()).into()),
        IpAddr::V6(address) => IpAddr::V6((u128::MAX.checked_shl(rest).unwrap_or_default() & address.to_bits()).into()),
    }
}

fn contains(network: Network, address: IpAddr) -> bool {
    bits(network.address) == bits(address) && mask(network.address, network.length) == mask(address, network.length)
}

pub(super) fn contains_ip(values: &[Value]) -> Result<Value, String> {
    let address = match values {
        [_, Value::String(text)] => parse_ip(text)?,
        [_, rest @ ..] => address(rest)?,
        [] => return Err(MISFIT.to_owned()),
    };
    Ok(contains(network(values.first())?, address).into())
}

pub(super) fn contains_cidr(values: &[Value]) -> Result<Value, String> {
    let (outer, inner) = (network(values.first())?, network(values.get(1))?);
    Ok((outer.length <= inner.length && contains(outer, inner.address)).into())
}

pub(super) fn network_ip(values: &[Value]) -> Result<Value, String> {
    Ok(Extra::Address(network(values.first())?.address).into_value())
}

pub(super) fn masked(values: &[Value]) -> Result<Value, String> {
    let network = network(values.first())?;
    let address = mask(network.address, network.length);
    Ok(Extra::Network(Network { address, ..network }).into_value())
}

pub(super) fn prefix_length(values: &[Value]) -> Result<Value, String> {
    Ok(i64::from(network(values.first())?.length).into())
}

/// Reads an absolute URL, or an absolute path.
fn parse_url(text: &str) -> Option<Url> {
    if text.is_empty() || text.chars().any(char::is_control) {
        return None;
    }
    let (scheme, rest) = if text.starts_with('/') { ("", text) } else { text.split_once(':')? };
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    if !scheme.is_empty() && !is_scheme || scheme.is_empty() && !rest.starts_with('/') {
        return None;
    }
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = rest.strip_prefix("//").filter(|_| !scheme.is_empty());
    let (host, path) = match authority {
        Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
        None => ("", rest),
    };
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let escaped = path.split('%').skip(1).all(|rest| rest.get(..2).is_some_and(is_hexadecimal));
    let fits = !host.contains([' ', '<', '>', '"', '%']) && has_port(host) && escaped;
    let owned = |part: &str| part.to_owned();
    fits.then(|| Url { scheme: scheme.to_lowercase(), host: owned(host), path: owned(path), query: owned(query) })
}

fn is_hexadecimal(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether what follows the name of a host is a port or nothing.
fn has_port(host: &str) -> bool {
    match split_port(host) {
        Some((name, port)) => {
            port.bytes().all(|byte| byte.is_ascii_digit()) && (name.starts_with('[') || !name.contains(':'))
        }
        None => !host.starts_with('[') || host.ends_with(']'),
    }
}

/// The name of a host and its port, if there is a colon.
fn split_port(host: &str) -> Option<(&str, &str)> {
    host.rsplit_once(':').filter(|(_, port)| !port.contains(']'))
}

pub(super) fn url(values: &[Value]) -> Result<Value, String> {
    let text = text(values)?;
    let url = parse_url(text).ok_or_else(|| format!("URL parse error during conversion from string: {text:?}"))?;
    Ok(Extra::Url(url).into_value())
}

pub(super) fn is_url(values: &[Value]) -> Result<Value, String> {
    Ok(parse_url(text(values)?).is_some().into())
}

fn parsed(values: &[Value]) -> Result<&Url, String> {
    match values.first().and_then(Extra::of) {
        Some(Extra::Url(url)) => Ok(url),
        _ => Err(MISFIT.to_owned()),
    }
}

pub(super) fn scheme(values: &[Value]) -> Result<Value, String> {
    Ok(parsed(values)?.scheme.as_str().into())
}

pub(super) fn host(values: &[Value]) -> Result<Value, String> {
    Ok(parsed(values)?.host.as_str().into())
}

pub(super) fn hostname(values: &[Value]) -> Result<Value, String> {
    let host = parsed(values)?.host.as_str();
    let name = split_port(host).map_or(host, |(name, _)| name);
    let inside = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    Ok(inside.unwrap_or(name).into())
}

pub(super) fn port(values: &[Value]) -> Result<Value, String> {
    Ok(split_port(&parsed(values)?.host).map_or("", |(_, port)| port).into())
}

pub(super) fn escaped_path(values: &[Value]) -> Result<Value, String> {
    Ok(parsed(values)?.path.as_str().into())
}

/// The parameters of a query, each with all of its values; what cannot be read is left out.
pub(super) fn query(values: &[Value]) -> Result<Value, String> {
    let mut found: HashMap<String, Vec<String>> = HashMap::new();
    for pair in parsed(values)?.query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if let (Some(name), Some(value)) = (unescaped(name), unescaped(value)) {
            found.entry(name).or_default().push(value);
        }
    }
    Ok(found.into())
}

/// A part of a query as it is meant.
fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        match first {
            b'+' => bytes.push(b' '),
            b'%' => {
                let code = std::str::from_utf8(rest.get(..2)?).ok()?;
                bytes.push(u8::from_str_radix(code, 16).ok()?);
                rest = &rest[2..];
            }
            byte => bytes.push(*byte),
        }
    }
    String::from_utf8(bytes).ok()
}
