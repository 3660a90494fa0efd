"""An agent in ten lines, for `leasehold exec` and as a sub-agent: it knows Anthropic's SDK and nothing of leasehold.

The SDK reads ANTHROPIC_BASE_URL and ANTHROPIC_API_KEY from the environment; the key is a lease token.
"""

import sys

import anthropic

client = anthropic.Anthropic()
answer = client.messages.create(
    model="claude-haiku-5-5",
    max_tokens=200,
    messages=[{"role": "user", "content": sys.argv[1] if len(sys.argv) > 1 else "Say in 12 words what a lease is."}],
)
words = "".join(block.text for block in answer.content if block.type == "text")
sys.stdout.write(f"{words[:40].strip()}... ({answer.usage.output_tokens} tokens)\n")
