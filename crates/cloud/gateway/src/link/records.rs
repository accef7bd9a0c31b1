//! Records of the session in the words of the store.

use aos_db::{LinkKey, LinkRecord};
use aos_session::{Priority, Record, RecordKey};

pub(super) fn record_of(record: LinkRecord) -> Record {
    match record {
        LinkRecord::Outgoing {
            seq,
            txn,
            priority,
            topic,
            payload,
        } => Record::Outgoing(aos_session::Outgoing {
            seq,
            txn,
            priority: Priority::from_number(priority),
            topic,
            payload,
        }),
        LinkRecord::Seen { seq, txn } => Record::Seen { seq, txn },
    }
}

/// Nothing for the count of dropped messages: the timeline has them.
pub(super) fn link_record(record: Record) -> Option<LinkRecord> {
    Some(match record {
        Record::Outgoing(message) => LinkRecord::Outgoing {
            seq: message.seq,
            txn: message.txn,
            priority: message.priority.as_number(),
            topic: message.topic,
            payload: message.payload,
        },
        Record::Seen { seq, txn } => LinkRecord::Seen { seq, txn },
        Record::Lost(_) => return None,
    })
}

pub(super) const fn link_key(key: RecordKey) -> Option<LinkKey> {
    match key {
        RecordKey::Outgoing(seq) => Some(LinkKey::Outgoing(seq)),
        RecordKey::Seen(seq) => Some(LinkKey::Seen(seq)),
        RecordKey::Lost => None,
    }
}
