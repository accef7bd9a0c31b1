use std::time::Duration;

use aos_time::Timestamp;

/// Reads a protobuf timestamp; microseconds are kept.
pub fn time_from_proto(time: Option<prost_types::Timestamp>) -> Option<Timestamp> {
    time.map(|t| {
        let micros = t
            .seconds
            .saturating_mul(1_000_000)
            .saturating_add(i64::from(t.nanos) / 1_000);
        Timestamp::from_micros(micros)
    })
}

/// Writes a protobuf timestamp.
pub fn time_to_proto(time: Timestamp) -> prost_types::Timestamp {
    let micros = time.as_micros();
    let nanos = micros.rem_euclid(1_000_000) * 1_000;
    prost_types::Timestamp {
        seconds: micros.div_euclid(1_000_000),
        nanos: i32::try_from(nanos).unwrap_or(0),
    }
}

/// Reads a protobuf duration; none or a negative one is zero.
pub fn duration_from_proto(span: Option<prost_types::Duration>) -> Duration {
    span.and_then(|span| Duration::try_from(span).ok())
        .unwrap_or_default()
}

/// Writes a protobuf duration.
pub fn duration_to_proto(span: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(span.subsec_nanos()).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn microseconds_survive_the_wire_also_before_the_epoch() {
        for micros in [0, 1, 1_999_999, -1, -1_500_000] {
            let time = Timestamp::from_micros(micros);
            assert_eq!(time_from_proto(Some(time_to_proto(time))), Some(time));
        }
    }
}
