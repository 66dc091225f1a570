//! The policy against a table of addresses, and against laws that hold for every address.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

fn ranges(texts: &[&str]) -> Vec<AddressRange> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn policy(allow: &[&str], deny: &[&str]) -> Policy {
    Policy {
        allow: ranges(allow),
        deny: ranges(deny),
    }
}

fn judge(policy: &Policy, address: &str, destination: &[&str]) -> Result<(), Denied> {
    policy.judge(address.parse().unwrap(), &ranges(destination))
}

#[test]
fn public_addresses_are_let_through() {
    for address in [
        "1.1.1.1",
        "8.8.8.8",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "169.253.255.255",
        "172.15.255.255",
        "172.32.0.0",
        "191.255.255.255",
        "192.0.1.0",
        "192.167.255.255",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "2001:200::1",
        "2606:4700::1111",
        "2a00:1450::1",
        "::ffff:1.1.1.1",
        "64:ff9b::1.1.1.1",
        "2002:101:101::1",
    ] {
        assert_eq!(judge(&Policy::default(), address, &[]), Ok(()), "{address}");
    }
}

#[test]
fn everything_else_is_denied() {
    for address in [
        // This network, unspecified.
        "0.0.0.0",
        "0.1.2.3",
        "::",
        // Private use, unique local, site-local.
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.0.1",
        "fc00::1",
        "fdff::1",
        "fec0::1",
        // Shared, loopback, link-local.
        "100.64.0.1",
        "100.127.255.255",
        "127.0.0.1",
        "127.255.255.254",
        "::1",
        "169.254.1.1",
        "fe80::1",
        // Metadata services of clouds.
        "169.254.169.254",
        "fd00:ec2::254",
        "fd20:ce::254",
        "100.100.100.200",
        "192.0.0.192",
        "168.63.129.16",
        // Protocol assignments, documentation, benchmarking, relays.
        "192.0.0.8",
        "192.0.2.1",
        "198.51.100.1",
        "203.0.113.1",
        "2001:db8::1",
        "3fff::1",
        "198.18.0.1",
        "198.19.255.255",
        "192.88.99.1",
        "2001::1",
        "2001:2::1",
        "2001:20::1",
        "100::1",
        "5f00::1",
        // Multicast, reserved, broadcast.
        "224.0.0.1",
        "239.255.255.255",
        "ff02::1",
        "240.0.0.1",
        "255.255.255.255",
        // What carries one of these inside.
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::127.0.0.1",
        "::ffff:0:10.0.0.1",
        "64:ff9b::10.0.0.1",
        "64:ff9b::169.254.169.254",
        "64:ff9b:1::1.1.1.1",
        "2002:7f00:1::1",
        "2002:a9fe:a9fe::1",
        // Given out to nobody.
        "4000::1",
        "::2:3",
    ] {
        let judged = judge(&Policy::default(), address, &[]);
        assert_eq!(judged, Err(Denied::ByAgent), "{address}");
    }
}

#[test]
fn the_operator_allows_and_denies_and_the_destination_narrows() {
    let agent = policy(&["10.0.0.0/8", "::1/128"], &["10.9.0.0/16", "8.0.0.0/8"]);
    for (address, destination, expected) in [
        ("10.1.0.1", &[][..], Ok(())),
        ("::1", &[], Ok(())),
        ("::ffff:10.1.0.1", &[], Ok(())),
        ("64:ff9b::10.1.0.1", &[], Ok(())),
        ("127.0.0.1", &[], Err(Denied::ByAgent)),
        ("10.9.0.1", &[], Err(Denied::ByAgent)),
        ("64:ff9b::10.9.0.1", &[], Err(Denied::ByAgent)),
        ("8.8.8.8", &[], Err(Denied::ByAgent)),
        ("64:ff9b::8.8.8.8", &[], Err(Denied::ByAgent)),
        // Asking for what the agent does not allow gives nothing.
        ("127.0.0.1", &["127.0.0.0/8"], Err(Denied::ByAgent)),
        ("10.9.0.1", &["10.9.0.0/16"], Err(Denied::ByAgent)),
        ("10.1.0.1", &["10.1.0.0/16"], Ok(())),
        ("10.2.0.1", &["10.1.0.0/16"], Err(Denied::ByDestination)),
        ("1.1.1.1", &["10.1.0.0/16"], Err(Denied::ByDestination)),
        ("1.1.1.1", &["10.1.0.0/16", "1.1.1.0/24"], Ok(())),
        ("64:ff9b::1.1.1.1", &["1.1.1.0/24"], Ok(())),
        ("64:ff9b::1.1.1.1", &["64:ff9b::/96"], Ok(())),
        ("2600::1", &["0.0.0.0/0"], Err(Denied::ByDestination)),
    ] {
        let judged = judge(&agent, address, destination);
        assert_eq!(judged, expected, "{address} for {destination:?}");
    }
    // Allowing a translator's prefix does not allow what is behind it.
    let translator = policy(&["64:ff9b::/96"], &[]);
    assert_eq!(
        judge(&translator, "64:ff9b::10.0.0.1", &[]),
        Err(Denied::ByAgent)
    );
}

