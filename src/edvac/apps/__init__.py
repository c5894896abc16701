"""Programs that come with edvac, and adapters that lend its parts to programs of others.

The programs use the machine as a person does, through its commands, and know nothing of its inside.
"""
