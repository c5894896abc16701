"""The processor: model weights, KV memory, scheduling and decoding, in a process of its own.

It turns a prompt, given as segments of text, into text, under a grammar where one is given. It
deliberately knows nothing of programs, chat roles or tools: a client renders those into segments
before it asks. Importing this package loads neither torch nor numpy; only `edvac.engine.server`
and what it needs does.
"""
