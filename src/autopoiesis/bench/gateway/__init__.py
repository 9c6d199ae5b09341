"""What a gateway costs, ours beside those of others, when the engines behind it cost nothing.

`stub_engine` answers as it is told by the `ticket` in each request; `load` sends requests over `client` connections and
checks every `answer`; `targets` says how each gateway is started, `scene` which processes there are and on which core,
`usage` what they used; `cells` makes samples of it, `claims` holds them against what is claimed, `tables` prints both.
`failover`, `drain`, `swaps` and `agreement` look at what happens to requests while something else does.
"""
