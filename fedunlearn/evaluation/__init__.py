"""Metrics and attacks on one model, and the scorecard that compares them with a retrained model.

Nothing here knows that a federation exists: a model's outputs and index arrays go in, numbers come out.

``outputs``     one pass of a model over the data; every measure below reads its result
                (``forward`` runs it; ``segmentation`` holds what becomes of masks)
``scored``      what the measures read of such a result, whatever the task
``accuracy``    quality (accuracy, or Dice) and loss, per class and per client
``hausdorff``   how far outlines of masks are apart, in millimetres
``membership``  do the forgotten data still look like training data? (with ``matching`` and ``roc``)
``distance``    how far a model is from the retrained one, in weights and in outputs
``metric``      how a metric is defined, with its ``declaration``, and ``evidence``, what it may look at
``metrics``     all of the above as metrics by name; ``measures`` takes them of one model
``scorecard``   rows, gaps to retrain and noise floors (with ``aggregates``); no torch needed

Import from the modules themselves: this file loads none of them, so that reading a scorecard is quick.
"""
