//! Network namespaces without names: made, furnished and looked at by our own code over netlink,
//! gone by themselves when the last process and descriptor that holds them is gone.

mod leftovers;
mod namespace;
mod netlink;
pub(crate) mod priority;
mod privilege;
mod snapshot;
mod spawn;
mod tap;

pub use leftovers::{Leftovers, Watch};
pub(crate) use namespace::MAKING;
pub use namespace::Namespace;
pub use netlink::{Netlink, VethEnd};
pub use privilege::{Way, enter, reexec, way};
pub use snapshot::{HostState, host_state};
pub use spawn::Process;
pub use tap::open_tap;
