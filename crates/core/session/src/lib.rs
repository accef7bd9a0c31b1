//! A conversation that loses nothing: acknowledgements, the outbox, retransmission and reconnecting.
//!
//! Both ends of the link between a Unit and the cloud run the same machine, [`Session`]: CM as the one that calls, the
//! cloud's gateway as the one that is called. It decides what is sent when; it owns no socket, no clock and no disk. The
//! shell around it passes in what happened ([`Input`]) with the time, and carries out what comes back ([`Output`]), in
//! the order it comes: a [`Output::Persist`] must be on the disk before the next [`Output::Transmit`] leaves.
//!
//! ```text
//!              Start                 Connected
//!   (calling) ──────► Connecting ─────────────────► Online ──┐ ack, nack, ack wait over, ping, pong
//!                      ▲   │ ConnectFailed             │  ▲──┘
//!        back-off over │   ▼                           │ Disconnected, or nothing heard for too long
//!                     Waiting ◄────────────────────────┘
//!
//!   one outgoing message:  Queued ─► InFlight ─ack─► forgotten
//!                            ▲          │ nack: again after retryAfter
//!                            └──────────┘ no ack: again, same txn and bytes, waiting twice as long each time
//!
//!   one incoming message:  Received ─► Deliver ─ Handled(Accept) ─► Persist(Seen) ─► ack
//!                             │ seen before ─► ack                └ Handled(Refuse) ─► nack
//! ```
//!
//! Exactly once: the shell writes the records that follow its `Handled` in the same transaction as whatever the message
//! made it store. Then a power cut leaves both or neither, and a message that comes again is only acknowledged.
//!
//! Order: messages of one [`Priority`] leave in the order they were given; one that must be repeated does not hold back
//! those behind it. Incoming messages are delivered one at a time in the order they arrived.

mod config;
mod inbox;
mod io;
mod link;
mod outbox;
mod session;

pub use config::{Config, Reconnect};
pub use io::{
    Dropped, Frame, Gone, Handled, Input, Keep, Message, Outgoing, Output, Payload, Priority,
    Record, RecordKey, Txn,
};
pub use session::{Session, Stats};
