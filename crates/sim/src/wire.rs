//! What lies between the Unit and its cloud: connections that break, messages that get lost, doubled, late or damaged.

use std::time::Duration;

use aos_session::Frame;
use aos_time::Timestamp;

use crate::{
    coverage::Fault,
    draw::{MIN, SEC},
    event::{Event, Over},
    world::{Message, World},
};

#[derive(Debug)]
pub(crate) struct Wire {
    /// Whether the Unit can reach the cloud at all.
    pub(crate) up: bool,
    /// The newest connection.
    pub(crate) conn: u64,
    /// It is open in the middle; each end finds out by itself.
    pub(crate) open: bool,
    /// When the last message of each direction arrives: the next does not overtake it.
    last: [Timestamp; 2],
}

impl Default for Wire {
    fn default() -> Self {
        Self {
            up: true,
            conn: 0,
            open: false,
            last: [Timestamp::EPOCH; 2],
        }
    }
}

impl World {
    pub(crate) fn link_goes_down(&mut self, span: Duration) {
        self.note(|_| format!("the link to the cloud is down for {span:?}"));
        self.wire.up = false;
        // Nobody says goodbye: both ends notice by the silence.
        self.wire.open = false;
        self.after(span, Event::Over(Over::Link));
    }

    pub(crate) fn link_comes_up(&mut self) {
        self.wire.up = true;
    }

    /// Both ends are told.
    pub(crate) fn connection_breaks(&mut self) {
        self.note(|_| "the connection to the cloud breaks".into());
        self.wire.open = false;
        self.unit_hears_the_end();
        self.cloud_hears_the_end();
    }

    /// The Unit tries; what comes of it is known later.
    pub(crate) fn unit_dials(&mut self) {
        let after = self.dice.time(Duration::from_millis(20), 3 * SEC);
        let life = self.cm.life;
        self.after(after, Event::Dialled { life });
    }

    pub(crate) fn dialled(&mut self, life: u32) {
        if life != self.cm.life {
            return;
        }
        let refused = self.wire.up && self.unlucky(20, Fault::DialRefused);
        if !self.wire.up || !self.cloud.up || refused {
            let wait = refused.then_some(2 * MIN);
            self.unit_input(aos_session::Input::ConnectFailed { wait });
            return;
        }
        self.wire.conn += 1;
        self.wire.open = true;
        self.wire.last = [self.now; 2];
        self.note(|world| format!("connection {} to the cloud", world.wire.conn));
        self.cloud_input(aos_session::Input::Connected);
        self.unit_is_connected();
    }

    /// Takes a frame of one end on its way.
    pub(crate) fn carry(&mut self, to_unit: bool, conn: u64, frame: Frame) {
        if !self.wire.open || conn != self.wire.conn {
            return;
        }
        let rates = &self.scene.rates;
        let (lost, twice, late, corrupt) = (
            rates.frame_lost,
            rates.frame_twice,
            rates.frame_late,
            rates.frame_corrupt,
        );
        if self.unlucky(lost, Fault::FrameLost) {
            self.note(|_| format!("LOST {} {frame:?}", way(to_unit)));
            return;
        }
        let latency = self
            .dice
            .time(Duration::from_millis(2), Duration::from_millis(300));
        let mut at = (self.now + latency).max(self.wire.last[usize::from(to_unit)]);
        // One stream keeps its order. Desired states and statuses rely on it: the later one counts. All else must do
        // without.
        let ordered = match &frame {
            Frame::Message { payload, .. } => matches!(
                self.messages.get(decode(payload) as usize),
                Some(Message::Desired(_) | Message::Status(_))
            ),
            _ => false,
        };
        if !ordered && self.unlucky(late, Fault::FrameLate) {
            at = at + self.dice.scale(SEC, 2 * MIN);
        } else {
            self.wire.last[usize::from(to_unit)] = at;
        }
        let corrupt = self.unlucky(corrupt, Fault::FrameCorrupt);
        if self.unlucky(twice, Fault::FrameTwice) {
            let later = self.dice.scale(Duration::from_millis(1), MIN);
            let again = if ordered { at } else { at + later };
            self.queue.plan(
                again,
                Event::Packet {
                    to_unit,
                    conn,
                    frame: frame.clone(),
                    corrupt: false,
                },
            );
        }
        self.queue.plan(
            at,
            Event::Packet {
                to_unit,
                conn,
                frame,
                corrupt,
            },
        );
    }

    pub(crate) fn packet_arrives(&mut self, to_unit: bool, conn: u64, frame: Frame, corrupt: bool) {
        if conn != self.wire.conn || !self.wire.open {
            return;
        }
        self.note(|world| {
            let what = match &frame {
                Frame::Message { txn, payload } => {
                    let message = world.messages.get(decode(payload) as usize);
                    format!("{txn} {message:?}")
                }
                other => format!("{other:?}"),
            };
            let damaged = if corrupt { " (damaged)" } else { "" };
            format!("{} {what}{damaged}", way(to_unit))
        });
        let input = match frame {
            Frame::Ping => {
                // The socket answers by itself.
                self.pong(to_unit);
                aos_session::Input::Heard
            }
            _ if corrupt => {
                // It cannot be read: nothing in it can be believed, its txn neither.
                aos_session::Input::Heard
            }
            Frame::Message { txn, payload } => aos_session::Input::Received {
                txn,
                message: decode(&payload),
                bytes: 1000,
            },
            Frame::Ack { txn } => aos_session::Input::Acked { txn },
            Frame::Nack { txn, retry_after } => aos_session::Input::Nacked { txn, retry_after },
        };
        if to_unit {
            if self.cm.run.is_some() {
                self.unit_input(input);
            }
        } else if self.cloud.up {
            self.cloud_input(input);
        }
    }

    /// The answer to a ping, without what may befall messages: it only proves that somebody is there.
    fn pong(&mut self, by_unit: bool) {
        if by_unit && self.cm.run.is_some() {
            self.cloud_input(aos_session::Input::Heard);
        } else if !by_unit && self.cloud.up {
            self.unit_input(aos_session::Input::Heard);
        }
    }
}

fn way(to_unit: bool) -> &'static str {
    if to_unit {
        "cloud -> unit"
    } else {
        "unit -> cloud"
    }
}

/// A message's payload is its number in the table of all messages.
pub(crate) fn encode(message: u32) -> aos_session::Payload {
    message.to_le_bytes().as_slice().into()
}

pub(crate) fn decode(payload: &[u8]) -> u32 {
    payload.try_into().map_or(u32::MAX, u32::from_le_bytes)
}
