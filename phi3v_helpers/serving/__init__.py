"""`phi3v serve`: transformers' own OpenAI-compatible server, answering with a Phi3Vision.

app: the pieces put together. gate: who may come in, and how much at once. chat: /v1/chat/completions. messages: what
was sent -> question, history and pictures. turns: one answer after the other. settings: what of OpenAI's API is here.
formats: JSON that a client wants.
"""
