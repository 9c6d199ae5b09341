"""Evolution: how policies are synthesised, judged and remembered.

Completions come from `providers`, prompts from `prompt`, synthesis without a model from `structural` and `crossover`;
`store` keeps everything in one SQLite file, so that a killed run goes on where it stood.
"""
