//! When Units may be updated: what is said for each and for its model.

use aos_api::{
    ChangeAction, ChangeTopic, TimelineKind, UnitUpdateSchedules, UpdateSchedule, UpdateSchedules,
};
use sqlx::{Any, Executor, any::AnyRow};
use uuid::Uuid;

use crate::{
    Actor, Db, DbError, Happening,
    columns::{Columns, to_json},
    error::Doing,
};

fn pair(row: &AnyRow, sota: &'static str, fota: &'static str) -> Result<UpdateSchedules, DbError> {
    Ok(UpdateSchedules {
        sota: row.json_or_null(sota)?,
        fota: row.json_or_null(fota)?,
    })
}

/// What is said for a Unit and its model.
pub(crate) async fn schedules<'c>(
    on: impl Executor<'c, Database = Any>,
    unit: Uuid,
) -> Result<UnitUpdateSchedules, DbError> {
    let row = sqlx::query(
        "SELECT units.sota_schedule, units.fota_schedule, unit_models.sota_schedule AS model_sota,
         unit_models.fota_schedule AS model_fota FROM units
         LEFT JOIN unit_models ON unit_models.id = units.unit_model_id WHERE units.id = $1",
    )
    .bind(unit.to_string())
    .fetch_one(on)
    .await
    .doing("read update schedules")?;
    let own = pair(&row, "sota_schedule", "fota_schedule")?;
    let of_model = pair(&row, "model_sota", "model_fota")?;
    let in_force = UpdateSchedules {
        sota: own.sota.clone().or_else(|| of_model.sota.clone()),
        fota: own.fota.clone().or_else(|| of_model.fota.clone()),
    };
    Ok(UnitUpdateSchedules {
        own,
        of_model,
        in_force,
    })
}

fn text(schedule: Option<&UpdateSchedule>) -> Result<Option<String>, DbError> {
    schedule
        .map(|schedule| to_json("update schedule", schedule))
        .transpose()
}

impl Db {
    /// When a Unit may be updated.
    pub async fn unit_schedules(
        &self,
        actor: &Actor,
        unit: &str,
    ) -> Result<UnitUpdateSchedules, DbError> {
        let id = self.find_unit(actor, unit).await?;
        schedules(self.readers(), id).await
    }

    /// Says when a Unit may be updated; checked by the caller (`UpdateSchedules::check`).
    pub async fn set_unit_schedules(
        &self,
        actor: &Actor,
        unit: &str,
        new: &UpdateSchedules,
    ) -> Result<UnitUpdateSchedules, DbError> {
        let id = self.find_unit(actor, unit).await?;
        let mut tx = self.begin().await?;
        sqlx::query("UPDATE units SET sota_schedule = $2, fota_schedule = $3 WHERE id = $1")
            .bind(id.to_string())
            .bind(text(new.sota.as_ref())?)
            .bind(text(new.fota.as_ref())?)
            .execute(tx.on())
            .await
            .doing("store update schedules")?;
        let words = describe(new);
        tx.happened(
            id,
            &[Happening::info(
                TimelineKind::Schedule,
                format!("{} set when it may be updated: {words}", actor.name()),
            )],
        )
        .await?;
        tx.announce(actor.tenant(), ChangeTopic::Unit, ChangeAction::Desired, id);
        tx.audit(actor, "unit.schedule", format!("unit:{id}"), words)
            .await?;
        tx.commit().await?;
        schedules(self.readers(), id).await
    }

    /// When Units of a model may be updated, as far as they say nothing of their own.
    pub async fn model_schedules(
        &self,
        actor: &Actor,
        model: Uuid,
    ) -> Result<UpdateSchedules, DbError> {
        let row = sqlx::query(
            "SELECT sota_schedule, fota_schedule FROM unit_models WHERE tenant_id = $1 AND id = $2",
        )
        .bind(actor.tenant_text())
        .bind(model.to_string())
        .fetch_optional(self.readers())
        .await
        .doing("read update schedules")?
        .ok_or_else(|| DbError::not_found("unit model", model))?;
        pair(&row, "sota_schedule", "fota_schedule")
    }

    /// Says when Units of a model may be updated; checked by the caller (`UpdateSchedules::check`).
    pub async fn set_model_schedules(
        &self,
        actor: &Actor,
        model: Uuid,
        new: &UpdateSchedules,
    ) -> Result<UpdateSchedules, DbError> {
        self.unit_model(actor, model).await?;
        let mut tx = self.begin().await?;
        sqlx::query("UPDATE unit_models SET sota_schedule = $2, fota_schedule = $3 WHERE id = $1")
            .bind(model.to_string())
            .bind(text(new.sota.as_ref())?)
            .bind(text(new.fota.as_ref())?)
            .execute(tx.on())
            .await
            .doing("store update schedules")?;
        let words = describe(new);
        for row in sqlx::query("SELECT id FROM units WHERE unit_model_id = $1")
            .bind(model.to_string())
            .fetch_all(tx.on())
            .await
            .doing("read the Units of a model")?
        {
            let unit = row.uuid("id")?;
            tx.happened(
                unit,
                &[Happening::info(
                    TimelineKind::Schedule,
                    format!(
                        "{} set when Units of its model may be updated: {words}",
                        actor.name()
                    ),
                )],
            )
            .await?;
            tx.announce(
                actor.tenant(),
                ChangeTopic::Unit,
                ChangeAction::Desired,
                unit,
            );
        }
        tx.announce(
            actor.tenant(),
            ChangeTopic::UnitModel,
            ChangeAction::Updated,
            model,
        );
        tx.audit(
            actor,
            "unit_model.schedule",
            format!("unit-model:{model}"),
            words,
        )
        .await?;
        tx.commit().await?;
        self.model_schedules(actor, model).await
    }
}

fn describe(schedules: &UpdateSchedules) -> String {
    let one = |schedule: Option<&UpdateSchedule>| match schedule {
        None => "nothing said".to_owned(),
        Some(schedule) => match schedule.schedule_type {
            aos_api::ScheduleType::Force => "at once".to_owned(),
            aos_api::ScheduleType::Trigger => "when told on the Unit".to_owned(),
            aos_api::ScheduleType::Timetable => {
                format!("by a timetable of {} days", schedule.timetable.len())
            }
        },
    };
    format!(
        "software {}, firmware {}",
        one(schedules.sota.as_ref()),
        one(schedules.fota.as_ref())
    )
}
