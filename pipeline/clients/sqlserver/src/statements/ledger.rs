//! What the ledger of captured tables sends: one round trip per call, each of which may be sent twice.
//!
//! Time is the server's alone. `@P1` is always the id.

/// Takes the lease for `@P2` and `@P3` milliseconds unless somebody else has it. The first result has the new epoch and the
/// position when it was taken; the second says who has it, and for how many milliseconds.
///
/// An epoch is at least the seconds since 2024, so that it rises also after an older copy of the ledger came back.
pub const TAKE: &str = "\
DECLARE @now datetime2(3) = SYSUTCDATETIME();
DECLARE @floor bigint = DATEDIFF_BIG(second, CAST('2024-01-01T00:00:00' AS datetime2(3)), @now);
INSERT INTO [dbo].[SmartPulseCapture] (Id, Epoch, Holder, LeaseUntil, Position, SnapshotRequest, UpdatedAt)
SELECT @P1, 0, NULL, @now, NULL, NULL, @now
WHERE NOT EXISTS (SELECT 1 FROM [dbo].[SmartPulseCapture] WITH (UPDLOCK, HOLDLOCK) WHERE Id = @P1);
UPDATE [dbo].[SmartPulseCapture]
SET Epoch = CASE WHEN Epoch + 1 > @floor THEN Epoch + 1 ELSE @floor END,
    Holder = @P2, LeaseUntil = DATEADD(millisecond, @P3, @now), UpdatedAt = @now
OUTPUT inserted.Epoch, inserted.Position
WHERE Id = @P1 AND (Holder IS NULL OR Holder = @P2 OR LeaseUntil <= @now);
SELECT Holder, DATEDIFF_BIG(millisecond, @now, LeaseUntil) AS Remaining
FROM [dbo].[SmartPulseCapture]
WHERE Id = @P1;";

/// Holds on to the lease of epoch `@P2` for `@P3` milliseconds, with position `@P4` where it is not NULL; a row with the request
/// for a snapshot when it is still ours.
pub const RENEW: &str = "\
DECLARE @now datetime2(3) = SYSUTCDATETIME();
UPDATE [dbo].[SmartPulseCapture]
SET LeaseUntil = DATEADD(millisecond, @P3, @now), Position = COALESCE(@P4, Position), UpdatedAt = @now
OUTPUT inserted.SnapshotRequest
WHERE Id = @P1 AND Epoch = @P2 AND Holder IS NOT NULL;";

/// Gives the lease of epoch `@P2` back.
pub const RELEASE: &str = "\
UPDATE [dbo].[SmartPulseCapture]
SET Holder = NULL, LeaseUntil = SYSUTCDATETIME(), UpdatedAt = SYSUTCDATETIME()
WHERE Id = @P1 AND Epoch = @P2 AND Holder IS NOT NULL;";

/// Notes the request `@P2` for a snapshot; a row when the id is known.
pub const REQUEST: &str = "\
UPDATE [dbo].[SmartPulseCapture]
SET SnapshotRequest = @P2
OUTPUT inserted.Id
WHERE Id = @P1;";

/// Forgets the request `@P2`.
pub const FORGET: &str = "\
UPDATE [dbo].[SmartPulseCapture]
SET SnapshotRequest = NULL
WHERE Id = @P1 AND SnapshotRequest = @P2;";

/// Forgets the positions of the id and of those that begin with `@P2`; a row for each.
pub const RESET: &str = "\
UPDATE [dbo].[SmartPulseCapture]
SET Position = NULL, UpdatedAt = SYSUTCDATETIME()
OUTPUT inserted.Id
WHERE Position IS NOT NULL AND (Id = @P1 OR LEFT(Id, LEN(@P2)) = @P2);";

/// All rows, with the holder where the lease has not run out.
pub const ENTRIES: &str = "\
SELECT Id, Epoch, CASE WHEN LeaseUntil > SYSUTCDATETIME() THEN Holder ELSE NULL END AS Holder, Position, UpdatedAt
FROM [dbo].[SmartPulseCapture]
ORDER BY Id;";
