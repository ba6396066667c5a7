//! What `show` is told: the tunnel's counters under the names of the configuration.

use std::time::Duration;

use super::links::Plan;
use super::packet_loop::Report;
use super::sockets::LinkSocket;
use crate::config::units::Mtu;
use crate::config::{Config, Listen, Role};
use crate::control::{
    DeviceStatus, LinkStatus, Offloads, PathStatus, Portal, Repair, Status, Traffic,
};
use crate::proto::stats::{PathStats, TunnelStats};

/// What does not come from the packet thread.
pub(super) struct Known<'a> {
    pub(super) config: &'a Config,
    pub(super) mtu: Mtu,
    pub(super) uptime: Duration,
    pub(super) routing_error: Option<&'a str>,
    pub(super) awaited: &'a [String],
    pub(super) plans: &'a [Plan],
    pub(super) filters: Vec<String>,
}

/// The answer to `show`.
pub(super) fn status(known: &Known<'_>, report: &Report) -> Status {
    let config = known.config;
    let stats = &report.stats;
    let links: Vec<LinkStatus> = known.plans.iter().map(|plan| link(plan, report)).collect();
    let is_listed = |path: &&PathStats| known.plans.iter().any(|plan| path.link == Some(plan.id));
    Status {
        interface: config.name.to_string(),
        role: match config.role {
            Role::Local(_) => Portal::Local,
            Role::Remote(_) => Portal::Remote,
        },
        public_key: config.keys.private.public().to_string(),
        peer: config.keys.peer.to_string(),
        security: config.security.to_string(),
        cipher: stats.session_age.map(|_| stats.cipher.to_owned()),
        latest_handshake_s: stats.session_age.map(|age| age.as_secs_f64()),
        uptime_s: known.uptime.as_secs_f64(),
        pid: std::process::id(),
        public_addresses: config.public.iter().map(|it| it.to_string()).collect(),
        mtu: stats.mtu,
        mtu_most: known.mtu.bytes(),
        threads: if report.tun_apart { 2 } else { 1 },
        offloads: Offloads {
            tun_tcp: report.tun_offload.tcp,
            tun_udp: report.tun_offload.udp,
            udp_gso: report.udp_offload.map(|it| it.gso_segments),
            udp_gro: report.udp_offload.map(|it| it.gro_segments),
        },
        listening: config.listen.iter().map(Listen::to_string).collect(),
        routing_error: known.routing_error.map(str::to_owned),
        awaited: known.awaited.to_vec(),
        filters: known.filters.clone(),
        links,
        paths: stats
            .paths
            .iter()
            .filter(|path| !is_listed(path))
            .map(path)
            .collect(),
        traffic: traffic(stats),
        queue_packets: stats.queue_packets,
        queue_marked: stats.marked,
        queue_bytes: stats.queue_bytes,
        reorder_packets: stats.reorder_packets,
        repair: Repair {
            sent: stats.repairs,
            twice: stats.twice,
            given_up: stats.given_up,
            copies: stats.copies,
            parities: stats.parities,
            recovered: stats.recovered,
            overdue: stats.overdue,
        },
        discards: stats
            .discards
            .iter()
            .map(|(cause, count)| (cause.name().to_owned(), *count))
            .collect(),
    }
}

fn traffic(stats: &TunnelStats) -> Traffic {
    Traffic {
        packets_in: stats.packets_in,
        bytes_in: stats.bytes_in,
        packets_out: stats.packets_out,
        bytes_out: stats.bytes_out,
    }
}

fn link(plan: &Plan, report: &Report) -> LinkStatus {
    let socket = report
        .links
        .iter()
        .find(|(id, _)| *id == plan.id)
        .map(|(_, socket)| socket);
    let (status, local) = match (&plan.flow, socket) {
        (Err(reason), _) => (DeviceStatus::Waiting(reason.clone()), None),
        (Ok(_), Some(LinkSocket::Waiting(reason))) => (DeviceStatus::Waiting(reason.clone()), None),
        (Ok(_), Some(LinkSocket::Open(local))) => (DeviceStatus::Open, *local),
        (Ok(_), None) => (
            DeviceStatus::Waiting("its socket is being opened".to_owned()),
            None,
        ),
    };
    LinkStatus {
        name: plan.name.clone(),
        device: plan.device.to_string(),
        transport: plan.transport.to_string(),
        metric: plan.terms.metric,
        status,
        local,
        path: report
            .stats
            .paths
            .iter()
            .find(|path| path.link == Some(plan.id))
            .map(path),
    }
}

fn path(stats: &PathStats) -> PathStatus {
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    PathStatus {
        path: stats.path.index() as u32,
        state: stats.state,
        endpoint: stats.remote,
        rtt_ms: stats.rtt.map(milliseconds),
        min_rtt_ms: stats.min_rtt.map(milliseconds),
        rtt_var_ms: milliseconds(stats.rtt_var),
        mtu: stats.mtu,
        ecn: stats.ecn,
        marked: stats.marked,
        loss: stats.lost as f64 / (stats.datagrams_sent as f64).max(1.0),
        window: stats.window,
        in_flight: stats.in_flight,
        capacity: stats.estimate.map(|estimate| estimate.bandwidth * 8),
        queue_ms: stats.estimate.map(|estimate| milliseconds(estimate.queue)),
        jitter_ms: stats.estimate.map(|estimate| milliseconds(estimate.jitter)),
        rate_sent: stats.rate_sent,
        rate_received: stats.rate_received,
        bytes_sent: stats.bytes_sent,
        bytes_received: stats.bytes_received,
        datagrams_sent: stats.datagrams_sent,
        datagrams_received: stats.datagrams_received,
        lost: stats.lost,
        spurious: stats.spurious,
    }
}
