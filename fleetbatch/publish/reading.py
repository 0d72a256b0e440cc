"""How analysts open exactly what is published: with polars, DuckDB and Spark."""

from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from fleetbatch import layout
from fleetbatch.errors import RejectedError
from fleetbatch.store import Store
from fleetbatch.units import Night, OrderName


def published_files(store: Store, name: OrderName, night: Night | None = None) -> list[str]:
    """Return the URIs of the published files of a table, or of one of its nights; raise RejectedError without one.

    A plain glob over the folder could also meet files of a replaced generation; these are exactly the current ones.
    """
    try:
        table = DeltaTable(store.uri(layout.table(name)), storage_options=store.storage_options())
    except TableNotFoundError as error:
        summary = f"there is no table of order {name!r} yet: no night of it was published"
        raise RejectedError(summary) from error
    files = sorted(uri for uri in table.file_uris() if night is None or f"/night={night}/" in uri)
    if night is not None and not files:
        nights = sorted({part["night"] for part in table.partitions()})
        summary = f"no row of night {night} of order {name!r} is published; nights with rows: {', '.join(nights)}"
        raise RejectedError(summary)
    return files


def how_to_open(uri: str, files: list[str], night: Night | None = None) -> dict[str, str]:
    """Return one line per reader that opens the published rows. Pure.

    Nights from before a column have files without it: DuckDB is told to go by names.
    """
    listed = ", ".join(f"'{file}'" for file in files)
    polars, spark = f'pl.scan_delta("{uri}")', f'spark.read.format("delta").load("{uri}")'
    if night:
        polars += f'.filter(pl.col("night") == "{night}")'
        spark += f""".where("night = '{night}'")"""
    return {
        "polars": f"{polars}.collect()",
        "duckdb": f"FROM read_parquet([{listed}], hive_partitioning=true, union_by_name=true)",
        "spark": spark,
    }
