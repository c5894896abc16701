"""The front panel: commands. Parses flags, shows events, turns errors into one message and one exit
code.

Nothing here decides anything about a run, and nothing below knows that a terminal exists.
"""
