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
//!   one incoming message:  Received ─► Deliver ─ Handled(Accept) ──► Persist(Seen) ─► ack
//!                             │  │ seen before ─► ack   ├ Handled(Refuse) ──► nack, and all that follows it until it is back
//!                             │                         └ Handled(Useless) ─► nack the first time, taken as handled the second
//!                             └ inbox full ─► nack, and all that follows it until it is back
//! ```
//!
//! Exactly once: the shell writes the records that follow its `Handled` in the same transaction as whatever the message
//! made it store. Then a power cut leaves both or neither, and a message that comes again is only acknowledged. That
//! holds whatever is lost, repeated or reordered on the way.
//!
//! Order: messages of one [`Priority`] leave in the order they were given, on each connection anew; one that must be
//! repeated does not hold back those behind it. Incoming messages are delivered one at a time in the order in which they
//! first arrived: if one is refused, those behind it are refused too until it is back. The protocol has no sequence
//! numbers, so this holds for what a WebSocket can do to messages (cut them off at any moment), not for a line that loses
//! single ones from the middle.
//!
//! Bounds: the outbox keeps [`Config::max_messages`] and [`Config::max_bytes`]. When it is full the oldest message of the
//! lowest priority goes, never one that matters more than the new one. What was dropped is counted ([`Lost`]), the count
//! is durable, and the peer is told ([`Output::Report`]).

mod config;
mod inbox;
mod io;
mod link;
mod outbox;
pub mod policy;
mod session;

pub use config::{Config, Reconnect};
pub use io::{
    Dropped, Frame, Gone, Handled, Input, Keep, Lost, Message, Outgoing, Output, Payload, Priority,
    Record, RecordKey, Txn,
};
pub use session::{Session, Stats};
