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

pub(super) fn link_record(record: Record) -> LinkRecord {
    match record {
        Record::Outgoing(message) => LinkRecord::Outgoing {
            seq: message.seq,
            txn: message.txn,
            priority: message.priority.as_number(),
            topic: message.topic,
            payload: message.payload,
        },
        Record::Seen { seq, txn } => LinkRecord::Seen { seq, txn },
    }
}

pub(super) const fn link_key(key: RecordKey) -> LinkKey {
    match key {
        RecordKey::Outgoing(seq) => LinkKey::Outgoing(seq),
        RecordKey::Seen(seq) => LinkKey::Seen(seq),
    }
}
