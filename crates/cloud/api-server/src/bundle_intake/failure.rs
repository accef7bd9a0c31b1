use aos_api::BundleStage;
use aos_bundle::OpenError;
use aos_image::unpack;

use crate::ApiError;

/// Why a stage failed, for people.
pub(super) struct Failure {
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl Failure {
    pub(super) fn new(message: impl Into<String>, hint: &str) -> Self {
        Self {
            message: message.into(),
            hint: Some(hint.to_owned()),
        }
    }

    pub(super) fn of(error: &(dyn std::error::Error + 'static), hint: &str) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            text.push_str(": ");
            text.push_str(&inner.to_string());
            cause = inner.source();
        }
        Self::new(text, hint)
    }
}

/// Which stage an error of opening belongs to, and what to do about it.
pub(super) fn place_of(error: &OpenError) -> (BundleStage, &'static str) {
    match error {
        OpenError::Config(_) | OpenError::ConfigDiffers => (
            BundleStage::Read,
            "mend config.yaml (`aos bundle check` finds the same), then sign and upload it again",
        ),
        OpenError::Io { .. }
        | OpenError::Archive {
            source: unpack::Error::Io { .. },
            ..
        } => (BundleStage::Verify, "the cloud's disk is at fault"),
        OpenError::TooLong { .. }
        | OpenError::Archive {
            source: unpack::Error::TooMuch { .. },
            ..
        } => (BundleStage::Verify, "make it smaller, then sign it again"),
        OpenError::Archive { .. } => (
            BundleStage::Verify,
            "upload the file that `aos bundle sign` wrote: a gzip-compressed tar archive, whole and unchanged",
        ),
        _ => (
            BundleStage::Verify,
            "sign it with `aos bundle sign` and a certificate of this cloud (`aos login`)",
        ),
    }
}

/// A refusal of the store as a failure; a fault of the cloud stays an error.
pub(super) fn refusal(error: ApiError) -> Result<Failure, ApiError> {
    if error.status().is_server_error() {
        return Err(error);
    }
    Ok(Failure {
        message: error.body().message.clone(),
        hint: error.body().hint.clone(),
    })
}
