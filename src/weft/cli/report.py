"""``weft report``: rebuild the report of a run directory."""

from __future__ import annotations

from pathlib import Path

from weft.core.console import console


def report(run: Path) -> None:
    """Make report.html of a run directory.

    Parameters
    ----------
    run
        Folder that a weft command wrote with --out.
    """
    from weft.report.write import write_report

    console.print(f"wrote {write_report(run)}", markup=False, soft_wrap=True)
