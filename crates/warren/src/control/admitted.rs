//! What the metrics say of limits and of the auth service. Only routes have a name there: users and addresses may be any
//! number.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use warren_engine::allowances::{LIMITS, PER, Reached, Report};

use crate::auth::RESULTS;

/// See [`crate::admission::Admission::report`].
#[derive(Debug, Default)]
pub(super) struct Admitted {
    limits: Report,
    auth: [u64; RESULTS.len()],
}

impl From<(Report, [u64; RESULTS.len()])> for Admitted {
    fn from((limits, auth): (Report, [u64; RESULTS.len()])) -> Admitted {
        Admitted { limits, auth }
    }
}

impl Admitted {
    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "What clients of a route use of what they may have: connections, channels, connections and bytes (one way) \
                    per second";
        let mut family = encoder.encode_descriptor("warren_route_use", help, None, MetricType::Gauge)?;
        for route in &self.limits.routes {
            for (limit, used) in LIMITS.iter().zip(route.used) {
                gauge(&mut family, &[("route", &route.name), ("limit", limit)], used)?;
            }
        }
        let help = "What clients of a route may have, where there is a limit";
        let mut family = encoder.encode_descriptor("warren_route_limit", help, None, MetricType::Gauge)?;
        for route in &self.limits.routes {
            for (limit, most) in LIMITS.iter().zip(route.most) {
                if let Some(most) = most {
                    gauge(&mut family, &[("route", &route.name), ("limit", limit)], most)?;
                }
            }
        }
        let help = "Times that something was refused or delayed because of a limit of a route, or of what a rule is for";
        let family = encoder.encode_descriptor("warren_limited", help, None, MetricType::Counter)?;
        self.reached(family, |reached| reached.limited)?;
        let help = "Times that an alarm of a route, or of what a rule is for, was passed";
        let family = encoder.encode_descriptor("warren_alarms", help, None, MetricType::Counter)?;
        self.reached(family, |reached| reached.alarms)?;
        let help = "Questions to the auth service, by what became of them";
        let mut family =
            encoder.encode_descriptor("warren_auth_requests", help, None, MetricType::Counter)?;
        for (result, count) in RESULTS.iter().zip(self.auth) {
            ConstCounter::new(count).encode(family.encode_family(&[("result", *result)])?)?;
        }
        Ok(())
    }

    fn reached(&self, mut family: MetricEncoder<'_>, count: impl Fn(&Reached) -> u64) -> fmt::Result {
        let routes = self.limits.routes.iter().map(|route| ("route", route.name.as_str(), &route.reached));
        let rules = PER.iter().zip(&self.limits.rules).map(|(per, reached)| (*per, "", reached));
        for (per, route, reached) in routes.chain(rules) {
            for (limit, reached) in LIMITS.iter().zip(reached) {
                let labels = [("limit", *limit), ("per", per), ("route", route)];
                ConstCounter::new(count(reached)).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

fn gauge(family: &mut MetricEncoder<'_>, labels: &[(&str, &str); 2], value: u64) -> fmt::Result {
    let value = i64::try_from(value).unwrap_or(i64::MAX);
    ConstGauge::new(value).encode(family.encode_family(labels)?)
}
