"""Autopoiesis: serving of large language models under a policy that language models rewrite while it serves."""

__version__ = "0.1.0"
