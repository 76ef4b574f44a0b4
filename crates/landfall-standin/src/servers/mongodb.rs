//! MongoDB's protocol by `FerretDB` 1, which keeps the documents in `SQLite`.
//!
//! It has no replica set: the first member keeps all documents and the others lead to it. So there is no election, no oplog,
//! no change stream and no point-in-time restore. Not handled: a real `mongod`, which no package manager here offers.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::forward::forward;
use super::{Account, Found, exec, first_of, says, setting, tools};
use crate::Failure;

/// Where `tools/install-ferretdb` puts it, below the folder of tools.
const INSTALLED: &str = "ferretdb-v1.24.2-1/ferretdb";

/// Where the pod has its volume and its certificate.
const DATA: &str = "/data/db";
const IDENTITY: &str = "/etc/mongodb-ssl";

const PORT: u16 = 27017;

pub(super) fn find() -> Option<Found> {
    let path = tools().map(|tools| tools.join(INSTALLED)).filter(|path| path.is_file());
    let path = path.or_else(|| first_of(&["/usr/bin/ferretdb", "/usr/local/bin/ferretdb"]))?;
    // `version: v1.24.2`, and more lines.
    let says = says(&path, &["--version"])?;
    let version = says.lines().find_map(|line| line.strip_prefix("version: v"))?.to_owned();
    // Later versions keep nothing by themselves.
    version.starts_with("1.").then(|| Found { path, version: format!("FerretDB {version} for MongoDB") })
}

pub(super) fn become_server(found: &Found) -> Result<(), Failure> {
    let keeper = setting("LANDFALL_KEEPER")?;
    if keeper.split('.').next() != Some(setting("HOSTNAME")?.as_str()) {
        return crate::on_threads(lead(format!("{keeper}:{PORT}")));
    }
    let account = Account::of("ferretdb")?;
    let data = Path::new(DATA);
    account.own(data)?;
    account.folder(&data.join("databases"))?;
    // Where it is installed belongs to somebody whose folders the account may not enter.
    let program = data.join("ferretdb");
    account.file(&program, &fs::read(&found.path)?)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700))?;
    let mut server = account.command(&program);
    server.current_dir(data).args(["--handler=sqlite", "--debug-addr=-", "--telemetry=disable", "--mode=normal"]);
    server.arg(format!("--state-dir={DATA}")).arg(format!("--sqlite-url=file:{DATA}/databases/"));
    // Users as MongoDB has them; without it everybody would be let in.
    server.arg("--test-enable-new-auth").arg("--setup-database=admin");
    server.env("FERRETDB_SETUP_USERNAME", setting("MONGODB_USER")?);
    server.env("FERRETDB_SETUP_PASSWORD", setting("MONGODB_PASSWORD")?);
    let own = crate::address::own();
    if Path::new(IDENTITY).exists() {
        for file in ["tls.crt", "tls.key"] {
            account.file(&data.join(file), &fs::read(Path::new(IDENTITY).join(file))?)?;
        }
        server.arg("--listen-addr=").arg(format!("--listen-tls={own}:{PORT}"));
        server.arg(format!("--listen-tls-cert-file={DATA}/tls.crt"));
        server.arg(format!("--listen-tls-key-file={DATA}/tls.key"));
    } else {
        server.arg(format!("--listen-addr={own}:{PORT}"));
    }
    Err(exec(server))
}

async fn lead(target: String) -> Result<(), Failure> {
    let mut stop = crate::service::asked_to_end()?;
    tokio::select! {
        _ = stop.recv() => Ok(()),
        ended = forward(PORT, target) => ended,
    }
}
