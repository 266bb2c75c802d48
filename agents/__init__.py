"""Where language models and federations meet: policies, guard, ledger, explanations."""
