"""AWS' own driver and SDK against the emulator: connects, defines, writes, reads, loads, fails; borrows a password.

Arguments: host, port, credentials endpoint, manifest of a Parquet file with one BIGINT column of the values 1 and 2, role,
serverless or cluster.
"""
import sys

import boto3
import redshift_connector

host, port, endpoint, manifest, role, kind = sys.argv[1:7]


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
print("all is well")
