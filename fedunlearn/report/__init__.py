"""What a person reads of a finished run: tables for the terminal, Markdown, and one self-contained HTML page.

Everything here only reads a run directory; nothing is computed that is not already in its files, so a report
can be written again at any time. Import the module you need: :mod:`~fedunlearn.report.tables` needs rich
alone, :mod:`~fedunlearn.report.page` matplotlib as well; neither needs torch or Flower.

=====================  =========================================================================
``scores``             the scorecard, asked by (label, moment, metric), null-safe
``quality``            what a task's models are judged by: the one place that decides it
``run_files``          the files of a run directory; ``picture_index``: its pictures; ``json_file``
``series``             ``metrics.jsonl`` → arrays over rounds
``panels``             which branches belong into one chart
``words``              names, numbers and units as a reader sees them
``verdict``            the findings in words
``tables``             rich and Markdown tables
``palette``, ``svg``   colours that follow the reader's light or dark scheme; figure → inline SVG
``plots``              dot plot of gaps; ``heat_map``: who holds which classes
``trajectories``       the quality over rounds, with its ``legend``
``overlay``            one slice with its masks → PNG; ``gallery``: the page's pictures
``markup``, ``style``  escaping HTML builder and the page's CSS
``sections``           the page's findings and charts; ``listings``: its tables
``html``               :func:`~fedunlearn.report.page.write_report`
``figure``             one chart as an SVG file of its own
``request_table``      the ledger of forget requests, for the terminal
=====================  =========================================================================
"""
