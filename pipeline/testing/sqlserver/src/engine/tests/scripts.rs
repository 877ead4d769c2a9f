//! The product's own scripts, verbatim.

use super::{Client, client, engine};

fn script(name: &str) -> String {
    let path = format!("{}/../../../config/sql/sqlserver/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Everything that the product installs.
fn install(client: &mut Client) {
    client.script(&script("schema.sql"));
    client.script(&script("database.sql"));
    for (table, section) in [("Forecasts", "forecast"), ("ProductionUnits", "unit")] {
        for name in ["versions.sql", "capture.sql"] {
            let text = script(name)
                .replace("{schema}", "dbo")
                .replace("{table}", table)
                .replace("{key}", "Id")
                .replace("{section}", section);
            client.script(&text);
        }
    }
    client.script(&script("procedures.sql"));
}

const UNIT: &str = "INSERT INTO dbo.ProductionUnits (Id, CompanyId, ProviderId, Name, Kind, CapacityMw) \
                    VALUES (@id, NEWID(), NEWID(), N'A', N'Wind', 5)";

#[test]
fn the_products_scripts_run_verbatim_and_run_again() {
    let engine = engine();
    let mut client = client(&engine);
    install(&mut client);
    install(&mut client);
    assert_eq!(client.one("SELECT COUNT(*) FROM sys.tables WHERE is_ms_shipped = 0 AND name LIKE N'Fore%'"), "2");
    assert_eq!(client.one("SELECT is_cdc_enabled FROM sys.databases WHERE database_id = DB_ID()"), "1");
    let captured = client.one("SELECT COUNT(*) FROM cdc.change_tables");
    assert_eq!(captured, "3", "forecasts, units and the watermark");
}

#[test]
fn versions_rise_by_one_whoever_writes() {
    let engine = engine();
    let mut client = client(&engine);
    install(&mut client);
    let id = "DECLARE @id uniqueidentifier = '3661d4e6-05d5-5993-a6bf-3ee0196d7164';";
    client.run(&format!("{id} {UNIT}"));
    client.run("UPDATE dbo.ProductionUnits SET CapacityMw = 6");
    assert_eq!(client.one("SELECT VersionId FROM dbo.ProductionUnits"), "2");
    client.run("UPDATE dbo.ProductionUnits SET CapacityMw = 7, VersionId = VersionId + 1");
    assert_eq!(client.one("SELECT VersionId FROM dbo.ProductionUnits"), "3");
    assert_eq!(client.error("UPDATE dbo.ProductionUnits SET VersionId = 9"), 50002);
    assert_eq!(client.error("UPDATE dbo.ProductionUnits SET Id = NEWID()"), 50001);
    client.run("DELETE FROM dbo.ProductionUnits");
    assert_eq!(client.one("SELECT Section, VersionId FROM dbo.Tombstones"), "unit|4");
    client.run(&format!("{id} {UNIT}"));
    assert_eq!(client.one("SELECT VersionId FROM dbo.ProductionUnits"), "5");
    assert_eq!(client.error("TRUNCATE TABLE dbo.ProductionUnits"), 4712);
}

#[test]
fn a_notification_is_inserted_once() {
    let engine = engine();
    let mut client = client(&engine);
    install(&mut client);
    let insert = "EXEC dbo.InsertNotification @Id = '3661d4e6-05d5-5993-a6bf-3ee0196d7164', \
                  @UserId = '11111111-05d5-5993-a6bf-3ee0196d7164', @Title = N't', @Body = N'b', @Type = N'x'";
    assert_eq!(client.one(insert), "1");
    assert_eq!(client.one(insert), "0");
    let answer = client.run("EXEC dbo.GetNotifications '11111111-05d5-5993-a6bf-3ee0196d7164', 0, 20");
    assert_eq!(answer.results.len(), 2);
    assert_eq!(answer.results[1].rows.len(), 1);
    assert_eq!(answer.results[1].names[5], "ReadAt");
}
