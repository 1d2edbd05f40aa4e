//! Clients connected to the model broker itself.

use warren_broker::ConnId;

use super::broker_side::BrokerSide;
use super::{Action, Outside, Place};
use crate::client::Client;
use crate::client::handshake::Stage;
use crate::oracle::Check;
use crate::scenario::Pace;

/// Each client has a connection.
#[derive(Debug, Default)]
pub struct Direct {
    links: Vec<Link>,
}

#[derive(Debug)]
struct Link {
    conn: ConnId,
    /// Octets that the client's connection has carried to the broker.
    delivered: u64,
    live: bool,
}

impl Direct {
    pub(super) fn arrive(&mut self, place: Place, outside: &mut Outside<'_>) -> Check {
        let link = Link { conn: outside.broker.connect(0), delivered: 0, live: true };
        if place < self.links.len() {
            self.links[place] = link;
        } else {
            self.links.push(link);
        }
        Ok(())
    }

    pub(super) fn list(
        &self,
        clients: &[Client],
        broker: &BrokerSide,
        pace: Pace,
        possible: &mut Vec<(Action, u32)>,
    ) {
        for (place, (link, client)) in self.links.iter().zip(clients).enumerate().filter(|(_, (l, _))| l.live)
        {
            if !client.tx.is_empty() {
                possible.push((Action::FromClient(place), pace.client_io));
            }
            if broker.available(link.conn) > 0 && !client.vanishing {
                possible.push((Action::ToClient(place), pace.client_io));
            }
            let over = match client.stage {
                Stage::Done => client.tx.is_empty(),
                _ => client.vanishing && client.tx.is_empty() || broker.has_ended(link.conn),
            };
            if over {
                possible.push((Action::EndClient(place), pace.client_io));
            }
        }
    }

    pub(super) fn perform(&mut self, action: Action, outside: &mut Outside<'_>) -> Check {
        match action {
            Action::FromClient(place) => {
                let tx = &mut outside.clients[place].tx;
                let piece = outside.piece.min(tx.len());
                outside.broker.receive(self.links[place].conn, &tx[..piece]);
                tx.drain(..piece);
                self.links[place].delivered += piece as u64;
                Ok(())
            }
            Action::ToClient(place) => {
                let bytes = outside.broker.take(self.links[place].conn, outside.piece);
                outside.clients[place].receive(&bytes, &mut outside.ctx)
            }
            Action::EndClient(place) => self.end(place, outside),
            _ => Ok(()),
        }
    }

    fn end(&mut self, place: Place, outside: &mut Outside<'_>) -> Check {
        let link = &mut self.links[place];
        link.live = false;
        let client = &mut outside.clients[place];
        outside.broker.end(link.conn, outside.ctx.oracle);
        if client.vanishing {
            client.vanish(link.delivered, b"", &mut outside.ctx);
            return Ok(());
        }
        client.eof(&mut outside.ctx)
    }
}
