"""The live world: an OpenAI-compatible gateway in front of engines, and what it knows of them.

Nothing here imports numpy: a gateway is started in many copies beside engines that need the memory.
"""
