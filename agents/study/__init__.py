"""Automated experiments: a question, arms, a control, and verdicts that keep their error rate."""
