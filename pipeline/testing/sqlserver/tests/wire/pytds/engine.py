"""Does with the whole stand-in what somebody curious would do, with python-tds: PORT."""

import datetime
import sys
import time
import unittest
import uuid

import pytds

PORT = int(sys.argv[1])
#: Generous: only something that never comes takes so long.
PATIENCE = 60


def connect(**changes):
    options = {
        "dsn": "127.0.0.1",
        "port": PORT,
        "user": "sa",
        "password": "Stand-in-1",
        "database": "smartpulse",
        "autocommit": True,
        "login_timeout": 30,
    }
    return pytds.connect(**{**options, **changes})


class Curious(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.connection = connect()
        cls.cursor = cls.connection.cursor()
        for statement in (
            "CREATE TABLE dbo.Forecasts (Id uniqueidentifier NOT NULL PRIMARY KEY, Demand float NOT NULL,"
            " Status nvarchar(32) NOT NULL DEFAULT N'Draft', At datetime2(3) NOT NULL DEFAULT SYSUTCDATETIME(),"
            " Price decimal(10, 2) NULL, VersionId bigint NOT NULL DEFAULT 1)",
            "ALTER DATABASE CURRENT SET CHANGE_TRACKING = ON (CHANGE_RETENTION = 2 DAYS, AUTO_CLEANUP = ON)",
            "ALTER DATABASE CURRENT SET ALLOW_SNAPSHOT_ISOLATION ON",
            "ALTER TABLE dbo.Forecasts ENABLE CHANGE_TRACKING",
            "EXEC sys.sp_cdc_enable_db",
            "EXEC sys.sp_cdc_enable_table @source_schema = N'dbo', @source_name = N'Forecasts', @role_name = NULL",
            "CREATE PROCEDURE dbo.Twice @in int, @out int OUTPUT AS BEGIN SET @out = 2 * @in; RETURN 7; END",
        ):
            cls.cursor.execute(statement)

    @classmethod
    def tearDownClass(cls):
        cls.connection.close()

    def rows(self, statement, parameters=None):
        self.cursor.execute(statement, parameters)
        return self.cursor.fetchall()

    def insert(self, demand):
        key = uuid.uuid4()
        self.cursor.execute("INSERT INTO dbo.Forecasts (Id, Demand) VALUES (%s, %s)", (key, demand))
        self.assertEqual(self.cursor.rowcount, 1)
        return key

    def test_who_is_there(self):
        ((version, database, user),) = self.rows("SELECT @@VERSION, DB_NAME(), SUSER_SNAME()")
        self.assertIn("SQL Server", version)
        self.assertEqual((database, user), ("smartpulse", "sa"))
        self.assertIn(("Forecasts",), self.rows("SELECT name FROM sys.tables"))

    def test_a_forecast_in_a_transaction(self):
        key = self.insert(1.5)
        with connect(autocommit=False) as connection, connection.cursor() as cursor:
            change = "UPDATE dbo.Forecasts SET Status = N'Published', VersionId += 1 WHERE Id = %s"
            for end, expected in ((connection.rollback, ("Draft", 1)), (connection.commit, ("Published", 2))):
                cursor.execute(change, (key,))
                end()
                rows = self.rows("SELECT Status, VersionId FROM dbo.Forecasts WHERE Id = %s", (key,))
                self.assertEqual(rows, [expected])

    def test_changes_are_tracked(self):
        ((before,),) = self.rows("SELECT CHANGE_TRACKING_CURRENT_VERSION()")
        kept, gone = self.insert(2.5), self.insert(3.5)
        self.cursor.execute("DELETE FROM dbo.Forecasts WHERE Id = %s", (gone,))
        changes = self.rows(
            "SELECT ct.SYS_CHANGE_OPERATION, ct.Id, f.Demand FROM CHANGETABLE(CHANGES dbo.Forecasts, %s) AS ct"
            " LEFT JOIN dbo.Forecasts AS f ON f.Id = ct.Id ORDER BY ct.SYS_CHANGE_VERSION",
            (before,),
        )
        self.assertEqual([change for change in changes if change[1] in (kept, gone)], [("I", kept, 2.5), ("D", gone, None)])

    def test_changes_are_captured(self):
        key = self.insert(4.5)
        self.cursor.execute("UPDATE dbo.Forecasts SET Demand = 5.5 WHERE Id = %s", (key,))
        query = (
            "SELECT __$operation, Demand FROM cdc.dbo_Forecasts_CT WHERE Id = %s"
            " ORDER BY __$start_lsn, __$command_id, __$seqval, __$operation"
        )
        end = time.monotonic() + PATIENCE
        while (rows := self.rows(query, (key,))) != [(2, 4.5), (3, 4.5), (4, 5.5)]:
            self.assertLess(time.monotonic(), end, rows)
            time.sleep(0.05)

    def test_a_table_of_ones_own_and_its_errors(self):
        self.cursor.execute("CREATE TABLE dbo.Notes (Id int IDENTITY PRIMARY KEY, Text nvarchar(10) NOT NULL UNIQUE)")
        self.cursor.execute("INSERT INTO dbo.Notes (Text) VALUES (N'a'), (N'b')")
        self.assertEqual(self.rows("SELECT Id, Text FROM dbo.Notes ORDER BY Id"), [(1, "a"), (2, "b")])
        for number, statement in (
            (2627, "INSERT INTO dbo.Notes (Text) VALUES (N'a')"),
            (515, "INSERT INTO dbo.Notes (Text) VALUES (NULL)"),
            (208, "SELECT * FROM dbo.Nowhere"),
            (207, "SELECT Nothing FROM dbo.Notes"),
            (8134, "SELECT 1 / 0"),
            (2812, "EXEC dbo.Nothing"),
        ):
            with self.subTest(number), self.assertRaises(pytds.DatabaseError) as failed:
                self.cursor.execute(statement)
                self.cursor.fetchall()
            self.assertEqual(failed.exception.msg_no, number)
        self.cursor.execute("DROP TABLE dbo.Notes")

    def test_a_procedure_with_an_output_parameter(self):
        result = self.cursor.callproc("dbo.Twice", (21, pytds.output(value=0)))
        self.assertEqual((result[1], self.cursor.return_value), (42, 7))

    def test_a_bulk_load(self):
        self.cursor.execute("CREATE TABLE dbo.Loaded (Id int NOT NULL, Text nvarchar(50) NULL)")
        columns = [
            pytds.tds_base.Column("Id", type=pytds.tds_types.IntType(), flags=0),
            pytds.tds_base.Column("Text", type=pytds.tds_types.NVarCharType(50), flags=1),
        ]
        self.cursor.copy_to(data=[(number, f"日{number}") for number in range(2000)], table_or_view="Loaded", columns=columns)
        self.assertEqual(self.cursor.rowcount, 2000)
        self.assertEqual(self.rows("SELECT COUNT(*), MAX(Id) FROM dbo.Loaded"), [(2000, 1999)])
        self.assertEqual(self.rows("SELECT Text FROM dbo.Loaded WHERE Id = 7"), [("日7",)])

    def test_several_results_and_a_message(self):
        self.cursor.execute("DECLARE @n int = 3; SELECT @n AS n; PRINT 'hello'; SELECT @n + 1 AS m")
        got = [self.cursor.fetchall()]
        while self.cursor.nextset():
            got.append(self.cursor.fetchall())
        self.assertEqual(got, [[(3,)], [(4,)]])
        self.assertIn("hello", [message["message"] for message in self.cursor._session.messages])

    def test_cancel(self):
        with connect(timeout=2) as connection, connection.cursor() as cursor:
            with self.assertRaises(pytds.TimeoutError):
                cursor.execute("WAITFOR DELAY '00:01:00'")
            cursor.execute("SELECT 5")
            self.assertEqual(cursor.fetchall(), [(5,)])

    def test_values(self):
        moment = datetime.datetime(2025, 11, 21, 13, 14, 15, 123000)
        self.cursor.execute("SELECT %s, %s, %s, CAST(1.5 AS decimal(10, 2))", (moment, "日本 🎉", pytds.Binary(b"\x00\xff")))
        self.assertEqual(self.cursor.fetchone()[:3], (moment, "日本 🎉", b"\x00\xff"))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
