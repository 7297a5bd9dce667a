"""Reads Parquet files of the lake with somebody else's reader, and says what is in them.

usage: readers.py duckdb|pyarrow FILE…      files, one by one
       readers.py duckdb|pyarrow FOLDER     a folder as people query it: as a whole, with the columns of its partitions

Prints one JSON object: the number of rows, and for every column the sum of the hashes of its values (row by row, without
order) and the number of nulls. A value is hashed as text in one form for every reader: numbers as they are, floats by
their bits, times as microseconds and dates as days since 1970, decimals as their digits without the point, bytes as hex.
"""

import datetime
import decimal
import hashlib
import json
import os
import struct
import sys

EPOCH = datetime.datetime(1970, 1, 1)


def micros(delta):
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def text(value, single):
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return struct.pack(">f" if single else ">d", value).hex()
    if isinstance(value, decimal.Decimal):
        sign, digits, _ = value.as_tuple()
        number = int("".join(map(str, digits)))
        return str(-number if sign else number)
    if isinstance(value, datetime.datetime):
        return str(micros(value.replace(tzinfo=None) - EPOCH))
    if isinstance(value, datetime.date):
        return str((value - EPOCH.date()).days)
    if isinstance(value, datetime.time):
        return str(micros(datetime.datetime.combine(EPOCH.date(), value) - EPOCH))
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).hex()
    return str(value)


def pyarrow_table(place):
    import pyarrow as pa
    import pyarrow.dataset as ds
    import pyarrow.parquet as pq

    if not os.path.isdir(place):
        return pq.ParquetFile(place).read()
    whole = ds.dataset(place, format="parquet", partitioning="hive")
    # The columns of all files, as DuckDB's union_by_name has them: pyarrow would take those of the first.
    schemas = [whole.schema] + [fragment.physical_schema for fragment in whole.get_fragments()]
    return whole.replace_schema(pa.unify_schemas(schemas, promote_options="permissive")).to_table()


def with_pyarrow(places):
    import pyarrow as pa

    for place in places:
        table = pyarrow_table(place)
        for name in table.column_names:
            column = table.column(name)
            yield name, column.to_pylist(), column.type == pa.float32()


def with_duckdb(places):
    import duckdb

    connection = duckdb.connect()
    connection.execute("set TimeZone = 'UTC'")
    for place in places:
        source = "read_parquet(?, hive_partitioning = false)"
        if os.path.isdir(place):
            source, place = "read_parquet(?, hive_partitioning = true, union_by_name = true)", place + "/**/*.parquet"
        for name, kind, *_ in connection.execute(f"describe select * from {source}", [place]).fetchall():
            chosen = '"' + name.replace('"', '""') + '"'
            # The client would hand these out in the local time of the machine.
            if kind == "TIMESTAMP WITH TIME ZONE":
                chosen = f"epoch_us({chosen})"
            found = connection.execute(f"select {chosen} from {source}", [place]).fetchall()
            yield name, [row[0] for row in found], kind == "FLOAT"


def main():
    reader, places = sys.argv[1], sys.argv[2:]
    columns, rows = {}, 0
    for name, values, single in {"duckdb": with_duckdb, "pyarrow": with_pyarrow}[reader](places):
        entry = columns.setdefault(name, {"rows": 0, "nulls": 0, "sum": 0})
        entry["rows"] += len(values)
        for value in values:
            if value is None:
                entry["nulls"] += 1
            else:
                digest = hashlib.sha256(text(value, single).encode()).digest()
                entry["sum"] = (entry["sum"] + int.from_bytes(digest[:16], "big")) % (1 << 128)
    for entry in columns.values():
        entry["sum"] = f"{entry['sum']:032x}"
    rows = max((entry["rows"] for entry in columns.values()), default=0)
    print(json.dumps({"rows": rows, "columns": columns}))


main()
