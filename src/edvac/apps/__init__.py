"""Programs that come with edvac.

They use the machine as a person does, through its commands and programs, and know nothing of its
inside.
"""
