"""The live world: an OpenAI-compatible gateway in front of engines, and what it knows of them.

Nothing that the gateway imports imports numpy: it is started in many copies beside engines that need the memory. The
emulated engine (`emulated`) is a process of its own, and does.
"""
