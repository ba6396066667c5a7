//! What others route for the LAN by rules of their own.

use netcombiner::host::Reconciler;
use netcombiner::route::{conflicts, desired};

use crate::namespace::{in_namespace, ip, reconciler};
use crate::support;

const CONFIG: &str = "role = \"local\"\nprivate_key = \"PRIVATE\"\npeer_public_key = \"PEER\"\n\
    public_address = \"203.0.113.9\"\nremote = \"203.0.113.9:4725\"\ndeliver = \"nat\"\n\
    lan = { device = \"lan\" }\n[[link]]\ndevice = \"wan0\"\n";

/// Where the kernel sends what the LAN sends there.
fn leaves_by(destination: &str) -> String {
    ip(&format!(
        "route get {destination} from 192.168.7.20 iif lan"
    ))
}

/// Field row D8: a VPN's subnets in a table of its own are named, and the line that is given lets the
/// LAN reach them.
#[test]
fn the_line_that_is_given_brings_a_hidden_route_back() {
    in_namespace(async |directory| {
        for line in [
            "tuntap add vpn0 mode tap",
            "link set vpn0 up",
            "address add 192.168.7.1/24 dev lan",
            "route add 10.8.0.0/16 dev vpn0 table 220",
            "route add default dev vpn0 table 220",
            "rule add pref 220 lookup 220",
        ] {
            ip(line);
        }
        let (config, _) = support::parse(CONFIG).unwrap();
        let mut reconciler = reconciler(&directory);
        let observed = reconciler.links().await.unwrap();
        reconciler
            .apply(&desired(&config, &observed))
            .await
            .unwrap();
        assert!(leaves_by("10.8.1.1").contains("dev nc0"));

        let hidden = async |reconciler: &mut Reconciler| {
            let observed = reconciler.links().await.unwrap();
            let warnings = conflicts(&config, &observed).into_iter();
            let mut texts = warnings.map(|warning| warning.text);
            texts.find(|text| text.contains("hidden"))
        };
        let text = hidden(&mut reconciler).await.unwrap();
        assert!(text.contains("10.8.0.0/16 (table 220)"), "{text}");
        let line = text.split('`').nth(1).unwrap();
        ip(line.strip_prefix("ip ").unwrap());
        assert!(leaves_by("10.8.1.1").contains("dev vpn0"), "{text}");
        // All else goes into the tunnel still.
        assert!(leaves_by("198.51.100.1").contains("dev nc0"), "{text}");
        assert_eq!(hidden(&mut reconciler).await, None);
        reconciler.stop().await.unwrap();
    });
}
