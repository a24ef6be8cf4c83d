"""A sweep's table as files: sweep.csv, sweep.parquet, sweep.png."""

import io
from pathlib import Path

import pandas as pd

from labkit.paths import write_atomic

PANELS = 40  # metrics in the picture: one of hundreds could not be looked at, nor written


def write_table(folder: Path, table: pd.DataFrame, parameters: list[str]) -> None:
    """Write the table, one row a point; ``parameters`` are the columns that were swept.

    The csv comes first, for it takes every value. Parquet has one type a column: where the values are of
    several kinds it holds their text.
    """
    write_atomic(folder / "sweep.csv", lambda temporary: table.to_csv(temporary, index=False))
    plain = pd.DataFrame({name: _storable(table[name]) for name in table})
    write_atomic(folder / "sweep.parquet", lambda temporary: plain.to_parquet(temporary, index=False))
    _draw(folder, table, parameters)


def _storable(column: pd.Series) -> pd.Series:
    """The column as it is if parquet has a type for it, else its text."""
    try:
        column.to_frame().to_parquet(io.BytesIO(), index=False)
    except (ValueError, TypeError, NotImplementedError, OverflowError):  # pyarrow's errors are of these
        return column.map(str)
    return column


def _draw(folder: Path, table: pd.DataFrame, parameters: list[str]) -> None:
    """sweep.png: every metric against the first parameter that takes more than one value."""
    import matplotlib

    matplotlib.use("agg")
    from labkit.figures import theme
    from labkit.figures.sweep import sweep_curves

    metrics = [name for name in table if name not in (*parameters, "seconds", "error")]
    fine = table[table["error"] == ""]
    if not metrics or fine.empty:
        return
    theme.apply()
    text = table[parameters].map(str)  # lists cannot be counted or grouped, nor numbers sorted among words
    fine = fine.assign(**{name: text[name] for name in parameters if table[name].dtype == object})
    order = sorted(parameters, key=lambda name: text[name].nunique() < 2)
    figure = sweep_curves(fine, order, metrics[:PANELS])
    write_atomic(folder / "sweep.png", figure.savefig)