fn address() -> impl Strategy<Value = IpAddr> {
    let near = prop_oneof![
        Just(0x0a00_0000_u32),
        Just(0x7f00_0000),
        Just(0xa9fe_0000),
        Just(0xc0a8_0000),
    ];
    let v4 = prop_oneof![
        any::<u32>(),
        (near, 0_u32..0x1_0000).prop_map(|(from, by)| from + by),
    ]
    .prop_map(Ipv4Addr::from)
    .boxed();
    prop_oneof![
        v4.clone().prop_map(IpAddr::V4),
        v4.clone().prop_map(|it| IpAddr::V6(nat64(it))),
        v4.prop_map(|it| IpAddr::V6(six_to_four(it, 1))),
        any::<u128>().prop_map(|bits| IpAddr::V6(bits.into())),
    ]
}

fn some_ranges() -> impl Strategy<Value = Vec<AddressRange>> {
    let range = prop_oneof![
        (any::<u32>(), 0_u8..=32).prop_map(|(bits, length)| {
            let net = ipnet::Ipv4Net::new(bits.into(), length).unwrap();
            net.trunc().to_string()
        }),
        (any::<u128>(), 0_u8..=128).prop_map(|(bits, length)| {
            let net = ipnet::Ipv6Net::new(bits.into(), length).unwrap();
            net.trunc().to_string()
        }),
        Just("10.0.0.0/8".to_owned()),
        Just("127.0.0.0/8".to_owned()),
        Just("64:ff9b::/96".to_owned()),
    ];
    let range = range.prop_map(|text| text.parse().unwrap());
    proptest::collection::vec(range, 0..4)
}

fn nat64(inner: Ipv4Addr) -> Ipv6Addr {
    (0x0064_ff9b_u128 << 96 | u128::from(u32::from(inner))).into()
}

fn six_to_four(inner: Ipv4Addr, rest: u128) -> Ipv6Addr {
    (0x2002_u128 << 112 | u128::from(u32::from(inner)) << 80 | rest).into()
}

proptest! {
    #[test]
    fn nothing_that_the_standard_library_knows_as_special_passes(bits in any::<u32>()) {
        let address = Ipv4Addr::from(bits);
        let special = address.is_private()
            || address.is_loopback()
            || address.is_link_local()
            || address.is_broadcast()
            || address.is_documentation()
            || address.is_multicast()
            || address.is_unspecified();
        let judged = Policy::default().judge(address.into(), &[]);
        prop_assert!(!special || judged.is_err());
        // What leads to an address is judged as the address is.
        let mapped = IpAddr::V6(address.to_ipv6_mapped());
        prop_assert_eq!(Policy::default().judge(mapped, &[]), judged);
        prop_assert_eq!(Policy::default().judge(nat64(address).into(), &[]), judged);
        prop_assert_eq!(Policy::default().judge(six_to_four(address, 1).into(), &[]), judged);
    }

    #[test]
    fn no_ipv6_address_outside_of_global_unicast_passes(bits in any::<u128>()) {
        let address = Ipv6Addr::from(bits);
        let judged = Policy::default().judge(address.into(), &[]);
        let global = bits >> 125 == 1;
        prop_assert!(global || judged.is_err());
    }

    #[test]
    fn deny_wins_and_a_destination_only_narrows(
        address in address(),
        allow in some_ranges(),
        deny in some_ranges(),
        destination in some_ranges(),
    ) {
        let agent = Policy { allow, deny };
        let alone = agent.judge(address, &[]);
        let narrowed = agent.judge(address, &destination);
        prop_assert!(narrowed.is_err() || alone.is_ok());
        prop_assert_ne!(alone, Err(Denied::ByDestination));
        if agent.deny.iter().any(|range| range.contains(address)) {
            prop_assert_eq!(narrowed, Err(Denied::ByAgent));
        }
        // Denying more never lets more through; allowing less neither.
        let stricter = Policy { allow: Vec::new(), ..agent };
        prop_assert!(stricter.judge(address, &destination).is_err() || narrowed.is_ok());
    }

    #[test]
    fn who_allows_everything_gets_everything(address in address()) {
        let all = policy(&["0.0.0.0/0", "::/0"], &[]);
        prop_assert_eq!(all.judge(address, &[]), Ok(()));
        let none = policy(&["0.0.0.0/0", "::/0"], &["0.0.0.0/0", "::/0"]);
        prop_assert_eq!(none.judge(address, &[]), Err(Denied::ByAgent));
    }
}
