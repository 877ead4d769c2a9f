//! What notifications send: one round trip per call. Time is the server's alone, and each call may be sent twice.

use super::in_snapshot;
use crate::catalogue::{TableInfo, list, quote};
use smartpulse_clients::notifications::Audience;

/// Users of an audience, at most `@P1`: its ids and role follow in parameters, then the id to begin after where there is one.
#[must_use]
pub fn users(audience: &Audience, after: bool) -> String {
    let (condition, next) = match audience {
        Audience::User(_) => ("Id = @P2", 3),
        Audience::Company(_) => ("CompanyId = @P2", 3),
        Audience::Role { company: None, .. } => ("[Role] = @P2", 3),
        Audience::Role { company: Some(_), .. } => ("[Role] = @P2 AND CompanyId = @P3", 4),
        Audience::Forecast(_) => ("CompanyId = (SELECT CompanyId FROM [dbo].[Forecasts] WHERE Id = @P2)", 3),
    };
    let from = if after { format!(" AND Id > @P{next}") } else { String::new() };
    format!(
        "SELECT TOP (@P1) Id, CompanyId, Email, DisplayName, [Role]\nFROM [dbo].[SysUser]\n\
         WHERE {condition}{from}\nORDER BY Id"
    )
}

/// The channels that `count` users have switched off.
#[must_use]
pub fn switched_off(count: usize) -> String {
    let users = list(1..=count, |number| format!("@P{number}"));
    format!("SELECT UserId, Channel\nFROM [dbo].[NotificationPreferences]\nWHERE Enabled = 0 AND UserId IN ({users})")
}

/// Switches the channel `@P2` of the user `@P1` on or off.
pub const SWITCH: &str = "\
BEGIN TRANSACTION;
INSERT INTO [dbo].[NotificationPreferences] (UserId, Channel, Enabled, UpdatedAt)
SELECT @P1, @P2, @P3, SYSUTCDATETIME()
WHERE NOT EXISTS (SELECT 1 FROM [dbo].[NotificationPreferences] WITH (UPDLOCK, HOLDLOCK)
    WHERE UserId = @P1 AND Channel = @P2);
UPDATE [dbo].[NotificationPreferences]
SET Enabled = @P3, UpdatedAt = SYSUTCDATETIME()
WHERE UserId = @P1 AND Channel = @P2 AND Enabled <> @P3;
COMMIT;";

/// How many parameters stand before the users of [`claim_quiet`].
pub const QUIET_PARAMS: usize = 4;

/// Opens the quiet period of `@P3` seconds and `@P4` milliseconds of the rule `@P1` for the event `@P2`, for those of `count`
/// users who are in none; a row for each whose period is this event's.
#[must_use]
pub fn claim_quiet(count: usize) -> String {
    let given = QUIET_PARAMS + 1..=QUIET_PARAMS + count;
    let users = list(given.clone(), |number| format!("@P{number}"));
    let values = list(given, |number| format!("(@P{number})"));
    format!(
        "DECLARE @now datetime2(3) = SYSUTCDATETIME();\n\
         DECLARE @until datetime2(3) = DATEADD(millisecond, @P4, DATEADD(second, @P3, @now));\n\
         BEGIN TRANSACTION;\n\
         INSERT INTO [dbo].[NotificationQuiet] (UserId, [Rule], LastEvent, QuietUntil)\n\
         SELECT DISTINCT u.Id, @P1, @P2, @until\n\
         FROM (VALUES {values}) AS u(Id)\n\
         WHERE NOT EXISTS (SELECT 1 FROM [dbo].[NotificationQuiet] AS q WITH (UPDLOCK, HOLDLOCK)\n\
         \x20   WHERE q.UserId = u.Id AND q.[Rule] = @P1);\n\
         UPDATE [dbo].[NotificationQuiet]\n\
         SET LastEvent = @P2, QuietUntil = @until\n\
         WHERE [Rule] = @P1 AND UserId IN ({users}) AND (LastEvent = @P2 OR QuietUntil <= @now);\n\
         COMMIT;\n\
         SELECT UserId\nFROM [dbo].[NotificationQuiet]\n\
         WHERE [Rule] = @P1 AND UserId IN ({users}) AND LastEvent = @P2;"
    )
}

