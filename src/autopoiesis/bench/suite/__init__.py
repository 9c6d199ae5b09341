"""The headroom benchmark: what there is to win over fixed and human policies, where, and against whom.

`cells` are the scenarios, data in this package; `day` makes a load, a hidden world and a first plan of a cell and a
seed; `rows` serves one policy through it; `tuning` searches the parameters of human policies on days of their own;
`bounds` looks for the best that somebody who knows the future could do; `jobs` and `work` do all of it, resumably, on
several cores; `results` keeps it, `tables`, `plots` and `page` tell of it.
"""
