//! Stands in for components while they are being written.
macro_rules! part {
    ($name:ident, $title:literal) => {
        pub mod $name {
            #[derive(serde::Deserialize)]
            pub struct Options {}
            pub async fn run(
                _: Options,
                _: tokio_util::sync::CancellationToken,
            ) -> Result<(), std::io::Error> {
                Err(std::io::Error::other(concat!(
                    $title,
                    " is not part of this build yet"
                )))
            }
        }
    };
}
part!(aos_iam, "IAM");
part!(aos_cm, "CM");
