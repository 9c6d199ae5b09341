"""What an iteration of evolution costs, ours beside that of others, when model and evaluation cost nothing.

`stub_model` answers at once; `programs` are what it rewrites, ours and theirs of one size; `drivers` run each peer in
an environment of its own; `contenders` says how each is started, `watched` what a process and all that it started
used, `measure` makes rows of it, `tables` prints them.
"""
