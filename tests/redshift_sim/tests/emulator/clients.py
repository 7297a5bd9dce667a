"""AWS' own driver and SDK against the emulator: connects, defines, writes, reads, loads, fails; borrows a password.

Arguments: host, port, credentials endpoint, manifest of a Parquet file with one BIGINT column of the values 1 and 2, role,
serverless or cluster, Data API endpoint.
"""
import sys
import time

import boto3
import redshift_connector

host, port, endpoint, manifest, role, kind, data_api = sys.argv[1:8]


def connect(user, password, **more):
    # The driver checks the server's certificate by default; here it is asked to encrypt only.
    return redshift_connector.connect(
        host=host, port=int(port), database="dev", user=user, password=password, sslmode="verify-ca", **more
    )


def refused(cursor, sql, text):
    try:
        cursor.execute(sql)
    except redshift_connector.Error as error:
        assert text in str(error), (sql, error)
        return
    raise AssertionError(f"{sql} was taken")


with connect("loader", "Secret-1") as connection:
    with connection.cursor() as cursor:
        cursor.execute("create table clients (id bigint not null primary key distkey, name varchar(20), j super) sortkey (id)")
        cursor.executemany("insert into clients (id, name) values (%s, %s)", [(1, "one"), (2, None), (2, "äö")])
        cursor.execute("update clients set j = json_parse('{\"a\": [1, 2.50]}') where id = 1")
        connection.commit()
        cursor.execute("select id, name, j from clients order by id, name nulls first")
        rows = [tuple(row) for row in cursor.fetchall()]
        assert rows == [(1, "one", '{"a": [1, 2.50]}'), (2, None, None), (2, "äö", None)], rows
        refused(cursor, "insert into clients (id) values (3) on conflict do nothing", "syntax error")
        connection.rollback()
        cursor.execute("create temp table stage (like clients)")
        cursor.execute(f"copy stage (id) from '{manifest}' iam_role '{role}' manifest format as parquet")
        cursor.execute("select pg_last_copy_count()")
        assert cursor.fetchone()[0] == 2
        cursor.execute("delete from clients using stage where clients.id = stage.id")
        cursor.execute("insert into clients select * from stage")
        connection.commit()
        cursor.execute("select count(*) from clients where id = %s", (2,))
        assert cursor.fetchone()[0] == 1
        refused(cursor, f"copy clients (name) from '{manifest}' iam_role '{role}' manifest format as parquet", "Spectrum Scan Error")
        connection.rollback()
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("alter table clients alter column name type varchar(40)")
        cursor.execute("vacuum clients")
        cursor.execute("insert into clients (id, name) values (%s, %s)", (7, "alone"))
        cursor.execute("truncate clients")
        cursor.execute("select count(*) from clients")
        assert cursor.fetchone()[0] == 0

try:
    connect("loader", "wrong")
    raise AssertionError("a wrong password was taken")
except redshift_connector.Error as error:
    assert "password authentication failed" in str(error), error

keys = {"region_name": "eu-west-3", "endpoint_url": endpoint, "aws_access_key_id": "AKIATESTTESTTESTTEST"}
secret = "secret-of-the-tests"
if kind == "serverless":
    lender = boto3.client("redshift-serverless", aws_secret_access_key=secret, **keys)
    lent = lender.get_credentials(workgroupName="dataflow", dbName="dev", durationSeconds=900)
    user, password, until = lent["dbUser"], lent["dbPassword"], lent["expiration"]
else:
    lender = boto3.client("redshift", aws_secret_access_key=secret, **keys)
    lent = lender.get_cluster_credentials_with_iam(ClusterIdentifier="c", DbName="dev", DurationSeconds=900)
    user, password, until = lent["DbUser"], lent["DbPassword"], lent["Expiration"]
assert user == "IAMR:dataflow" and until.tzinfo is not None, lent
with connect(user, password) as connection:
    with connection.cursor() as cursor:
        cursor.execute("select 1")
        assert cursor.fetchone()[0] == 1
