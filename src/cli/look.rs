//! This host as it is, for the verbs that plan and check.

use std::error::Error;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use tokio::time::timeout;

use crate::config::{Config, Warning};
use crate::daemon::look_up_once;
use crate::host::{self, Reconciler};
use crate::route::foreign::findings;
use crate::route::{HostState, Observed};

/// A host as it is: its links, and what it holds now of what is desired or was ours.
pub(super) struct Seen {
    pub(super) observed: Observed,
    /// `None`: the host is at its baseline.
    pub(super) present: Option<HostState>,
    /// What is worth a word about it.
    pub(super) warnings: Vec<Warning>,
}

/// How long the name of a remote portal is looked up.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks the kernel; changes nothing.
pub(super) fn look(config: &Config, run_dir: &Path) -> Result<Seen, Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let seen = runtime.block_on(async {
        let mut reconciler = Reconciler::open(host::System::open()?, &config.name, run_dir)?;
        let mut observed = reconciler.links().await?;
        let mut warnings = look_up(config, &mut observed).await;
        let notices = host::filter_notices(Some(config)).into_iter();
        warnings.extend(notices.map(|text| Warning {
            place: "packet filter".to_owned(),
            text,
        }));
        observed.sockets = host::listeners::sockets();
        let found = findings(config, &observed, &observed.filters);
        warnings.extend(found.into_iter().map(Warning::from));
        #[cfg(target_os = "linux")]
        let present = Some(
            reconciler
                .present(&host::desired(config, &observed))
                .await?,
        );
        // pf and ifconfig get everything again at each start.
        #[cfg(not(target_os = "linux"))]
        let present = None;
        Ok(Seen {
            observed,
            present,
            warnings,
        })
    });
    // A look-up that hangs in getaddrinfo is not waited for.
    runtime.shutdown_background();
    seen
}

/// The addresses of the remotes that are names, as the daemon would find them.
async fn look_up(config: &Config, observed: &mut Observed) -> Vec<Warning> {
    let mut warnings = Vec::new();
    for host in config.remote_hosts() {
        if host.parse::<IpAddr>().is_ok() {
            continue;
        }
        match timeout(PATIENCE, look_up_once(&host)).await {
            Ok(Ok(found)) => observed.remotes.extend(found),
            Ok(Err(_)) | Err(_) => warnings.push(Warning {
                place: "remote".to_owned(),
                text: format!(
                    "{host} has no address now: rules about it are those of the public address"
                ),
            }),
        }
    }
    warnings
}
