//! Objects in an S3 store: put and got back with their checksum.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Request, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;
use rustls::ClientConfig;
use rusty_s3::actions::{GetObject, HeadBucket, PutObject, S3Action};
use rusty_s3::{Bucket, Credentials, UrlStyle};
use sha2::{Digest as _, Sha256};
use url::{Position, Url};

use crate::Failure;
use crate::connect::HttpClient;

/// Under this header the server is told a checksum, which it verifies before it keeps the object:
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html>.
const CHECKSUM: &str = "x-amz-checksum-sha256";

/// The region in signatures; a store in the cluster has none.
const REGION: &str = "us-east-1";

/// One bucket, for one user.
pub(crate) struct Objects {
    bucket: Bucket,
    credentials: Credentials,
    client: HttpClient,
}

impl Objects {
    /// `address` is `host:port`.
    pub(crate) fn new(
        address: &str,
        encrypted: bool,
        bucket: &str,
        credentials: (String, String),
        tls: &Arc<ClientConfig>,
    ) -> Result<Self, Failure> {
        let scheme = if encrypted { "https" } else { "http" };
        let endpoint: Url = format!("{scheme}://{address}").parse()?;
        let server_name = encrypted.then(|| endpoint.host_str().unwrap_or_default().to_owned());
        Ok(Self {
            bucket: Bucket::new(endpoint, UrlStyle::Path, bucket.to_owned(), REGION)?,
            credentials: Credentials::new(credentials.0, credentials.1),
            client: HttpClient::to(address, server_name.as_deref(), tls)?,
        })
    }

    /// Puts an object and gets it back: it must be the same. Neither may take longer than `patience`.
    pub(crate) async fn put(&self, key: &str, content: Bytes, patience: Duration) -> Result<(), Failure> {
        let checksum = STANDARD.encode(Sha256::digest(&content));
        let mut action = PutObject::new(&self.bucket, Some(&self.credentials), key);
        action.headers_mut().insert(CHECKSUM, checksum.as_str());
        let (status, body) = self.send(&action, Some((CHECKSUM, &checksum)), content.clone(), patience).await?;
        expect(status, &body, "put", key)?;
        match self.get(key, patience).await? {
            Some(kept) if kept == content => Ok(()),
            Some(kept) => Err(format!("object `{key}` came back with {} other bytes", kept.len()).into()),
            None => Err(format!("object `{key}` is gone after it was put").into()),
        }
    }

    /// Gets an object; that none is there is an answer as well, if the bucket is.
    pub(crate) async fn get(&self, key: &str, patience: Duration) -> Result<Option<Bytes>, Failure> {
        let action = GetObject::new(&self.bucket, Some(&self.credentials), key);
        let (status, body) = self.send(&action, None, Bytes::new(), patience).await?;
        if status == StatusCode::NOT_FOUND {
            let action = HeadBucket::new(&self.bucket, Some(&self.credentials));
            let (status, body) = self.send(&action, None, Bytes::new(), patience).await?;
            expect(status, &body, "find the bucket of", key)?;
            return Ok(None);
        }
        expect(status, &body, "get", key)?;
        Ok(Some(body))
    }

    async fn send<'a, A: S3Action<'a>>(
        &'a self,
        action: &A,
        header: Option<(&str, &str)>,
        content: Bytes,
        patience: Duration,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let url = action.sign(patience);
        let mut request = Request::builder()
            .method(A::METHOD.to_str())
            .uri(&url[Position::BeforePath..])
            .header(http::header::HOST, &url[Position::BeforeHost..Position::AfterPort]);
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let request = request.body(Full::from(content))?;
        self.client.send(request, patience).await
    }
}

fn expect(status: StatusCode, body: &[u8], action: &str, key: &str) -> Result<(), Failure> {
    if status.is_success() {
        return Ok(());
    }
    Err(format!("failed to {action} object `{key}`: {status} {}", String::from_utf8_lossy(body)).into())
}
