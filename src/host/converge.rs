//! From what is to what shall be, or back to what was.

use std::fmt;
use std::io;

use thiserror::Error;

use super::groups::Group;
use super::{Host, HostError, Scope};
use crate::route::HostState;

/// How often the way back is tried before it is given up: each try looks at the host again, so one
/// that fails for a passing reason (a device that just comes up) is healed by the next.
const TRIES_BACK: u32 = 3;

/// What was done.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The steps that were carried out, in order, each as the command that it equals; none when
    /// the host was as desired.
    pub executed: Vec<String>,
    /// The groups that could not be made as desired. They are as before, all others as desired.
    pub failed: Vec<(Group, ConvergeError)>,
}

impl Outcome {
    /// The outcome when every group is as desired; else the first error.
    pub fn whole(mut self) -> Result<Self, ConvergeError> {
        if self.failed.is_empty() {
            return Ok(self);
        }
        Err(self.failed.swap_remove(0).1)
    }
}

/// Why the host is not as desired, and how it is instead.
#[derive(Debug, Error)]
#[error("{cause}; {back}")]
pub struct ConvergeError {
    /// What went wrong.
    pub cause: Cause,
    /// How the way back went.
    pub back: Back,
}

impl ConvergeError {
    /// True when what failed is as it was before.
    pub fn is_restored(&self) -> bool {
        matches!(self.back, Back::Restored | Back::AllElse)
    }
}

/// What went wrong.
#[derive(Debug, Error)]
pub enum Cause {
    /// The kernel refused.
    #[error(transparent)]
    Host(#[from] HostError),
    /// Every step went well, and yet the host is not as desired: the kernel or somebody else
    /// changed it at the same time. The steps are those that would be needed now.
    #[error("the host does not stay as it was set up, still to do: {}", .0.join("; "))]
    Difference(Vec<String>),
}

/// How the way back went.
#[derive(Debug)]
pub enum Back {
    /// The host is as it was before.
    Restored,
    /// The host is as it was before, except for what the cause names.
    AllElse,
    /// It is not.
    Failed(Cause),
}

impl fmt::Display for Back {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Restored => f.write_str("the host is as it was before"),
            Self::AllElse => f.write_str("all else is as it was before"),
            Self::Failed(cause) => write!(f, "and the host could not be put back: {cause}"),
        }
    }
}

/// What of a host is looked at: a scope, and the part of what is found there.
pub struct View<'a> {
    /// Where to look.
    pub scope: &'a Scope,
    /// The part that counts.
    pub part: &'a dyn Fn(&HostState) -> HostState,
}

impl View<'_> {
    async fn observe<H: Host>(&self, host: &mut H) -> Result<HostState, HostError> {
        Ok((self.part)(&host.observe(self.scope).await?))
    }
}

/// Makes a part of the host look like `target`, and gives the steps. Either it does in the end, or
/// it looks as before.
///
/// `target` must name every borrowed thing (see [`Baseline::complete`]), so that what it does not
/// name is ours and goes away.
///
/// [`Baseline::complete`]: super::baseline::Baseline::complete
pub async fn converge<H: Host>(
    host: &mut H,
    view: &View<'_>,
    before: &HostState,
    target: &HostState,
) -> Result<Vec<String>, ConvergeError> {
    let mut executed = Vec::new();
    match drive(host, view, before, target, &mut executed).await {
        Ok(()) => Ok(executed),
        Err(cause) => Err(ConvergeError {
            back: drive_back(host, view, before).await,
            cause,
        }),
    }
}

/// Goes from `from` to `to`, and looks whether it got there.
async fn drive<H: Host>(
    host: &mut H,
    view: &View<'_>,
    from: &HostState,
    to: &HostState,
    executed: &mut Vec<String>,
) -> Result<(), Cause> {
    let mut steps = host.plan(from, to);
    let mut next = 0;
    while let Some(step) = steps.get(next) {
        match host.execute(step).await {
            Ok(()) => {
                executed.push(step.to_string());
                next += 1;
            }
            // It may be done already: a route goes with its address, and we may have been killed
            // before. Then a new plan no longer has this step; so each turn gets further.
            Err(error) if is_settled(&error) => {
                let present = view.observe(host).await?;
                let left = host.plan(&present, to);
                if left.contains(step) {
                    return Err(error.into());
                }
                steps = left;
                next = 0;
            }
            Err(error) => return Err(error.into()),
        }
    }
    if next == 0 {
        return Ok(());
    }
    let after = view.observe(host).await?;
    let left = host.plan(&after, to);
    if left.is_empty() {
        return Ok(());
    }
    Err(Cause::Difference(
        left.iter()
            .map(|step| first_line(&step.to_string()))
            .collect(),
    ))
}

