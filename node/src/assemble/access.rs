//! The keys that let publishers and viewers in, out of the configuration, and the bars that keep them out,
//! from the control plane.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use cluster::access::{Access, Bars, Keyring, Requirements, TxKeys};

use crate::config::{Config, TxSecrets};

/// Reads the keys.
///
/// # Errors
/// When one cannot be used, naming its configuration key.
pub(super) fn access(config: &Config, bars: Arc<Bars>) -> anyhow::Result<Arc<Access>> {
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
    let (push, play) =
        (tx_keys(&auth.tx_push, auth.tx_grace), tx_keys(&auth.tx_play, auth.tx_grace));
    Ok(Arc::new(Access { keyring, push, play, bars }))
}

/// The keys that sign URLs of one kind, if they are set.
pub(crate) fn tx_keys(secrets: &TxSecrets, grace: Duration) -> Option<TxKeys> {
    let primary = secrets.key.as_ref()?.reveal().to_owned();
    let backup = secrets.backup.as_ref().map(|key| key.reveal().to_owned());
    Some(TxKeys { primary, backup, grace_s: grace.as_secs() })
}
