//! What a frame of the cloud is.

use std::time::Duration;

use aos_cloud_protocol::{Body, Caps, Decoded, decode};
use aos_types::SystemId;

/// A message of the cloud, once read.
#[derive(Debug)]
pub(super) enum Read {
    /// It can be dealt with.
    Message(Box<Decoded>),
    /// Nothing can be done with it; the text says why. It goes the same way as any other, so that it is answered, in its
    /// turn, and not for ever.
    Useless(String),
}

/// A frame as the session takes it.
#[derive(Debug)]
pub(super) enum Arrived {
    Ack(String),
    Nack {
        txn: String,
        retry_after: Duration,
    },
    Data {
        txn: String,
        read: Read,
    },
    /// It cannot even be answered.
    Nameless(String),
}

/// Reads a frame that came for `own`.
pub(super) fn arrived(frame: &[u8], own: &SystemId, caps: &Caps) -> Arrived {
    let decoded = match decode(frame, caps) {
        Ok(decoded) => decoded,
        Err(error) => {
            let why = super::discovery::chain(&error);
            return useless(error.txn.unwrap_or_default(), why);
        }
    };
    let header = &decoded.message.header;
    let txn = header.txn.clone();
    if header.system_id != *own {
        let why = format!("it is for Unit `{}`, not for this one", header.system_id);
        return useless(txn, why);
    }
    match &decoded.message.body {
        Body::Ack => Arrived::Ack(txn),
        Body::Nack(nack) => Arrived::Nack {
            txn,
            retry_after: Duration::from_millis(nack.retry_after_ms),
        },
        body if !body.message_type().is_from_cloud() => {
            let kind = body.message_type().as_str();
            useless(txn, format!("only a Unit sends messages of type `{kind}`"))
        }
        _ => Arrived::Data {
            txn,
            read: Read::Message(Box::new(decoded)),
        },
    }
}

fn useless(txn: String, why: String) -> Arrived {
    if txn.is_empty() {
        Arrived::Nameless(why)
    } else {
        Arrived::Data {
            txn,
            read: Read::Useless(why),
        }
    }
}
