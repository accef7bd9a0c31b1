//! Pages of lists.

use aos_api::{ListQuery, Page};
use sqlx::any::AnyRow;

use crate::DbError;

/// The page that `query` asked for, from the rows that were read for it.
pub(crate) fn page<T>(
    rows: &[AnyRow],
    total: u64,
    query: &ListQuery,
    read: impl FnMut(&AnyRow) -> Result<T, DbError>,
) -> Result<Page<T>, DbError> {
    Ok(Page {
        items: rows.iter().map(read).collect::<Result<_, _>>()?,
        total,
        offset: query.offset().into(),
    })
}

/// A list that is never cut into pages.
pub(crate) fn whole<T>(items: Vec<T>) -> Page<T> {
    Page {
        total: items.len() as u64,
        items,
        offset: 0,
    }
}
