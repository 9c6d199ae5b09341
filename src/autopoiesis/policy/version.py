"""The number of the policy interface."""

INTERFACE = 1
"""What a policy module must say in `interface = 1`."""
