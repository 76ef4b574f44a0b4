//! Tokens of service accounts: JSON web tokens (RFC 7519) that the engine signs with a key of its own (HMAC-SHA-256).
//!
//! A token is bound to its account, and to a pod if one was named: it ends when they do. When it begins and ends is told by the
//! clock of the machine: the programs that hold it, and renew it in time, know no other.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::State;
use super::identity::Identity;
use crate::store::{Collection, Key};

/// Who issues the tokens, and whom they are for unless somebody else is named.
pub(crate) const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// The claim with the names of the account, the pod and the namespace.
const BINDING: &str = "kubernetes.io";

/// The key that signs tokens.
#[derive(Clone)]
pub(crate) struct SigningKey([u8; 32]);

impl SigningKey {
    pub(crate) fn new(key: [u8; 32]) -> Self {
        Self(key)
    }

    #[cfg(test)]
    /// A key that nobody else knows, and that is forgotten with the process.
    pub(crate) fn random() -> Self {
        Self(rand::random())
    }

    pub(crate) fn sign(&self, claims: &Value) -> String {
        let header = URL_SAFE_NO_PAD.encode(json!({"alg": "HS256", "typ": "JWT"}).to_string());
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = URL_SAFE_NO_PAD.encode(self.authenticate(signed.as_bytes()));
        format!("{signed}.{signature}")
    }

    /// The claims of a token that this key has signed.
    fn verify(&self, token: &str) -> Option<Value> {
        let (signed, signature) = token.rsplit_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        let expected = self.authenticate(signed.as_bytes());
        // All bytes are looked at, so that the time tells nothing.
        let differs = signature.iter().zip(expected).fold(0, |differs, (a, b)| differs | (a ^ b));
        if signature.len() != expected.len() || differs != 0 {
            return None;
        }
        let (_, claims) = signed.split_once('.')?;
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
    }

    /// HMAC with SHA-256 (RFC 2104).
    fn authenticate(&self, text: &[u8]) -> [u8; 32] {
        let pad = |with: u8| {
            let mut block = [with; 64];
            block.iter_mut().zip(self.0).for_each(|(byte, key)| *byte ^= key);
            block
        };
        let inner = Sha256::new().chain_update(pad(0x36)).chain_update(text).finalize();
        Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().into()
    }
}

/// What a token says about its account; `pod` is the name and uid of the pod that it is bound to.
pub(crate) struct Binding<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) account: &'a str,
    pub(crate) account_uid: &'a str,
    pub(crate) pod: Option<(&'a str, &'a str)>,
}

pub(crate) fn claims(binding: &Binding<'_>, audiences: &[String], issued: i64, expires: i64) -> Value {
    let mut bound = json!({
        "namespace": binding.namespace,
        "serviceaccount": {"name": binding.account, "uid": binding.account_uid},
    });
    if let Some((name, uid)) = binding.pod {
        bound["pod"] = json!({"name": name, "uid": uid});
    }
    json!({
        "aud": audiences, "exp": expires, "iat": issued, "iss": ISSUER, "jti": uuid::Uuid::new_v4().to_string(),
        BINDING: bound, "nbf": issued,
        "sub": format!("system:serviceaccount:{}:{}", binding.namespace, binding.account),
    })
}

/// The account whose token this is, if it is good for one of the audiences (none: for the API server).
pub(crate) fn identify(state: &State, token: &str, audiences: &[String]) -> Option<Identity> {
    let claims = state.signing_key.verify(token)?;
    let now = Timestamp::now().as_second();
    if claims["exp"].as_i64()? <= now {
        return None;
    }
    let meant = |audience: &str| {
        if audiences.is_empty() { audience == ISSUER } else { audiences.iter().any(|wanted| wanted == audience) }
    };
    if !claims["aud"].as_array()?.iter().filter_map(Value::as_str).any(meant) {
        return None;
    }
    let bound = &claims[BINDING];
    let namespace = bound["namespace"].as_str()?;
    let lives = |plural: &str, reference: &Value| {
        let key = Key::new(&Collection::new("", plural), namespace, reference["name"].as_str()?);
        let record = state.store.get(&key)?;
        (record.value()["metadata"]["uid"] == reference["uid"]).then_some(())
    };
    let account = &bound["serviceaccount"];
    lives("serviceaccounts", account)?;
    let mut identity = Identity::service_account(namespace, account["name"].as_str()?, account["uid"].as_str()?);
    identity.extra.insert(
        "authentication.kubernetes.io/credential-id".to_owned(),
        vec![format!("JTI={}", claims["jti"].as_str().unwrap_or_default())],
    );
    if let Some(pod) = bound.get("pod") {
        lives("pods", pod)?;
        for part in ["name", "uid"] {
            let value = pod[part].as_str().unwrap_or_default().to_owned();
            identity.extra.insert(format!("authentication.kubernetes.io/pod-{part}"), vec![value]);
        }
    }
    Some(identity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_the_one_of_the_published_test_case() {
        // RFC 4231, test case 2, with its key filled up with zeros as RFC 2104 says.
        let mut key = [0; 32];
        key[..4].copy_from_slice(b"Jefe");
        let signature = SigningKey(key).authenticate(b"what do ya want for nothing?");
        let text: String = signature.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(text, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }

    #[test]
    fn a_token_is_good_only_as_it_was_signed() {
        let key = SigningKey::random();
        let token = key.sign(&json!({"sub": "a"}));
        assert_eq!(key.verify(&token), Some(json!({"sub": "a"})));
        let (head, signature) = token.rsplit_once('.').expect("a token has three parts");
        let forged = URL_SAFE_NO_PAD.encode(json!({"sub": "b"}).to_string());
        let (header, _) = head.split_once('.').expect("a token has three parts");
        assert_eq!(key.verify(&format!("{header}.{forged}.{signature}")), None);
        assert_eq!(SigningKey::random().verify(&token), None);
        assert_eq!(key.verify(&format!("{head}.")), None);
    }
}
