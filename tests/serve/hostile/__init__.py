"""Clients and engines that break every rule, thrown at a running gateway; every reply is judged.

`acts` are what single clients do, good ones among them; `engine` answers them, well or as badly as it is told to;
`siege` mixes them from a seed, and says how the gateway came through.
"""
