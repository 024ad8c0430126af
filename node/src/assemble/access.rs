//! The keys that let publishers and viewers in, out of the configuration.

use std::sync::Arc;

use anyhow::Context;
use cluster::access::{Access, Keyring, Requirements, TxKeys};

use crate::config::{Config, TxSecrets};

/// Reads the keys.
///
/// # Errors
/// When one cannot be used, naming its configuration key.
pub(super) fn access(config: &Config) -> anyhow::Result<Arc<Access>> {
    let auth = &config.auth;
    let requirements =
        Requirements { issuer: auth.issuer.clone(), audience: auth.audience.clone() };
    let mut keyring = Keyring::new(requirements);
    if let Some(secret) = &auth.token_secret {
        keyring.add_secret(None, secret.reveal().as_bytes()).context("auth.token_secret")?;
    }
    if let Some(file) = &auth.jwks {
        let named = || format!("auth.jwks: {}", file.display());
        let json = std::fs::read(file).with_context(named)?;
        keyring.add_jwk_set(&json).with_context(named)?;
    }
    let grace_s = auth.tx_grace.as_secs();
    let signed = |secrets: &TxSecrets| {
        let primary = secrets.key.as_ref()?.reveal().to_owned();
        let backup = secrets.backup.as_ref().map(|key| key.reveal().to_owned());
        Some(TxKeys { primary, backup, grace_s })
    };
    Ok(Arc::new(Access { keyring, push: signed(&auth.tx_push), play: signed(&auth.tx_play) }))
}
