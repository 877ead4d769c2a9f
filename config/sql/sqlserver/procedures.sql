-- The procedures of notifications.

CREATE OR ALTER PROCEDURE dbo.InsertNotification
    @Id uniqueidentifier, @UserId uniqueidentifier, @Title nvarchar(200), @Body nvarchar(4000), @Type nvarchar(64),
    @CreatedAt datetime2(3) = NULL
AS
BEGIN
    SET NOCOUNT ON;
    INSERT INTO dbo.Notifications (Id, UserId, Title, Body, Type, ReadAt, CreatedAt)
        SELECT @Id, @UserId, @Title, @Body, @Type, NULL, COALESCE(@CreatedAt, SYSUTCDATETIME())
        WHERE NOT EXISTS (SELECT 1 FROM dbo.Notifications WITH (UPDLOCK, HOLDLOCK) WHERE Id = @Id);
    SELECT @@ROWCOUNT AS Inserted;
END;
GO
CREATE OR ALTER PROCEDURE dbo.GetNotifications
    @UserId uniqueidentifier, @Skip int, @Take int
AS
BEGIN
    SET NOCOUNT ON;
    SELECT COUNT_BIG(*) AS Total FROM dbo.Notifications WHERE UserId = @UserId;
    SELECT Id, UserId, Title, Body, Type, ReadAt, CreatedAt
        FROM dbo.Notifications
        WHERE UserId = @UserId
        ORDER BY CreatedAt DESC, Id
        OFFSET @Skip ROWS FETCH NEXT @Take ROWS ONLY;
END;
GO
CREATE OR ALTER PROCEDURE dbo.GetUserDevices
    @UserId uniqueidentifier
AS
BEGIN
    SET NOCOUNT ON;
    SELECT Id, UserId, IntegrationType, Token, SubscriptionJson, OSVersion
        FROM dbo.SysUserDeviceInfo
        WHERE UserId = @UserId
        ORDER BY Id;
END;
