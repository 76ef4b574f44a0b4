//! Documents in MongoDB.

use std::io::Write as _;

use mongodb::Client;
use mongodb::bson::{DateTime, Document, doc};
use mongodb::options::{ClientOptions, Tls, TlsOptions};
use tempfile::NamedTempFile;

use super::{PATIENCE, Slot};
use crate::Failure;

/// The databases behind one URL.
pub(super) struct Documents {
    url: String,
    /// Whether whoever answers is asked, and no replica set is looked for.
    direct: bool,
    /// The certificates that are trusted: the driver wants a file.
    authority: NamedTempFile,
    client: Slot<Client>,
}

impl Documents {
    pub(super) fn new(url: String, direct: bool, authority: &str) -> Result<Self, Failure> {
        let mut file = NamedTempFile::new_in(crate::scratch())?;
        file.write_all(authority.as_bytes())?;
        Ok(Self { url, direct, authority: file, client: Slot::empty() })
    }

    /// Writes a document once, or looks for it.
    pub(super) async fn document(&self, collection: &str, key: &str, writes: bool) -> Result<(), Failure> {
        let client = self.client().await?;
        let database = client.default_database().ok_or("the URL names no database")?;
        let collection = database.collection::<Document>(collection);
        if writes {
            let once = doc! { "$setOnInsert": { "at": DateTime::now() } };
            collection.update_one(doc! { "_id": key }, once).upsert(true).await?;
        } else {
            collection.find_one(doc! { "_id": key }).await?;
        }
        Ok(())
    }

    async fn client(&self) -> Result<Client, Failure> {
        // It connects anew by itself.
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let mut options = ClientOptions::parse(&self.url).await?;
        options.connect_timeout = Some(PATIENCE);
        options.server_selection_timeout = Some(PATIENCE);
        if matches!(options.tls, Some(Tls::Enabled(_))) {
            let trust = TlsOptions::builder().ca_file_path(self.authority.path().to_owned()).build();
            options.tls = Some(Tls::Enabled(trust));
        }
        if self.direct {
            options.direct_connection = Some(true);
            options.repl_set_name = None;
        }
        let client = Client::with_options(options)?;
        self.client.put(Some(client.clone()));
        Ok(client)
    }
}
