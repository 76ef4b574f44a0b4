//! Objects in the S3 store of the platform, put with their checksum.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use example_kit::{Failure, Peer, Platform, variable};
use http::Request;
use http_body_util::Full;
use hyper::body::Bytes;
use rusty_s3::actions::{PutObject, S3Action};
use rusty_s3::{Bucket, Credentials, UrlStyle};
use sha2::{Digest as _, Sha256};
use url::{Position, Url};

/// Under this header the server is told a checksum, which it verifies before it keeps the object:
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html>.
const CHECKSUM: &str = "x-amz-checksum-sha256";

/// The region in signatures; a store in the cluster has none.
const REGION: &str = "us-east-1";

/// How long a signature holds.
const HOLDS: Duration = Duration::from_mins(1);

/// One bucket.
pub(crate) struct Objects {
    bucket: Bucket,
    credentials: Credentials,
    server: Peer,
}

impl Objects {
    /// A bucket of the store that the environment names.
    pub(crate) fn new(platform: &Platform, bucket: &str) -> Result<Self, Failure> {
        let endpoint: Url = format!("http://{}", variable("OBJECTS_ADDRESS")?).parse()?;
        let server = Peer::new(platform, endpoint.as_str(), None)?;
        let credentials = Credentials::new(variable("OBJECTS_KEY")?, variable("OBJECTS_SECRET")?);
        Ok(Self { bucket: Bucket::new(endpoint, UrlStyle::Path, bucket.to_owned(), REGION)?, credentials, server })
    }

    /// Puts an object; putting it twice does what putting it once does.
    pub(crate) async fn put(&self, key: &str, content: &[u8]) -> Result<(), Failure> {
        let checksum = STANDARD.encode(Sha256::digest(content));
        let mut action = PutObject::new(&self.bucket, Some(&self.credentials), key);
        action.headers_mut().insert(CHECKSUM, checksum.as_str());
        let url = action.sign(HOLDS);
        let request = Request::put(&url[Position::BeforePath..])
            .header(http::header::HOST, &url[Position::BeforeHost..Position::AfterPort])
            .header(CHECKSUM, &checksum)
            .body(Full::from(Bytes::copy_from_slice(content)))?;
        let (status, body) = self.server.send(request).await?;
        if status.is_success() {
            return Ok(());
        }
        Err(format!("failed to put object `{key}`: {status} {}", String::from_utf8_lossy(&body)).into())
    }
}
