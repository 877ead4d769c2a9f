//! Key sets over HTTPS: no redirects, bounded in time and bytes.

use super::jwks::Fetch;
use bytes::{Bytes, BytesMut};
use reqwest::{Client, Url, redirect};
use smartpulse_pipeline::error::{Error, Result};
use std::sync::Arc;
use std::time::Duration;

/// A key has some hundred bytes.
const BYTES_MAX: usize = 1 << 20;

/// Callers with a new key wait for it.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What fetches from `url`.
///
/// # Errors
///
/// If it is not `https`, or `http` on a loopback address: whoever can change the keys on their way is everybody.
pub(super) fn over_http(url: &str) -> Result<Fetch> {
    let wrong = |why: String| Error::fatal(format!("the jwks url {url} {why}"));
    let url = Url::parse(url).map_err(|error| wrong(format!("is none: {error}")))?;
    let local = url.host_str().is_some_and(|host| ["localhost", "127.0.0.1", "[::1]"].contains(&host));
    if url.scheme() != "https" && !(url.scheme() == "http" && local) {
        return Err(wrong("must be https".to_owned()));
    }
    let client = Client::builder().timeout(TIMEOUT).redirect(redirect::Policy::none()).build();
    let client = client.map_err(|error| wrong(format!("cannot be fetched: {error}")))?;
    Ok(Arc::new(move || {
        let (client, url) = (client.clone(), url.clone());
        Box::pin(async move { get(&client, url).await })
    }))
}

async fn get(client: &Client, url: Url) -> Result<Bytes> {
    let failed = |error| Error::unavailable("the issuer does not answer").because(error);
    let mut response = client.get(url).send().await.map_err(failed)?;
    if response.status() != http::StatusCode::OK {
        return Err(Error::unavailable(format!("the issuer answers {}", response.status())));
    }
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if body.len() + chunk.len() > BYTES_MAX {
            return Err(Error::rejected(format!("the key set is longer than {BYTES_MAX} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}
