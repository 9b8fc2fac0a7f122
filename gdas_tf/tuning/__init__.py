"""Tuning: trials of configurations, proposed by keras-tuner, each judged by one objective.

`space.py` says what is varied, `study.py` what a tuning is, `objectives.py` what its trials are judged by.
`oracles.py` has keras-tuner's oracles, which propose values, with a state that no kill damages; `tuner.py`
goes from one proposal to the next, alone or as chief and workers. `trials.py` does a trial in the process of
`worker.py`, and keeps its outcome. `report.py` says what was found.
"""
