"""What evolves: a constant and the score that follows from it, as a plain program and as a policy.

The model fills in `CONST` and, where a program is to hang, the loop.
"""
