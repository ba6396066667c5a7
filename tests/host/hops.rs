//! Next hops of every kind, as they are found and as they are written.

use netcombiner::config::units::{Family, Prefix, TableId};
use netcombiner::route::resource::Route;
use netcombiner::route::{HostState, Resource};

use crate::namespace::{address, in_namespace, ip, json, name, observed, reconciler, snapshot};

/// Field row C3: an IPv4 default route by an IPv6 next hop, alone and in a multi-path route.
#[test]
fn next_hops_of_the_other_family() {
    in_namespace(async |directory| {
        ip("-4 route replace default via inet6 fe80::1 dev wan0");
        ip(
            "-4 route add default metric 9 nexthop via inet6 fe80::2 dev lan weight 1 nexthop via inet6 fe80::3 dev wan0 weight 1",
        );
        let before = snapshot();
        let mut reconciler = reconciler(&directory);
        let seen = reconciler.links().await.unwrap();
        let wan = seen.link(&name("wan0")).unwrap();
        assert_eq!(wan.v4_by_v6, [address("fe80::1"), address("fe80::3")]);
        assert_eq!(wan.gateway(Family::V4), Some(address("fe80::1")));
        assert_eq!(wan.gateways, [address("2001:db8:113::1")]);
        let lan = seen.link(&name("lan")).unwrap();
        assert!(lan.has_default() && lan.gateways.is_empty());

        let table = TableId(28260);
        let route = Route {
            via: Some(address("fe80::1")),
            source: Some(address("203.0.113.2")),
            ..Route::direct(table, Prefix::default_of(Family::V4), &name("wan0"))
        };
        let wanted = HostState::from_iter([
            Resource::Route(route),
            Resource::Route(Route::unreachable(table, Prefix::default_of(Family::V4))),
            Resource::Route(Route::unreachable(table, Prefix::default_of(Family::V6))),
        ]);
        reconciler.apply(&wanted).await.unwrap();
        assert_eq!(observed(&wanted).await, wanted);
        let listed = json("-j -4 route show table 28260");
        assert_eq!(listed[0]["via"]["host"], "fe80::1");
        assert_eq!(listed[1]["type"], "unreachable");
        reconciler.stop().await.unwrap();
        assert_eq!(snapshot(), before);
    });
}
