use aos_cloud_protocol::{Body, Caps, DecodeError, Decoded, Message, Unreadable, decode};
use uuid::Uuid;

/// What a Unit sent, once read.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// A message.
    Message {
        message: Box<Message>,
        unreadable: Vec<Unreadable>,
    },
    /// Something that cannot be used; it is reported and acknowledged, since repeating would not mend it.
    Useless(Box<DecodeError>),
}

/// A frame as the session takes it.
#[derive(Debug)]
pub(crate) enum Arrived {
    Ack(String),
    Nack {
        txn: String,
        retry_after_ms: u64,
    },
    Data {
        txn: String,
        incoming: Incoming,
    },
    /// It says it is of this other Unit.
    OfAnother(String),
}

/// Reads a frame on the link of `system_id`.
pub(crate) fn arrived(frame: &[u8], system_id: &aos_types::SystemId, caps: &Caps) -> Arrived {
    // A message without a txn cannot be answered in a way its sender understands, but must not look like a repetition.
    let or_new = |txn: Option<String>| {
        txn.filter(|txn| !txn.is_empty())
            .unwrap_or_else(|| Uuid::new_v4().to_string())
    };
    match decode(frame, caps) {
        Ok(Decoded {
            message,
            unreadable,
        }) => {
            if message.header.system_id != *system_id {
                return Arrived::OfAnother(message.header.system_id.to_string());
            }
            let txn = message.header.txn.clone();
            match message.body {
                Body::Ack => Arrived::Ack(txn),
                Body::Nack(nack) => Arrived::Nack {
                    txn,
                    retry_after_ms: nack.retry_after_ms,
                },
                _ => Arrived::Data {
                    txn: or_new(Some(txn)),
                    incoming: Incoming::Message {
                        message: Box::new(message),
                        unreadable,
                    },
                },
            }
        }
        Err(error) => match &error.system_id {
            Some(claimed) if claimed != system_id => Arrived::OfAnother(claimed.to_string()),
            _ => Arrived::Data {
                txn: or_new(error.txn.clone()),
                incoming: Incoming::Useless(Box::new(error)),
            },
        },
    }
}
