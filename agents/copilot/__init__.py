"""The copilot: a conversation about one run, over tools that return facts; acting needs a yes."""
