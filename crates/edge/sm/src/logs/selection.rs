use aos_ipc::proto::common::v2::InstanceFilter;
use aos_types::InstanceIdent;

/// Which instances are meant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Selection {
    item: Option<String>,
    subject: Option<String>,
    index: Option<u64>,
}

impl Selection {
    /// What is empty, and an index below 0, means any.
    pub(crate) fn read(filter: Option<InstanceFilter>) -> Self {
        let filter = filter.unwrap_or(InstanceFilter {
            instance: -1,
            ..InstanceFilter::default()
        });
        let some = |text: String| Some(text).filter(|text| !text.is_empty());
        Self {
            item: some(filter.item_id),
            subject: some(filter.subject_id),
            index: u64::try_from(filter.instance).ok(),
        }
    }

    pub(crate) fn takes(&self, ident: &InstanceIdent) -> bool {
        self.item
            .as_deref()
            .is_none_or(|id| id == ident.item.as_str())
            && self
                .subject
                .as_deref()
                .is_none_or(|id| id == ident.subject.as_str())
            && self.index.is_none_or(|index| index == ident.index)
    }
}

impl std::fmt::Display for Selection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let any = |text: &Option<String>| text.clone().unwrap_or_else(|| "*".into());
        let index = self.index.map(|index| index.to_string());
        write!(
            f,
            "{}:{}:{}",
            any(&self.item),
            any(&self.subject),
            any(&index)
        )
    }
}
