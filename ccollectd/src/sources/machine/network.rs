//! What goes through network interfaces, from `/proc/net/dev`
//! (`Documentation/filesystems/proc.rst`, net).

use std::time::Instant;

use procfs::FromRead;
use procfs::net::{DeviceStatus, InterfaceDeviceStatus};

use super::Why;
use super::rates::Rates;
use crate::sources::Reading;

/// In the order of the file: received and sent bytes, packets, errors, drops.
type Counters = [u64; 8];

/// The counters of every interface at the last reading.
#[derive(Debug, Default)]
pub(super) struct Network {
    rates: Rates<8>,
}

impl Network {
    /// Takes `/proc/net/dev`; returns the rates of every interface, the loopback included, in the
    /// order of their names.
    pub(super) fn advance(&mut self, now: Instant, dev: &str) -> Result<Vec<Reading>, Why> {
        let interfaces = InterfaceDeviceStatus::from_read(dev.as_bytes())?.0;
        let mut counters: Vec<(String, Counters)> = interfaces.into_values().map(named_counters).collect();
        counters.sort_unstable();
        let rates = self.rates.advance(now, counters);
        Ok(rates.into_iter().map(reading).collect())
    }
}

fn named_counters(interface: DeviceStatus) -> (String, Counters) {
    let counters = [
        interface.recv_bytes,
        interface.recv_packets,
        interface.recv_errs,
        interface.recv_drop,
        interface.sent_bytes,
        interface.sent_packets,
        interface.sent_errs,
        interface.sent_drop,
    ];
    (interface.name, counters)
}

fn reading((name, rates): (String, [f64; 8])) -> Reading {
    let [in_bytes, in_packets, in_errors, in_drops, out_bytes, out_packets, out_errors, out_drops] = rates;
    let values = vec![
        ("in_bytes_per_s", in_bytes),
        ("out_bytes_per_s", out_bytes),
        ("in_packets_per_s", in_packets),
        ("out_packets_per_s", out_packets),
        ("in_errors_per_s", in_errors),
        ("out_errors_per_s", out_errors),
        ("in_drops_per_s", in_drops),
        ("out_drops_per_s", out_drops),
    ];
    Reading::new("network", &name, values)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const HEADINGS: &str = "Inter-|   Receive  |  Transmit\n face |bytes packets errs drop|bytes packets errs drop\n";

    #[test]
    fn both_directions_have_their_own_rates() {
        let start = Instant::now();
        let mut network = Network::default();
        let before = format!("{HEADINGS}  eth0: 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n");
        let after = format!("{HEADINGS}  eth0: 2000 20 2 4 9 9 9 9 4000 40 6 8 9 9 9 9\n");
        assert_eq!(network.advance(start, &before).unwrap(), []);
        let readings = network.advance(start + Duration::from_secs(2), &after).unwrap();
        assert_eq!(
            readings[0].values,
            [
                ("in_bytes_per_s", 1000.0),
                ("out_bytes_per_s", 2000.0),
                ("in_packets_per_s", 10.0),
                ("out_packets_per_s", 20.0),
                ("in_errors_per_s", 1.0),
                ("out_errors_per_s", 3.0),
                ("in_drops_per_s", 2.0),
                ("out_drops_per_s", 4.0),
            ]
        );
    }

    #[test]
    fn the_name_of_an_interface_may_hold_a_colon_or_a_dot() {
        let start = Instant::now();
        let mut network = Network::default();
        let text = format!("{HEADINGS}eth0.100:1: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\n");
        network.advance(start, &text).unwrap();
        let readings = network.advance(start + Duration::from_secs(1), &text).unwrap();
        assert_eq!(readings[0].unit, "eth0.100:1");
    }

    #[test]
    fn a_file_that_makes_no_sense_is_refused() {
        for line in
            ["eth0", "eth0:", "eth0: 1 2 3", "eth0: 1 2 3 4 0 0 0 0 5 6 7", "eth0: a b c d e f g h i j k l m n o p"]
        {
            let text = format!("{HEADINGS}{line}\n");
            let answer = Network::default().advance(Instant::now(), &text);
            assert!(answer.is_err(), "{line}");
        }
    }
}
