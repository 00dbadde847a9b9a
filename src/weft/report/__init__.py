"""Floor 9: a run directory becomes one self-contained ``report.html`` (and ``report.md``).

- ``run_view.py``  reads a run directory: configuration, environment, events, results, sub-runs.
- ``svg.py``       line charts as inline SVG that follow the page's light or dark colours.
- ``heat_map.py``  heat maps of the same kind; ``routing.py`` draws the use of experts with them.
- ``bars.py``      what a whole is made of; ``plan_page.py`` an answer of the planner as a page.
- ``sliders.py``   numbers that change with sliders, looked up in a table made beforehand.
- ``html.py``      the page: escaping, style, tables, details.
- ``sections.py``  what a report shows, each section made only when its data is there.
- ``write.py``     ``write_report(folder)``.
- ``model_page.py``  a model's module tree as an interactive page (``weft model show --html``); its
  style and script lie in ``static`` and are put into the page.

No page has an external asset, and a report has no script; both can be mailed and opened years
later.
"""
