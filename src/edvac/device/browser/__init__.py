"""A browser whose page a program reads and acts on: what is offered, found, checked and let out.

`page` is the seam to a page, `chromium` the real one. `device` finds elements, checks before and
after acting and labels what is seen; `origins` and `proxy` decide what may be connected to. Knows
nothing of scheduling, journals or people.
"""
