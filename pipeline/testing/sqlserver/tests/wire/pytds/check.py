"""Drives the stand-in with python-tds: PORT (TLS as the client likes) PORT (TLS required) FILE (the authorities)."""

import datetime
import decimal
import sys
import unittest
import uuid

import pytds
from pytds.tds_base import Column
from pytds.tds_types import (
    BigIntType,
    BitType,
    DateTime2Type,
    DateType,
    DecimalType,
    FloatType,
    IntType,
    NVarCharMaxType,
    NVarCharType,
    UniqueIdentifierType,
    VarBinaryMaxType,
)

PORT, STRICT_PORT, AUTHORITIES = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
MOMENT = datetime.datetime(2025, 11, 21, 13, 14, 15, 123456)
GUID = uuid.UUID("01234567-89ab-cdef-0123-456789abcdef")


def connect(**changes):
    options = {
        "dsn": "localhost",
        "port": PORT,
        "user": "sa",
        "password": "Stand-in-1",
        "database": "smartpulse",
        "autocommit": True,
        "login_timeout": 30,
    }
    return pytds.connect(**{**options, **changes})


class Login(unittest.TestCase):
    def test_login_in_the_clear_and_within_tls(self):
        cases = [
            {},
            {"cafile": AUTHORITIES},
            {"cafile": AUTHORITIES, "enc_login_only": True},
            {"cafile": AUTHORITIES, "port": STRICT_PORT},
            {"blocksize": 512},
            {"blocksize": 32767},
            {"tds_version": pytds.tds_base.TDS73},
            {"tds_version": pytds.tds_base.TDS72},
        ]
        for case in cases:
            with self.subTest(case), connect(**case) as connection, connection.cursor() as cursor:
                cursor.execute("echo %s %s", ("x" * 20000, 7))
                self.assertEqual(cursor.fetchall(), [("x" * 20000, 7)])

    def test_who_does_not_encrypt_is_turned_away_where_that_is_required(self):
        with self.assertRaises(pytds.Error):
            connect(port=STRICT_PORT)

    def test_a_wrong_login_has_its_number(self):
        for number, case in [
            (18456, {"password": "wrong"}),
            (18456, {"user": "nobody"}),
            (4060, {"database": "elsewhere"}),
        ]:
            with self.subTest(case), self.assertRaises(pytds.Error) as failed:
                connect(**case)
            self.assertIn("Login failed" if number == 18456 else "Cannot open database", str(failed.exception))

    def test_the_server_says_who_it_is(self):
        with connect() as connection:
            self.assertEqual(connection.product_version >> 24, 14)


class Values(unittest.TestCase):
    def setUp(self):
        self.connection = connect()
        self.cursor = self.connection.cursor()

    def tearDown(self):
        self.connection.close()

    def test_every_type(self):
        expected = {
            "bit": True,
            "tinyint": 200,
            "smallint": -300,
            "int": -70000,
            "bigint": 1 << 40,
            "real": 0.25,
            "float": -0.1,
            "decimal": decimal.Decimal("-12345678901234567890123456.7890"),
            "small": decimal.Decimal("123.45"),
            "money": decimal.Decimal("-5000000.0001"),
            "guid": GUID,
            "date": MOMENT.date(),
            "time": MOMENT.time(),
            "datetime": MOMENT.replace(microsecond=123333),
            "smalldatetime": MOMENT.replace(second=0, microsecond=0),
            "datetime2": MOMENT,
            "datetime2_3": MOMENT.replace(microsecond=123000),
            "char": "ab   ",
            "varchar": "Grüße €",
            "varchar_max": "ü" * 10000,
            "nchar": "日本  ",
            "nvarchar": "日本 🎉",
            "nvarchar_max": "日本" * 15000,
            "empty": "",
            "binary": bytes(range(10)),
            "varbinary": b"\x00\xff",
            "varbinary_max": b"\x07" * 60000,
        }
        for statement in ("types", "nulls"):
            self.cursor.execute(statement)
            names = [column[0] for column in self.cursor.description]
            row = dict(zip(names, self.cursor.fetchone()))
            offset = row.pop("datetimeoffset")
            self.assertEqual(offset.utcoffset(), datetime.timedelta(minutes=90))
            self.assertEqual(offset.astimezone(datetime.timezone.utc).replace(tzinfo=None), MOMENT)
            # This client shows a datetime's ticks as they are, not rounded to the millisecond.
            row["datetime"] = row["datetime"].replace(microsecond=123333)
            self.assertEqual(row, expected)
        self.assertEqual(self.cursor.fetchone(), (None,) * 28)
        self.assertIsNone(self.cursor.fetchone())

    def test_columns_say_whether_they_may_be_null(self):
        for statement, nullable in (("types", False), ("nulls", True)):
            self.cursor.execute(statement)
            self.assertEqual({bool(column[6]) for column in self.cursor.description}, {nullable})
            self.cursor.fetchall()

    def test_parameters(self):
        zone = datetime.timezone(datetime.timedelta(hours=-5))
        values = (
            True,
            -4,
            1 << 40,
            -0.1,
            decimal.Decimal("-12.345"),
            GUID,
            MOMENT.date(),
            MOMENT.time(),
            MOMENT,
            MOMENT.replace(tzinfo=zone),
            "日本 'x' 🎉",
            "ß" * 9000,
            "",
            pytds.Binary(b"\x00\xff"),
            pytds.Binary(b"\x01" * 20000),
        )
        self.cursor.execute("echo" + " %s" * len(values), values)
        self.assertEqual(self.cursor.fetchone(), values)

    def test_a_long_result(self):
        self.cursor.execute("rows 20000")
        self.assertEqual([row[0] for row in self.cursor], list(range(20000)))


