"""Steps that travel: what the owner of a run offers to workers on other machines, and the workers.

The owner sends a request of a model or a sandboxed call with all that it may see, and does itself
with the answer what it does with one of its own: checks it, labels it, writes it down. So a worker
knows no program, no journal and no label. The store's queue is the only thing between the two.
"""
