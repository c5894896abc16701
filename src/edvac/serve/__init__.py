"""The front panel over HTTP: a model of this machine for any OpenAI client."""