try:
    stranger = boto3.client("redshift", aws_secret_access_key="another", **keys)
    stranger.get_cluster_credentials_with_iam(ClusterIdentifier="c", DbName="dev")
    raise AssertionError("a wrong signature was taken")
except stranger.exceptions.ClientError as error:
    assert error.response["Error"]["Code"] == "SignatureDoesNotMatch", error

# The Data API: a transaction over several calls of a session, results in pages, refusals.
data = boto3.client("redshift-data", aws_secret_access_key=secret, **{**keys, "endpoint_url": data_api})
place = {"WorkgroupName": "dataflow"} if kind == "serverless" else {"ClusterIdentifier": "dataflow"}


def ended(answer):
    while True:
        described = data.describe_statement(Id=answer["Id"])
        if described["Status"] in ("FINISHED", "FAILED", "ABORTED"):
            return described
        time.sleep(0.02)


def asked(sql, session):
    return ended(data.execute_statement(Sql=sql, SessionId=session))


def denied(code, text, call, **more):
    try:
        call(**more)
    except data.exceptions.ClientError as error:
        assert error.response["Error"]["Code"] == code and text in str(error), error
        return
    raise AssertionError(f"{more} was taken")


first = data.execute_statement(Sql="begin", Database="dev", SessionKeepAliveSeconds=60, **place)
session = first["SessionId"]
assert ended(first)["HasResultSet"] is False
assert asked("create temp table kept (id bigint, name varchar(10), f float, b boolean)", session)["Status"] == "FINISHED"
values = ", ".join(f"({n}, 'n{n}', {n}.5, {'true' if n % 2 else 'null'})" for n in range(250))
assert asked(f"insert into kept values {values}", session)["ResultRows"] == 250
selected = asked("select id, name, f, b from kept order by id", session)
pages = list(data.get_paginator("get_statement_result").paginate(Id=selected["Id"]))
records = [record for page in pages for record in page["Records"]]
assert len(pages) > 1 and len(records) == 250, (len(pages), len(records))
assert records[0] == [{"longValue": 0}, {"stringValue": "n0"}, {"doubleValue": 0.5}, {"isNull": True}], records[0]
assert records[1][3] == {"booleanValue": True}, records[1]
failed = asked("select * from nowhere", session)
assert failed["Status"] == "FAILED" and "does not exist" in failed["Error"], failed
assert "current transaction is aborted" in asked("select 1", session)["Error"]
rolled = asked("rollback", session)
denied("ResourceNotFoundException", "does not have result", data.get_statement_result, Id=rolled["Id"])
assert asked("select * from kept", session)["Status"] == "FAILED", "a transaction that was taken back left its table"
lone = data.execute_statement(Sql="create temp table lone (id int)", Database="dev", ClientToken="once", **place)
again = data.execute_statement(Sql="create temp table lone (id int)", Database="dev", ClientToken="once", **place)
assert lone["Id"] == again["Id"] and ended(lone)["Status"] == "FINISHED"
denied("ValidationException", "not available", data.execute_statement, Sql="select 1", SessionId=lone["SessionId"])
unknown = "00000000-0000-4000-8000-000000000000"
denied("ValidationException", "is invalid", data.execute_statement, Sql="select 1", SessionId=unknown)
denied("ResourceNotFoundException", "does not exist", data.describe_statement, Id=unknown)
long = "select '" + "x" * 100_000 + "'"
denied("ValidationException", "larger than 100kB", data.execute_statement, Sql=long, SessionId=session)
denied("ValidationException", "Multi", data.execute_statement, Sql="select 1; select 2", SessionId=session)
stranger = boto3.client("redshift-data", aws_secret_access_key="another", **{**keys, "endpoint_url": data_api})
denied("SignatureDoesNotMatch", "", stranger.execute_statement, Sql="select 1", SessionId=session)
print("all is well")
