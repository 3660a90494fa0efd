"""The web door of the collector, for operators with a browser. Needs aiohttp and jinja2, which are an extra.

It owns pages, cookies and headers. It has no policy, no flow and no event of its own for what operators do: each page
is an answer of the same methods that the command calls. Refuses to show a secret, and to run a script but the two in
static/.
"""
