//! What goes through network interfaces, from `/proc/net/dev`
//! (`Documentation/filesystems/proc.rst`, net).

use std::time::Instant;

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
    /// Takes `/proc/net/dev`; returns the rates of every interface, the loopback included.
    pub(super) fn advance(&mut self, now: Instant, dev: &str) -> Vec<Reading> {
        let counters = dev.lines().filter_map(parse_line).collect();
        self.rates.advance(now, counters).into_iter().map(reading).collect()
    }
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

/// The name and counters of a line. The two lines of headings hold no numbers and fall out by
/// themselves.
fn parse_line(line: &str) -> Option<(String, Counters)> {
    // Old kernels print no space after the colon, and aliases have one in their name.
    let (name, fields) = line.rsplit_once(':')?;
    let numbers: Vec<u64> = fields.split_ascii_whitespace().map_while(|field| field.parse().ok()).collect();
    let (received, sent) = (numbers.get(..4)?, numbers.get(8..12)?);
    let mut counters = Counters::default();
    for (counter, number) in counters.iter_mut().zip(received.iter().chain(sent)) {
        *counter = *number;
    }
    Some((name.trim().to_owned(), counters))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn both_directions_have_their_own_rates() {
        let start = Instant::now();
        let mut network = Network::default();
        let heading = "Inter-|   Receive  |  Transmit\n face |bytes packets errs drop|bytes packets errs drop\n";
        let before = format!("{heading}  eth0: 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n");
        let after = format!("{heading}  eth0:2000 20 2 4 9 9 9 9 4000 40 6 8 9 9 9 9\n");
        assert_eq!(network.advance(start, &before), []);
        let readings = network.advance(start + Duration::from_secs(2), &after);
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
        let line = "eth0.100:1: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0";
        assert_eq!(parse_line(line), Some(("eth0.100:1".to_owned(), [1, 2, 3, 4, 5, 6, 7, 8])));
    }

    #[test]
    fn lines_that_make_no_sense_are_left_out() {
        for line in ["", "eth0", "eth0:", "eth0: 1 2 3", "eth0: 1 2 3 4 0 0 0 0 5 6 7", "eth0: a b c d e f g h i j k l"]
        {
            assert_eq!(parse_line(line), None, "{line}");
        }
    }
}
