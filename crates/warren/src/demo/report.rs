//! What was seen, for people.

use std::fmt;
use std::time::Duration;

use anyhow::bail;

use super::crowd::Served;

/// The name of the direct way.
pub(super) const WITHOUT: &str = "without Warren";
/// The name of the way through the proxy.
pub(super) const WITH: &str = "with Warren";

/// One way, as its clients and the broker saw it.
#[derive(Clone, Debug)]
pub(super) struct Way {
    /// The clients' view.
    pub(super) served: Served,
    /// Messages in the queue afterwards.
    pub(super) messages: usize,
    /// Connections that were opened at the broker.
    pub(super) connections: u64,
    /// Channels that were opened at the broker.
    pub(super) channels: u64,
}

impl Way {
    fn lost(&self) -> usize {
        self.served.clients.saturating_sub(self.messages)
    }

    fn per_second(&self) -> u64 {
        let seconds = self.served.took.as_secs_f64().max(0.001);
        (self.served.clients as f64 / seconds).round() as u64
    }
}

/// Both ways side by side.
#[derive(Clone, Debug)]
pub(super) struct Report {
    /// Clients at a time.
    pub(super) at_once: usize,
    /// As measured.
    pub(super) round_trip: Duration,
    /// Without Warren.
    pub(super) without: Way,
    /// With Warren.
    pub(super) with: Way,
}

impl Report {
    /// An error when something is not as it must be, whatever the machine.
    pub(super) fn verdict(&self) -> anyhow::Result<()> {
        for (name, way) in [(WITHOUT, &self.without), (WITH, &self.with)] {
            let (clients, messages) = (way.served.clients, way.messages);
            if clients != messages {
                bail!("{name}, {clients} clients were served but {messages} messages are in the queue");
            }
        }
        Ok(())
    }

    fn row(&self, f: &mut fmt::Formatter<'_>, what: &str, of: impl Fn(&Way) -> String) -> fmt::Result {
        writeln!(f, "  {what:<36}{:>16}{:>16}", of(&self.without), of(&self.with))
    }

    fn count(&self, f: &mut fmt::Formatter<'_>, what: &str, of: impl Fn(&Way) -> u64) -> fmt::Result {
        self.row(f, what, |way| thousands(of(way)))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Short-lived clients: connect, publish one message, close. {} at a time.", self.at_once)?;
        writeln!(f)?;
        writeln!(f, "  {:36}{WITHOUT:>16}{WITH:>16}", "")?;
        writeln!(f, "  {}", "-".repeat(68))?;
        self.count(f, "clients served", |way| way.served.clients as u64)?;
        self.count(f, "messages that arrived in the queue", |way| way.messages as u64)?;
        self.count(f, "messages lost", |way| way.lost() as u64)?;
        writeln!(f)?;
        self.count(f, "connections opened at the broker", |way| way.connections)?;
        self.count(f, "channels opened at the broker", |way| way.channels)?;
        writeln!(f)?;
        self.row(f, "time per client (median)", |way| milliseconds(way.served.median))?;
        self.count(f, "clients per second", Way::per_second)?;
        writeln!(f)?;
        let round_trip = milliseconds(self.round_trip);
        write!(
            f,
            "\
Without Warren every client goes the whole way several times: to connect, to
log in, to open a channel, to close. Warren does that nearby; its connections
to the broker are few and stay open, and all clients share them. A client's
close is answered when its message is known to have reached the queue.

All of this ran in one process. The network to the broker was simulated, with
a round trip of {round_trip}. The broker is a small one in memory, and is for
demonstration only.
"
        )
    }
}

/// Where to connect while everything is kept running.
pub(super) fn addresses(lines: &[(&str, String)]) -> String {
    let mut text = String::from("\nStill running, until SIGINT (Ctrl-C) or SIGTERM:\n\n");
    for (what, address) in lines {
        text += &format!("  {what:<36}{address}\n");
    }
    text
}

/// A number as people write it: 12,345.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let way = |messages, connections, median| Way {
            served: Served {
                clients: 2000,
                took: Duration::from_secs(4),
                median: Duration::from_micros(median),
            },
            messages,
            connections,
            channels: connections,
        };
        let round_trip = Duration::from_millis(5);
        Report { at_once: 20, round_trip, without: way(2000, 2000, 41_234), with: way(2000, 3, 6_000) }
    }

    #[test]
    fn lines_fit_a_terminal_and_columns_are_aligned() {
        let text = report().to_string();
        let long: Vec<&str> = text.lines().filter(|line| line.len() > 78).collect();
        assert!(long.is_empty(), "{long:?}");
        let ends = |part: &str| {
            let line = text.lines().find(|line| line.contains(part)).expect(part);
            line.trim_end().len()
        };
        for part in ["with Warren", "clients served", "connections opened", "time per client"] {
            assert_eq!(ends(part), 70, "{part} in\n{text}");
        }
        assert!(text.contains("41.2 ms          6.0 ms"), "{text}");
        assert!(text.contains("clients per second                               500"), "{text}");
    }

    #[test]
    fn lost_messages_are_a_failure() {
        report().verdict().expect("all arrived");
        let mut report = report();
        report.with.messages = 1999;
        let text = report.verdict().expect_err("one is missing").to_string();
        assert_eq!(text, "with Warren, 2000 clients were served but 1999 messages are in the queue");
        assert!(report.to_string().lines().any(|l| l.contains("messages lost") && l.ends_with(" 1")));
    }

    #[test]
    fn numbers_have_groups_of_three() {
        for (number, text) in
            [(0, "0"), (999, "999"), (1000, "1,000"), (12_345, "12,345"), (1_234_567, "1,234,567")]
        {
            assert_eq!(thousands(number), text);
        }
    }
}
