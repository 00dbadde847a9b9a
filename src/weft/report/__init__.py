"""Floor 9: a run directory becomes one self-contained ``report.html`` (and ``report.md``).

- ``run_view.py``  reads a run directory: configuration, environment, events, results, sub-runs.
- ``svg.py``       line charts as inline SVG that follow the page's light or dark colours.
- ``html.py``      the page: escaping, style, tables, details.
- ``sections.py``  what a report shows, each section made only when its data is there.
- ``write.py``     ``write_report(folder)``.

A report has no external asset and no script; it can be mailed and opened years later.
"""
