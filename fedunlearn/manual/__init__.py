"""Pages of docs/ that components write themselves: from their docstrings, their settings and what they declare.

``python -m fedunlearn.manual`` writes them anew; tests fail where one is not what its components say.
"""
