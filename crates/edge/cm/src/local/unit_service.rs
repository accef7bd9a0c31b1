use aos_ipc::proto::aos::unit::v1 as pb;
use aos_types::InvalidId;
use tonic::{Request, Response, Status};

use super::{Local, chain::Question};

/// `aos.unit.v1` `UnitService`.
pub(super) struct Service {
    local: Local,
}

impl Service {
    pub(super) fn new(local: Local) -> Self {
        Self { local }
    }
}

#[tonic::async_trait]
impl pb::unit_service_server::UnitService for Service {
    async fn why(
        &self,
        request: Request<pb::WhyRequest>,
    ) -> Result<Response<pb::WhyResponse>, Status> {
        self.local.allow(&request)?;
        let asked = request.into_inner();
        let bad = |field: &'static str| {
            move |error: InvalidId| Status::invalid_argument(format!("{field}: {error}"))
        };
        let question = Question {
            item: asked
                .item_id
                .map(|id| id.parse())
                .transpose()
                .map_err(bad("item_id"))?,
            subject: asked
                .subject_id
                .map(|id| id.parse())
                .transpose()
                .map_err(bad("subject_id"))?,
            index: asked.instance,
        };
        Ok(Response::new(self.local.explainer()?.answer(&question)))
    }
}
