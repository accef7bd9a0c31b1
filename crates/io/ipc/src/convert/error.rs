use aos_types::ErrorInfo;

use crate::proto::common::v2 as pb;

/// The error a message carries, if it carries one: absent and all-zero both mean "no error".
pub fn error_from_proto(error: Option<pb::ErrorInfo>) -> Option<ErrorInfo> {
    error.and_then(|e| {
        ErrorInfo {
            aos_code: e.aos_code,
            exit_code: e.exit_code,
            message: e.message,
        }
        .into_option()
    })
}

/// An error for a message; `None` clears the field.
pub fn error_to_proto(error: Option<&ErrorInfo>) -> Option<pb::ErrorInfo> {
    error.map(|e| pb::ErrorInfo {
        aos_code: e.aos_code,
        exit_code: e.exit_code,
        message: e.message.clone(),
    })
}

/// An error for a status message of a stream, where "no error" is written as all zeros.
pub fn status_error_to_proto(error: Option<&ErrorInfo>) -> Option<pb::ErrorInfo> {
    Some(error_to_proto(error).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use aos_types::AosCode;

    use super::*;

    #[test]
    fn zeros_mean_no_error_and_an_errno_alone_is_one() {
        assert_eq!(error_from_proto(None), None);
        assert_eq!(error_from_proto(Some(pb::ErrorInfo::default())), None);
        let errno = pb::ErrorInfo {
            aos_code: 0,
            exit_code: 28,
            message: "disk full".into(),
        };
        assert_eq!(error_from_proto(Some(errno)).unwrap().exit_code, 28);
        let error = ErrorInfo::new(AosCode::NotFound, "no such node");
        assert_eq!(error_from_proto(error_to_proto(Some(&error))), Some(error));
    }
}
