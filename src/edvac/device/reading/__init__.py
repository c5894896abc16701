"""Documents to text, inside the parser's process.

Every module here works on one document at a time, from bytes that it asks for, and is hostile
input's only neighbour: the process around it has no network, no files and no other document.
Imports nothing of edvac but itself, because nothing else is mounted there.
"""