/// The notifications of the user `@P1`, newest first: their number, then `@P3` of them behind the first `@P2`. It does what
/// `dbo.GetNotifications` does, of one moment where the database allows SNAPSHOT, and gives columns that were added, too.
#[must_use]
pub fn inbox(table: &TableInfo) -> String {
    let (columns, name) = (table.columns_sql(""), &table.sql_name);
    let body = format!(
        "SELECT COUNT_BIG(*) AS Total\nFROM {name}\nWHERE UserId = @P1;\n\
         SELECT {columns}\nFROM {name}\nWHERE UserId = @P1\nORDER BY CreatedAt DESC, Id\n\
         OFFSET @P2 ROWS FETCH NEXT @P3 ROWS ONLY;"
    );
    if table.snapshot_isolation { in_snapshot(&body) } else { body }
}

/// The notifications of the user `@P2` behind the time `@P3` and the id `@P4`, oldest first and then by id, at most `@P1`.
#[must_use]
pub fn inbox_after(table: &TableInfo) -> String {
    format!(
        "SELECT TOP (@P1) {}\nFROM {}\nWHERE UserId = @P2 AND CreatedAt >= @P3 AND (CreatedAt > @P3 OR Id > @P4)\nORDER BY CreatedAt, Id",
        table.columns_sql(""),
        table.sql_name
    )
}

/// How many notifications the user `@P1` has not read.
pub const UNREAD: &str =
    "SELECT COUNT_BIG(*) AS Unread FROM [dbo].[Notifications] WHERE UserId = @P1 AND ReadAt IS NULL";

/// Marks the notification `@P1` of the user `@P2` as read since now, unless it is since before; a row when there is one.
pub const MARK_READ: &str = "\
UPDATE [dbo].[Notifications]
SET ReadAt = COALESCE(ReadAt, SYSUTCDATETIME())
OUTPUT inserted.Id
WHERE Id = @P1 AND UserId = @P2";

/// Registers the device `@P1` for the user `@P2`, unless it is new to a user who has `@P7` others. The result says whether the
/// user had it, and how many.
pub const ADD_DEVICE: &str = "\
DECLARE @known int, @owned int;
BEGIN TRANSACTION;
SELECT @owned = COUNT(*) FROM [dbo].[SysUserDeviceInfo] WITH (UPDLOCK, HOLDLOCK) WHERE UserId = @P2;
SELECT @known = COUNT(*) FROM [dbo].[SysUserDeviceInfo] WITH (UPDLOCK, HOLDLOCK) WHERE Id = @P1 AND UserId = @P2;
INSERT INTO [dbo].[SysUserDeviceInfo] (Id, UserId, IntegrationType, Token, SubscriptionJson, OSVersion)
SELECT @P1, @P2, @P3, @P4, @P5, @P6
WHERE @owned < @P7
    AND NOT EXISTS (SELECT 1 FROM [dbo].[SysUserDeviceInfo] WITH (UPDLOCK, HOLDLOCK) WHERE Id = @P1);
UPDATE [dbo].[SysUserDeviceInfo]
SET UserId = @P2, IntegrationType = @P3, Token = @P4, SubscriptionJson = @P5, OSVersion = @P6
WHERE Id = @P1 AND (@known = 1 OR @owned < @P7);
COMMIT;
SELECT @known AS Known, @owned AS Owned;";

/// Removes the device `@P1` of the user `@P2`; a row when there was one.
pub const REMOVE_OWN_DEVICE: &str =
    "DELETE FROM [dbo].[SysUserDeviceInfo] OUTPUT deleted.Id WHERE Id = @P1 AND UserId = @P2";

/// Rows of the ledger, newest first: `@P2` behind the first `@P1`, with these columns as in the parameters from `@P3` on.
#[must_use]
pub fn deliveries(table: &TableInfo, columns: &[&str]) -> String {
    let conditions: Vec<String> =
        columns.iter().zip(3..).map(|(column, number)| format!("{} = @P{number}", quote(column))).collect();
    let filter = if conditions.is_empty() { String::new() } else { format!("\nWHERE {}", conditions.join(" AND ")) };
    format!(
        "SELECT {}\nFROM {}{filter}\nORDER BY CreatedAt DESC, Id\nOFFSET @P1 ROWS FETCH NEXT @P2 ROWS ONLY",
        table.columns_sql(""),
        table.sql_name
    )
}