/// The packet filter's step is a script of many lines, of which the first says enough.
fn first_line(step: &str) -> String {
    step.lines().next().unwrap_or_default().to_owned()
}

async fn drive_back<H: Host>(host: &mut H, view: &View<'_>, before: &HostState) -> Back {
    let mut last = None;
    for _ in 0..TRIES_BACK {
        match view.observe(host).await {
            Ok(present) => match drive(host, view, &present, before, &mut Vec::new()).await {
                Ok(()) => return Back::Restored,
                Err(cause) => last = Some(cause),
            },
            Err(error) => last = Some(error.into()),
        }
    }
    last.map_or(Back::Restored, Back::Failed)
}

/// True for the kernel's "it is there already" and "it is not there".
fn is_settled(error: &HostError) -> bool {
    match error {
        HostError::Step { error, .. } => {
            matches!(
                error.kind(),
                io::ErrorKind::AlreadyExists
                    | io::ErrorKind::NotFound
                    | io::ErrorKind::AddrNotAvailable
            ) || error.raw_os_error() == Some(libc::ESRCH)
        }
        HostError::Verify { .. }
        | HostError::Read { .. }
        | HostError::Left(_)
        | HostError::Gone(_)
        | HostError::Baseline { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use crate::sorted::Set;
    use std::net::IpAddr;

    use super::*;
    use crate::config::PortProtocol;
    use crate::config::units::{Family, IfName, Prefix, RulePref, TableId};
    use crate::host::fake::{Fake, setting};
    use crate::route::Resource;
    use crate::route::resource::{Address, Filter, FilterClause, LocalTable, Route, Rule};

    const FORWARD: &str = "net.ipv4.ip_forward";

    fn tunnel() -> IfName {
        "nc0".parse().unwrap()
    }

    fn host() -> Fake {
        let mut host = Fake::new(&["wan0", "lan", "nc0"], &[FORWARD]);
        host.own.insert("203.0.113.2".parse().unwrap());
        host
    }

    /// A remote portal; `gateway` is the end of the tunnel.
    fn desired(gateway: &str, mark: u32) -> HostState {
        let public: IpAddr = "203.0.113.2".parse().unwrap();
        let to = Some(Prefix::host(public));
        let gateway: IpAddr = gateway.parse().unwrap();
        let rule = |pref, table| Rule {
            to,
            ..Rule::new(Family::V4, RulePref(pref), table)
        };
        HostState::from_iter([
            setting(FORWARD, "1"),
            Resource::LocalTable(LocalTable {
                family: Family::V4,
                pref: RulePref(20),
            }),
            Resource::Address(Address {
                device: tunnel(),
                prefix: "172.19.152.2/32".parse().unwrap(),
                peer: Some(gateway),
            }),
            Resource::Address(Address {
                device: "lan".parse().unwrap(),
                prefix: "192.168.1.1/32".parse().unwrap(),
                peer: None,
            }),
            Resource::Route(Route {
                table: TableId(19),
                destination: Prefix::host(public),
                via: Some(gateway),
                device: Some(tunnel()),
                source: None,
                onlink: false,
                metric: 0,
            }),
            Resource::Filter(Filter {
                tunnel: tunnel(),
                clauses: Set::from([FilterClause::MarkOwn {
                    address: public,
                    mark,
                    mask: 15,
                }]),
            }),
            Resource::Rule(Rule {
                protocol: Some(PortProtocol::Tcp),
                ports: Some((22, 22)),
                ..rule(1, TableId::LOCAL)
            }),
            Resource::Rule(Rule {
                mark: Some((mark, 15)),
                ..rule(1, TableId::LOCAL)
            }),
            Resource::Rule(rule(19, TableId(19))),
        ])
    }

    /// What of the host those states name, before anything was done.
    fn baseline() -> HostState {
        HostState::from_iter([
            setting(FORWARD, "0"),
            Resource::LocalTable(LocalTable {
                family: Family::V4,
                pref: RulePref(0),
            }),
        ])
    }

    async fn go(
        host: &mut Fake,
        from: &HostState,
        to: &HostState,
    ) -> Result<Vec<String>, ConvergeError> {
        let view = View {
            scope: &Scope::of(&tunnel(), [from, to]),
            part: &HostState::clone,
        };
        converge(host, &view, from, to).await
    }

    #[tokio::test(flavor = "current_thread")]
    async fn there_and_back() {
        let mut host = host();
        let before = host.state.clone();
        let one = desired("172.19.152.3", 1);
        let two = desired("172.19.152.4", 2);
        for (from, to) in [
            (&baseline(), &one),
            (&one, &two),
            (&two, &two),
            (&two, &baseline()),
        ] {
            let executed = go(&mut host, from, to).await.unwrap();
            assert_eq!(executed.is_empty(), from == to);
        }
        assert_eq!(host.state, before);
    }

    /// Whichever step fails, and whichever step of the way back fails as well, the host is as
    /// before; and the error says which.
    #[tokio::test(flavor = "current_thread")]
    async fn any_failure_leaves_the_host_as_before() {
        let one = desired("172.19.152.3", 1);
        let two = desired("172.19.152.4", 2);
        for (from, to) in [(&baseline(), &one), (&one, &two), (&one, &baseline())] {
            let mut start = host();
            if *from != baseline() {
                go(&mut start, &baseline(), from).await.unwrap();
            }
            let before = start.state.clone();
            let first = start.count;
            let mut probe = start;
            let steps = go(&mut probe, from, to).await.unwrap().len();
            assert!(steps > 3, "{steps}");
            for fails in 0..steps {
                // `also` counts from the failing step: 0 is no second failure.
                for also in 0..=steps {
                    let mut host = host();
                    host.state.clone_from(&before);
                    host.count = first;
                    host.failing = Set::from([first + fails, first + fails + also]);
                    let error = go(&mut host, from, to).await.unwrap_err();
                    assert!(matches!(error.back, Back::Restored), "{error}");
                    assert_eq!(host.state, before, "{fails} {also}");
                    let text = error.to_string();
                    assert!(
                        text.contains("Operation not permitted (os error 1)"),
                        "{text}"
                    );
                    assert!(text.ends_with("the host is as it was before"), "{text}");
                }
            }
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn done_already_is_fine() {
        for doubtful in 0..9 {
            let mut host = host();
            host.doubtful.insert(doubtful);
            let one = desired("172.19.152.3", 1);
            go(&mut host, &baseline(), &one).await.unwrap();
            assert!(one.iter().all(|resource| host.state.contains(resource)));
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_way_back_that_stays_closed_is_said() {
        let mut host = host();
        host.failing = (3..1000).collect();
        let one = desired("172.19.152.3", 1);
        let error = go(&mut host, &baseline(), &one).await.unwrap_err();
        assert!(matches!(error.back, Back::Failed(_)));
        assert!(
            error.to_string().contains("could not be put back"),
            "{error}"
        );
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_the_kernel_refuses_is_said() {
        let mut host = host();
        host.devices.remove(&tunnel());
        let one = desired("172.19.152.3", 1);
        let error = go(&mut host, &baseline(), &one).await.unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("dev nc0: No such device (os error 19)"),
            "{text}"
        );
    }

    /// The address is not the host's, so ssh would be lost once the local rule has moved.
    #[tokio::test(flavor = "current_thread")]
    async fn a_failed_look_up_turns_back() {
        let mut host = host();
        host.own.clear();
        let before = host.state.clone();
        let one = desired("172.19.152.3", 1);
        let error = go(&mut host, &baseline(), &one).await.unwrap_err();
        assert!(error.to_string().contains("dport 22"), "{error}");
        assert_eq!(host.state, before);
    }
}
