//! From an exchange to queues.

use warren_wire::content::BasicProperties;
use warren_wire::table::{Table, Value};

use crate::core::{Core, ExchangeKey, QueueKey};
use crate::exchange::{Binding, Exchange, Kind, Target};
use crate::message::Message;

impl Core {
    /// Appends the queues that the message reaches from `exchange`, each once, through bindings between exchanges and
    /// alternate exchanges too. The default exchange has no bindings and is not for here.
    pub(crate) fn route(&self, exchange: ExchangeKey, message: &Message, queues: &mut Vec<QueueKey>) {
        let mut seen = vec![exchange];
        let mut next = 0;
        while let Some(&key) = seen.get(next) {
            next += 1;
            let Some(exchange) = self.exchanges.get(key) else {
                continue;
            };
            let mut any = false;
            exchange.matching(message, |binding| {
                any = true;
                match binding.target {
                    Target::Queue(queue) => queues.push(queue),
                    Target::Exchange(other) if !seen.contains(&other) => seen.push(other),
                    Target::Exchange(_) => {}
                }
            });
            if !any
                && let Some(name) = &exchange.alternate
                && let Some(other) = self.find_exchange(exchange.vhost, name)
                && !seen.contains(&other)
            {
                seen.push(other);
            }
        }
        queues.sort_unstable();
        queues.dedup();
    }
}

impl Exchange {
    /// Calls `found` for each binding that the message satisfies.
    fn matching(&self, message: &Message, mut found: impl FnMut(&Binding)) {
        match self.kind {
            Kind::Direct => {
                let bindings = self.bindings.get(message.routing_key());
                bindings.into_iter().flatten().for_each(found);
            }
            Kind::Fanout => self.bindings.values().flatten().for_each(found),
            Kind::Topic => {
                for (pattern, bindings) in &self.bindings {
                    if topic_matches(pattern, message.routing_key()) {
                        bindings.iter().for_each(&mut found);
                    }
                }
            }
            Kind::Headers => {
                let properties = BasicProperties::parse(message.properties()).unwrap_or_default();
                let headers = properties.headers.unwrap_or(Table::EMPTY);
                for binding in self.bindings.values().flatten() {
                    // The arguments were checked when the binding's method was parsed.
                    let wanted = Table::from_encoded(&binding.arguments).unwrap_or(Table::EMPTY);
                    if headers_match(wanted, headers) {
                        found(binding);
                    }
                }
            }
        }
    }
}

/// Words are separated by dots; `*` stands for one, `#` for any number. Empty words count, but an empty key has none.
pub(crate) fn topic_matches(pattern: &[u8], key: &[u8]) -> bool {
    let pattern: Vec<&[u8]> = words(pattern);
    let key: Vec<&[u8]> = words(key);
    // reached[i]: the pattern so far covers the first i words. One row for each word of the pattern, so that many `#` in a
    // pattern cost no more than its length times that of the key.
    let mut reached = vec![false; key.len() + 1];
    reached[0] = true;
    for word in pattern {
        if word == b"#" {
            let first = reached.iter().position(|&r| r).unwrap_or(reached.len());
            reached[first..].fill(true);
        } else {
            for i in (0..key.len()).rev() {
                reached[i + 1] = reached[i] && (word == b"*" || word == key[i]);
            }
            reached[0] = false;
        }
    }
    reached[key.len()]
}

fn words(text: &[u8]) -> Vec<&[u8]> {
    if text.is_empty() {
        return Vec::new();
    }
    text.split(|&octet| octet == b'.').collect()
}

/// Headers exchange: `x-match` says whether all or any of the arguments must be there; arguments that begin with `x-` count
/// only with `all-with-x` and `any-with-x`. A void argument asks only that the header is there.
fn headers_match(wanted: Table<'_>, headers: Table<'_>) -> bool {
    let mode: &[u8] = match wanted.get(b"x-match") {
        Some(Value::Str(mode)) => mode,
        _ => b"all",
    };
    let any = mode.starts_with(b"any");
    let with_x = mode.ends_with(b"-with-x");
    let mut counted =
        wanted.iter().filter(|(key, _)| *key != b"x-match" && (with_x || !key.starts_with(b"x-")));
    let satisfied = |(key, value): (&[u8], Value<'_>)| match headers.get(key) {
        Some(found) => value == Value::Other || found == value,
        None => false,
    };
    if any { counted.any(satisfied) } else { counted.all(satisfied) }
}

#[cfg(test)]
mod tests {
    use super::topic_matches;

    #[test]
    fn topic_patterns() {
        let yes = [
            ("a.b.c", "a.b.c"),
            ("a.*.c", "a.b.c"),
            ("#", ""),
            ("#", "a.b"),
            ("a.#", "a"),
            ("a.#", "a.b.c"),
            ("#.c", "a.b.c"),
            ("a.#.c", "a.c"),
            ("#.#", "x"),
            ("a..b", "a..b"),
            ("a.*.b", "a..b"),
            ("", ""),
        ];
        for (pattern, key) in yes {
            assert!(topic_matches(pattern.as_bytes(), key.as_bytes()), "{pattern} {key}");
        }
        let no =
            [("a.b", "a.b.c"), ("a.*", "a"), ("*", ""), ("a.#.c", "a.b"), ("*.b", "b"), ("", "a"), ("a", "")];
        for (pattern, key) in no {
            assert!(!topic_matches(pattern.as_bytes(), key.as_bytes()), "{pattern} {key}");
        }
    }
}
