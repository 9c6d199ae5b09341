"""An engine without a GPU: vLLM's HTTP surface and metrics in the time that the cost model says a GPU would take.

`batch` is the engine proper, in virtual time and without I/O, by the rules of the event kernel (`simulate.engine`).
`engine` lives it through in wall time, `connection` and `routes` put HTTP in front of it. It runs as a process of its
own (`autopoiesis engine`), so unlike a gateway it may import numpy.
"""
