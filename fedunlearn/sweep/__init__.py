"""A sweep: the hyper-parameters of an experiment's methods, searched where the experiment will not be measured.

Its file names the experiment, other seeds and other things to forget; every trial is held against a retrained model
on the validation split, and the test split is never read. What was found is written as an experiment again, tuned
settings beside those it had.
"""
