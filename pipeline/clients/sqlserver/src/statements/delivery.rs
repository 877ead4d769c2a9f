//! What devices and the mail queue send: one round trip per call. Time is the server's alone.

/// The devices of the user `@P1`.
pub const DEVICES: &str = "EXEC dbo.GetUserDevices @UserId = @P1";

/// Removes the device `@P1`; a row when it was there.
pub const REMOVE_DEVICE: &str = "DELETE FROM [dbo].[SysUserDeviceInfo] OUTPUT deleted.Id WHERE Id = @P1";

/// Claims the oldest `@P1` mails that are due for `@P2` milliseconds. Rows that another sender is claiming are passed over.
pub const CLAIM_MAILS: &str = "\
UPDATE [dbo].[NheaMailQueue]
SET Status = N'Sending', Attempts = Attempts + 1, NotBefore = DATEADD(millisecond, @P2, SYSUTCDATETIME())
OUTPUT inserted.Id, inserted.ToAddress, inserted.Subject, inserted.BodyHtml, inserted.BodyText, inserted.Attachments,
    inserted.Attempts, inserted.UnsubscribeUrl
WHERE Id IN (
    SELECT TOP (@P1) Id
    FROM [dbo].[NheaMailQueue] WITH (UPDLOCK, READPAST, ROWLOCK)
    WHERE Status IN (N'Queued', N'Sending') AND (NotBefore IS NULL OR NotBefore <= SYSUTCDATETIME())
    ORDER BY CreatedAt, Id)";

/// How many parameters one settlement takes.
pub const SETTLE_PARAMS: usize = 6;

/// Ends `count` claims in one transaction. Of each: the mail, its `Attempts`, the new `Status`, the error, the wait in
/// milliseconds and the step of `Attempts`. The result is how many of them still held.
#[must_use]
pub fn settle_mails(count: usize) -> String {
    let mut sql = String::from("DECLARE @held int = 0;\nBEGIN TRANSACTION;\n");
    for number in 0..count {
        let first = number * SETTLE_PARAMS + 1;
        let [id, attempts, status, error, wait, step] = std::array::from_fn(|place| first + place);
        sql.push_str(&format!(
            "UPDATE [dbo].[NheaMailQueue]\n\
             SET Status = @P{status}, LastError = COALESCE(@P{error}, LastError), Attempts = Attempts + @P{step},\n\
             \x20   NotBefore = DATEADD(millisecond, @P{wait}, SYSUTCDATETIME()),\n\
             \x20   SentAt = CASE WHEN @P{status} = N'Sent' THEN SYSUTCDATETIME() ELSE NULL END\n\
             WHERE Id = @P{id} AND Attempts = @P{attempts} AND Status = N'Sending';\n\
             SET @held = @held + @@ROWCOUNT;\n"
        ));
    }
    sql.push_str("COMMIT;\nSELECT @held AS Held;");
    sql
}
