//! The whole program in network namespaces: both portals run the real binary with real configs on
//! a real kernel, in the lab of `tests/lab` (its figure is in `tests/lab/src/topology.rs`).
//!
//! Needs root or a user namespace in which one is root. Facts are asserted, never speeds.
#![cfg(target_os = "linux")]

mod netns {
    mod awaited;
    mod believed;
    mod border;
    mod client_device;
    mod closed;
    mod command;
    mod crossing;
    mod documented;
    mod ecn;
    mod filters;
    mod flood;
    mod foreign;
    mod forwarders;
    mod forwards;
    mod hostile;
    mod hosts_own;
    mod insiders;
    mod ipv6;
    mod killed;
    mod lans;
    mod leased;
    mod leases;
    mod links;
    mod modes;
    mod mtu;
    mod neighbours;
    mod offloads;
    mod one_card;
    mod openings;
    mod outside;
    mod paths;
    mod plan;
    mod reach;
    mod shared_ports;
    mod state;
    mod support;
    mod untracked;
}
