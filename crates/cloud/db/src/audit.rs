use aos_api::{AuditEntry, ListQuery, Page};

use crate::{Actor, Db, DbError, columns::Columns, error::Doing, like, listing::page};

impl Db {
    /// Who changed what in the actor's organisation, newest first.
    pub async fn audit(
        &self,
        actor: &Actor,
        query: &ListQuery,
    ) -> Result<Page<AuditEntry>, DbError> {
        let search = like(query.search.as_deref());
        let total = sqlx::query(
            "SELECT COUNT(*) AS total FROM audit WHERE tenant_id = $1
             AND (LOWER(actor) LIKE $2 ESCAPE '!' OR LOWER(action) LIKE $2 ESCAPE '!' OR LOWER(target) LIKE $2 ESCAPE '!'
                  OR LOWER(detail) LIKE $2 ESCAPE '!')",
        )
        .bind(actor.tenant_text())
        .bind(search.clone())
        .fetch_one(self.readers())
        .await
        .doing("count the audit")?
        .count("total")?;
        let rows = sqlx::query(
            "SELECT id, at, actor, action, target, detail FROM audit WHERE tenant_id = $1
             AND (LOWER(actor) LIKE $2 ESCAPE '!' OR LOWER(action) LIKE $2 ESCAPE '!' OR LOWER(target) LIKE $2 ESCAPE '!'
                  OR LOWER(detail) LIKE $2 ESCAPE '!')
             ORDER BY id DESC LIMIT $3 OFFSET $4",
        )
        .bind(actor.tenant_text())
        .bind(search)
        .bind(i64::from(query.limit()))
        .bind(i64::from(query.offset()))
        .fetch_all(self.readers())
        .await
        .doing("read the audit")?;
        page(&rows, total, query, |row| {
            Ok(AuditEntry {
                id: row.int("id")?,
                at: row.time("at")?,
                actor: row.text("actor")?,
                action: row.text("action")?,
                target: row.text("target")?,
                detail: row.text("detail")?,
            })
        })
    }
}
