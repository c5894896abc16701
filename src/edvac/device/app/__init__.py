"""Third-party tools as a device: a server of the Model Context Protocol in a sandbox of its own.

`types` and `offer` make signatures of what a server says, `manifest` keeps what a person approved,
`code` finds what it is started with, `process` starts the sandbox, `wire` reads frames, `session`
speaks the protocol, `hub` answers what one app asks of another, `device` is what programs call.
`host` runs inside, with Python functions, and `relay`, where an app may connect to somebody.

All that a server says is a stranger's text. What of it may become a name is checked letter by
letter; nothing of it goes to a model that writes programs. Knows nothing of policies or runs.
"""
