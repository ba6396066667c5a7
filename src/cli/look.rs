//! This host as it is, for the verbs that plan and check.

use std::error::Error;
use std::path::Path;

use crate::config::Config;
use crate::host::{self, Reconciler};
use crate::route::{HostState, Observed};

/// A host as it is: its links, and what it holds now of what is desired or was ours.
pub(super) struct Seen {
    pub(super) observed: Observed,
    /// Nothing: the host is at its baseline.
    pub(super) present: Option<HostState>,
}

/// Asks the kernel; changes nothing.
pub(super) fn look(config: &Config, run_dir: &Path) -> Result<Seen, Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut reconciler = Reconciler::open(host::System::open()?, &config.name, run_dir)?;
        let mut observed = reconciler.links().await?;
        #[cfg(target_os = "linux")]
        observed.listeners.extend(host::listeners::listeners());
        #[cfg(target_os = "linux")]
        let present = Some(
            reconciler
                .present(&host::desired(config, &observed))
                .await?,
        );
        // pf and ifconfig are told everything anew at each start.
        #[cfg(not(target_os = "linux"))]
        let present = None;
        Ok(Seen { observed, present })
    })
}
