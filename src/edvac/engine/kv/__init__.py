"""Keys and values: where they lie, who shares them, and what becomes of them when nobody runs.

Knows token ids and reader classes, and no requests, texts or models beyond their shape.
"""