class Requests(unittest.TestCase):
    def setUp(self):
        self.connection = connect()
        self.cursor = self.connection.cursor()

    def tearDown(self):
        self.connection.close()

    def test_procedure_with_output_parameters(self):
        for names in (False, True):
            given = (4, pytds.output(value=21), pytds.output(value="ab"))
            if names:
                given = dict(zip(("@in", "@out", "@text"), given))
                self.cursor.callproc("dbo.double", given)
                self.assertEqual(self.cursor.fetchall(), [(3,)])
                self.cursor.nextset()
            else:
                self.cursor.callproc("dbo.double", given)
                self.assertEqual(self.cursor.fetchall(), [(3,)])
                self.cursor.nextset()
            outputs = {column.column_name: (place, column.value) for place, column in self.cursor._session.output_params.items()}
            self.assertEqual(outputs, {"@out": (1, 42), "@text": (2, "abab")})
            self.assertEqual(self.cursor.return_value, 7)

    def test_output_parameter_of_a_statement(self):
        text = pytds.tds_base.SP_EXECUTESQL
        self.cursor.callproc(text, ("SELECT @a = 2 * @b", "@a int OUTPUT, @b int", pytds.output(value=1), 21))
        self.assertEqual(self.cursor.fetchall(), [(5,)])
        self.cursor.nextset()
        self.assertEqual({place: column.value for place, column in self.cursor._session.output_params.items()}, {2: 42})

    def test_a_procedure_that_is_missing(self):
        with self.assertRaises(pytds.ProgrammingError) as failed:
            self.cursor.callproc("missing", ())
        self.assertEqual(failed.exception.msg_no, 2812)

    def test_prepared_statements(self):
        prepare = pytds.tds_base.SP_PREPARE
        results = self.cursor.callproc(prepare, (pytds.output(value=None, param_type="int"), "@P1 int", "echo @P1"))
        handle = results[0]
        for value in (5, 6):
            self.cursor.callproc(pytds.tds_base.SP_EXECUTE, (handle, value))
            self.assertEqual(self.cursor.fetchall(), [(value,)])
        self.cursor.callproc(pytds.tds_base.InternalProc(15, "sp_unprepare"), (handle,))
        with self.assertRaises(pytds.DatabaseError) as failed:
            self.cursor.callproc(pytds.tds_base.SP_EXECUTE, (handle, 5))
        self.assertEqual(failed.exception.msg_no, 8179)

    def test_prepared_procedures(self):
        prepare = pytds.tds_base.InternalProc(14, "sp_prepexecrpc")
        given = (pytds.output(value=None, param_type="int"), "dbo.double", 4, pytds.output(value=21))
        self.cursor.callproc(prepare, given)
        self.assertEqual(self.cursor.fetchall(), [(2,)])
        self.cursor.nextset()
        outputs = {place: column.value for place, column in self.cursor._session.output_params.items()}
        self.assertEqual(outputs[3], 42)
        self.cursor.callproc(pytds.tds_base.SP_EXECUTE, (outputs[0], 5))
        self.assertEqual(self.cursor.fetchall(), [(1,)])

    def test_several_results(self):
        self.cursor.execute("sets")
        got = []
        while True:
            if self.cursor.description:
                got.append(self.cursor.fetchall())
            if not self.cursor.nextset():
                break
        self.assertEqual(got, [[(1,)], [], [(2,)]])
        self.assertEqual([message["message"] for message in self.cursor._session.messages], ["hello"])

    def test_counts(self):
        self.cursor.execute("update 5")
        self.assertEqual(self.cursor.rowcount, 5)
        self.cursor.execute("update %s" % 6, ())
        self.assertEqual(self.cursor.rowcount, 6)

    def test_errors(self):
        for number, kind in ((2627, pytds.IntegrityError), (547, pytds.IntegrityError), (208, pytds.DatabaseError)):
            with self.subTest(number):
                self.cursor.execute(f"error {number} 16")
                self.assertEqual(self.cursor.fetchall(), [(1,)])
                with self.assertRaises(kind) as failed:
                    self.cursor.nextset()
                self.assertEqual((failed.exception.msg_no, failed.exception.severity), (number, 16))
        with self.assertRaises(pytds.DatabaseError) as failed:
            self.cursor.execute("nonsense")
        self.assertEqual(failed.exception.msg_no, 102)
        self.cursor.execute("update 5")

    def test_severity_20_ends_the_connection(self):
        self.cursor.execute("error 40501 20")
        with self.assertRaises(pytds.DatabaseError):
            self.cursor.fetchall()
            self.cursor.nextset()
        with self.assertRaises((pytds.Error, OSError)):
            self.cursor.execute("update 5")

    def test_database_change(self):
        self.cursor.execute("use master")
        self.assertEqual(self.connection._tds_socket.env.database, "master")

    def test_transactions(self):
        with connect(autocommit=False, isolation_level=5) as connection, connection.cursor() as cursor:
            cursor.execute("update 1")
            connection.commit()
            cursor.execute("update 2")
            connection.rollback()
            cursor.execute("update 3")
            self.assertEqual(cursor.rowcount, 3)

    def test_a_timeout_cancels_and_the_connection_goes_on(self):
        with connect(timeout=2) as connection, connection.cursor() as cursor:
            with self.assertRaises(pytds.TimeoutError):
                cursor.execute("wait")
            cursor.execute("update 5")
            self.assertEqual(cursor.rowcount, 5)

    def test_cancel_in_the_middle_of_a_result(self):
        self.cursor.execute("rows 100000000")
        self.assertEqual(self.cursor.fetchmany(3)[2][0], 2)
        self.cursor.cancel()
        self.cursor.execute("update 5")
        self.assertEqual(self.cursor.rowcount, 5)


