"""Studies: many runs under one protocol, and what may be believed of them.

- grid: what a study is; built_in: those that have a name
- plan: what fits into a budget, and what it will be able to see
- runner: the runs, side by side, on this machine or on others; work: the program of one of them
- statistics, agreement: comparisons of samples, by scipy
- analysis: everything that a report says, as plain values; report: HTML, Markdown and JSON of it
"""
