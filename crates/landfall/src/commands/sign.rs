//! Signatures with a person's SSH key: from a file, or by their ssh-agent.

use std::path::Path;

use anyhow::{Context as _, bail};
use landfall_deliver::{Policy, SIGNATURE_NAMESPACE};
use ssh_agent_client_rs::{Client, Identity};
use ssh_key::public::KeyData;
use ssh_key::{HashAlg, LineEnding, PrivateKey, PublicKey, SshSig};

/// Signs a text, as `ssh-keygen -Y sign -n landfall` does. Without a key, by whichever of the agent's counts.
pub(crate) fn sign(text: &str, key: Option<&Path>, policy: &Policy) -> anyhow::Result<String> {
    let signature = match key {
        Some(file) => with_file(text, file)?,
        None => {
            let mut agent = agent()?;
            let identities = agent.list_all_identities().context("failed to ask the ssh-agent for its keys")?;
            let counts = |identity: &&Identity<'static>| {
                let key: &KeyData = (*identity).into();
                policy.signers.iter().any(|signer| signer.key.key_data() == key)
            };
            let Some(identity) = identities.iter().find(counts) else {
                bail!(
                    "none of the {} keys of the ssh-agent is among the signers; name one with `--key`",
                    identities.len()
                );
            };
            with_agent(text, &mut agent, identity)?
        }
    };
    signature.to_pem(LineEnding::LF).context("failed to write the signature")
}

fn with_file(text: &str, file: &Path) -> anyhow::Result<SshSig> {
    let content = std::fs::read_to_string(file).with_context(|| format!("failed to read `{}`", file.display()))?;
    if let Ok(public) = PublicKey::from_openssh(content.trim()) {
        return with_agent(text, &mut agent()?, &Identity::from(public));
    }
    let private = PrivateKey::from_openssh(&content)
        .with_context(|| format!("`{}` is no private key of OpenSSH", file.display()))?;
    if private.is_encrypted() {
        bail!("`{}` has a passphrase: give it to the agent with `ssh-add {0}`, and leave `--key` out", file.display());
    }
    private
        .sign(SIGNATURE_NAMESPACE, HashAlg::Sha512, text.as_bytes())
        .with_context(|| format!("failed to sign with `{}`", file.display()))
}

fn agent() -> anyhow::Result<Client> {
    let socket = std::env::var_os("SSH_AUTH_SOCK").context(
        "there is neither a key nor an ssh-agent (`SSH_AUTH_SOCK` is not set); name a key with `--key ~/.ssh/id_ed25519`",
    )?;
    Client::connect(Path::new(&socket)).context("failed to reach the ssh-agent")
}

fn with_agent(text: &str, agent: &mut Client, identity: &Identity<'_>) -> anyhow::Result<SshSig> {
    let key: &KeyData = identity.into();
    let data = SshSig::signed_data(SIGNATURE_NAMESPACE, HashAlg::Sha512, text.as_bytes()).context("failed to sign")?;
    let signature = agent.sign_with_ref(identity, &data).context("the ssh-agent does not sign")?;
    SshSig::new(key.clone(), SIGNATURE_NAMESPACE, HashAlg::Sha512, signature).context("the ssh-agent signs otherwise")
}