class Bulk(unittest.TestCase):
    def test_copy(self):
        columns = [
            Column("bit", type=BitType(), flags=Column.fNullable),
            Column("int", type=IntType(), flags=Column.fNullable),
            Column("bigint", type=BigIntType(), flags=Column.fNullable),
            Column("float", type=FloatType(), flags=Column.fNullable),
            Column("decimal", type=DecimalType(38, 4), flags=Column.fNullable),
            Column("guid", type=UniqueIdentifierType(), flags=Column.fNullable),
            Column("date", type=DateType(), flags=Column.fNullable),
            Column("datetime2", type=DateTime2Type(7), flags=Column.fNullable),
            Column("nvarchar", type=NVarCharType(50), flags=Column.fNullable),
            Column("nvarchar_max", type=NVarCharMaxType(), flags=Column.fNullable),
            Column("varbinary_max", type=VarBinaryMaxType(), flags=Column.fNullable),
        ]
        row = (True, 1, 1 << 40, 0.5, decimal.Decimal("1.5"), GUID, MOMENT.date(), MOMENT, "日本", "日" * 5000, b"\x01" * 9000)
        with connect() as connection, connection.cursor() as cursor:
            cursor.copy_to(data=[row] * 1000 + [(None,) * len(columns)], table_or_view="loaded", columns=columns)
            self.assertEqual(cursor.rowcount, 1001)
            cursor.execute("update 5")
            with self.assertRaises(pytds.DatabaseError) as failed:
                cursor.copy_to(data=[row], table_or_view="nowhere", columns=columns)
            self.assertEqual(failed.exception.msg_no, 208)
            cursor.execute("update 5")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
